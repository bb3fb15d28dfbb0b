//! P4: a committed offset stays and never moves by itself: whoever asks after a commit was acknowledged,
//! or after somebody saw it, is told that offset or a later one.
//!
//! Where somebody outside of the group set the offset after others had, it may have been set back; such
//! keys are left to `commit-author`.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use super::{
    Checker,
    facts::{Facts, at},
    finder::Finder,
    highest::Highest,
};
use crate::history::{Commit, Key, Kind, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "commit-lost",
    promise: "P4: a committed offset stays, and never goes back by itself",
    check,
    fed_by: &[Workload::Offsets],
};

/// A group and a key.
pub(super) type Place<'a> = (&'a str, Key);

/// Where somebody outside of the group committed, which may set it back. Whoever committed there before
/// anybody else did set nothing back.
pub(super) fn set_from_outside<'a>(facts: &Facts<'a>) -> HashSet<Place<'a>> {
    let mut begun: Vec<(u64, Option<u64>, &'a Commit)> = Vec::new();
    for (op, commit) in &facts.commits {
        let acknowledged = op.completed.filter(|end| end.kind == Kind::Ok);
        begun.push((op.invoked.index, acknowledged.map(|end| end.index), *commit));
    }
    begun.sort_unstable_by_key(|(invoked, ..)| *invoked);
    // What came first, and the entry that tells that it had happened.
    let mut first: HashMap<Place<'a>, Option<u64>> = HashMap::new();
    let mut out = HashSet::new();
    for (invoked, acknowledged, commit) in begun {
        let outside = commit.member.is_empty();
        for &key in commit.offsets.keys() {
            let place = (commit.group.as_str(), key);
            match first.entry(place) {
                Entry::Vacant(none) => {
                    let over = if outside { acknowledged } else { Some(0) };
                    let _first = none.insert(over);
                }
                Entry::Occupied(first) => {
                    let over = first.get().is_some_and(|over| over < invoked);
                    if outside || !over {
                        let _new = out.insert(place);
                    }
                }
            }
        }
    }
    out
}

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let known = known(facts);
    let outside = set_from_outside(facts);
    for (op, committed) in &facts.committed {
        let Some(end) = op.completed.filter(|end| end.kind == Kind::Ok) else {
            continue;
        };
        for (&key, &seen) in &committed.offsets {
            let place = (committed.group.as_str(), key);
            if outside.contains(&place) {
                continue;
            }
            let least = known.get(&place);
            let least = least.and_then(|known| known.before(op.invoked.index));
            let good = least.is_none_or(|&(_, least)| seen.is_some_and(|seen| seen >= least));
            finder.expect(good, || {
                let (index, least) = least.copied().unwrap_or_default();
                let text = format!(
                    "group {} is at {seen:?} of {} ({}), it was at {least} before",
                    committed.group,
                    facts.name(key),
                    at(end)
                );
                (text, vec![index, op.invoked.index, end.index])
            });
        }
    }
}

/// What was acknowledged or seen to be committed, entry by entry.
fn known<'a>(facts: &Facts<'a>) -> HashMap<Place<'a>, Highest<i64>> {
    let mut notes: Vec<(u64, Place<'a>, i64)> = Vec::new();
    for (op, commit) in &facts.commits {
        let Some(end) = op.completed.filter(|end| end.kind == Kind::Ok) else {
            continue;
        };
        let offsets = commit.offsets.iter();
        notes.extend(
            offsets.map(|(&key, &offset)| (end.index, (commit.group.as_str(), key), offset)),
        );
    }
    for (op, committed) in &facts.committed {
        let Some(end) = op.completed.filter(|end| end.kind == Kind::Ok) else {
            continue;
        };
        let offsets = committed.offsets.iter();
        notes.extend(offsets.filter_map(|(&key, &offset)| {
            Some((end.index, (committed.group.as_str(), key), offset?))
        }));
    }
    Highest::of_each(notes)
}
