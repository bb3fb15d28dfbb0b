//! P1: what was acknowledged or read stays. Jepsen's `lost-write`.
//!
//! With final reads of a key, every value that was acknowledged or read before must be in each of them at
//! its offset, unless the log begins later. Without, an acknowledged value is lost if somebody read
//! beyond it and nobody read it.

use super::{
    Checker,
    facts::{Facts, Final, Sighting, at},
    finder::Finder,
};
use crate::history::{Key, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "lost-write",
    promise: "P1: what was acknowledged or read stays at its offset",
    check,
    fed_by: &[Workload::Append],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    for (key, sighting) in facts.sightings() {
        for last in facts.log(key).iter().flat_map(|log| &log.finals) {
            if last.is_after(sighting.index) && sighting.offset >= last.start {
                in_final(facts, finder, key, sighting, last);
            }
        }
    }
    let without_final = facts.logs.iter().filter(|(_, log)| log.finals.is_empty());
    for (&key, _) in without_final {
        among_reads(facts, finder, key);
    }
}

fn in_final(facts: &Facts<'_>, finder: &mut Finder, key: Key, seen: Sighting, last: &Final<'_>) {
    let found = last.at(seen.offset);
    finder.expect(found == Some(seen.value), || {
        let found = found.map_or("nothing".to_owned(), |value| value.to_string());
        let name = facts.name(key);
        let when = entry_time(facts, seen.index);
        let mut ops = vec![seen.index, last.polled.completed.index];
        ops.extend(facts.writer(key, seen.value).map(|w| w.op.invoked.index));
        let text = format!(
            "{} was at {name}@{} ({when}); the final log ({}..{}) has {found} there",
            seen.value, seen.offset, last.start, last.end
        );
        (text, ops)
    });
}

/// Acknowledged values below the highest offset read.
fn among_reads(facts: &Facts<'_>, finder: &mut Finder, key: Key) {
    let polls = facts.polls.iter().filter(|polled| polled.key == key);
    let (mut read, mut top) = (std::collections::HashSet::new(), None);
    for polled in polls {
        for &(offset, value) in &polled.read.records {
            let _new = read.insert(value);
            top = top.max(Some((offset, polled.completed.index)));
        }
    }
    let Some((top, reader)) = top else { return };
    let start = facts.log(key).and_then(|log| log.starts.last());
    let start = start.map_or(0, |&(_, start)| start);
    let sends = facts.sends.iter().filter(|sent| sent.send.key == key);
    for sent in sends {
        let below = sent.places().filter(|(o, _)| (start..top).contains(o));
        for (offset, value) in below {
            finder.expect(read.contains(&value), || {
                let name = facts.name(key);
                let text = format!(
                    "{value} was acknowledged at {name}@{offset}; {name}@{top} was read, but {value} by \
                     nobody"
                );
                (text, [sent.ops(), vec![reader]].concat())
            });
        }
    }
}

fn entry_time(facts: &Facts<'_>, index: u64) -> String {
    let op = usize::try_from(index).ok().and_then(|i| facts.ops.get(i));
    op.map_or_else(String::new, at)
}
