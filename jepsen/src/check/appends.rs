//! Promises to those who append.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finder, Finding};
use crate::seen::{Append, History, Mark, Outcome};

/// A partition's final log by offset, and where each mark lies.
struct Final<'a> {
    by_offset: BTreeMap<i64, Mark>,
    places: BTreeMap<Mark, Vec<i64>>,
    log: &'a [(i64, Mark)],
}

fn finals(history: &History) -> BTreeMap<i32, Final<'_>> {
    let mut out = BTreeMap::new();
    for (&partition, log) in &history.finals {
        let mut places: BTreeMap<Mark, Vec<i64>> = BTreeMap::new();
        for &(offset, mark) in log {
            places.entry(mark).or_default().push(offset);
        }
        let _new = out.insert(
            partition,
            Final {
                by_offset: log.iter().copied().collect(),
                places,
                log,
            },
        );
    }
    out
}

/// Every acknowledged record is in the final log at its offset, unless it is below the log's start;
/// no record is there twice.
pub(super) fn acknowledged_once(history: &History) -> Finding {
    let mut finder = Finder::new("acknowledged, exactly once");
    let finals = finals(history);
    for append in &history.appends {
        let Outcome::Acknowledged { base_offset, .. } = append.outcome else {
            continue;
        };
        let log = finals.get(&append.partition);
        let start = history.start(append.partition);
        let records = append.records.iter().zip(base_offset..);
        for (&mark, offset) in records.filter(|(_, offset)| *offset >= start) {
            let found = log.and_then(|log| log.by_offset.get(&offset)).copied();
            finder.expect(found == Some(mark), || {
                let found = found.map_or("nothing".to_owned(), |m| m.to_string());
                let at = append.at;
                format!(
                    "{mark} acknowledged at {}@{offset} ({at:?}): there is {found}",
                    append.partition
                )
            });
        }
    }
    for (partition, log) in &finals {
        for (mark, places) in &log.places {
            finder.expect(places.len() == 1, || {
                format!("{mark} is in partition {partition} at {places:?}")
            });
        }
    }
    finder.done()
}

/// What was refused for certain is nowhere; what is in the log was sent.
pub(super) fn refused_absent(history: &History) -> Finding {
    let mut finder = Finder::new("refused is absent");
    let finals = finals(history);
    let mut sent: BTreeMap<i32, BTreeSet<Mark>> = BTreeMap::new();
    for append in &history.appends {
        sent.entry(append.partition)
            .or_default()
            .extend(append.records.iter().copied());
        if append.outcome == Outcome::Refused {
            for mark in &append.records {
                let log = finals.get(&append.partition);
                let places = log.and_then(|log| log.places.get(mark));
                finder.expect(places.is_none(), || {
                    format!("{mark} was refused, yet is at {places:?}")
                });
            }
        }
    }
    for (partition, log) in &finals {
        for (offset, mark) in log.log {
            let known = sent.get(partition).is_some_and(|s| s.contains(mark));
            finder.expect(known, || {
                format!("{mark} at {partition}@{offset} was never sent there")
            });
        }
    }
    finder.done()
}

/// In every final log each producer's records stand in the order in which it sent them.
pub(super) fn producer_order(history: &History) -> Finding {
    let mut finder = Finder::new("order of each producer");
    for (partition, log) in &history.finals {
        let mut last: BTreeMap<u32, Mark> = BTreeMap::new();
        for &(offset, mark) in log {
            let before = last.insert(mark.producer, mark);
            let good = before.is_none_or(|b| b.number < mark.number);
            finder.expect(good, || {
                format!("{mark} at {partition}@{offset} comes after {before:?}")
            });
        }
    }
    finder.done()
}

/// An append on condition landed exactly where it demanded.
pub(super) fn conditions_held(history: &History) -> Finding {
    let mut finder = Finder::new("conditional appends");
    let conditional = |append: &Append| match append.outcome {
        Outcome::Acknowledged {
            base_offset,
            expected_end: Some(expected),
        } => Some((base_offset, expected)),
        Outcome::Acknowledged { .. } | Outcome::Refused | Outcome::Unknown => None,
    };
    for append in &history.appends {
        if let Some((base, expected)) = conditional(append) {
            finder.expect(base == expected, || {
                let mark = append.records.first();
                format!("{mark:?} demanded the end {expected} and landed at {base}")
            });
        }
    }
    finder.done()
}
