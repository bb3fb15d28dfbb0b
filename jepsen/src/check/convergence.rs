//! What must be true once every fault is over.

use std::{collections::BTreeSet, time::Duration};

use super::{Finder, Finding};
use crate::seen::History;

/// All replicas of a partition hold the same bytes.
pub(super) fn replicas_identical(history: &History) -> Finding {
    let mut finder = Finder::new("replicas identical");
    for (partition, replicas) in &history.replicas {
        let different: BTreeSet<u64> = replicas.values().copied().collect();
        finder.expect(different.len() == 1, || {
            format!("partition {partition}: {replicas:x?}")
        });
    }
    for partition in history.finals.keys() {
        let count = history.replicas.get(partition).map_or(0, |r| r.len());
        finder.expect(count >= 2, || {
            format!("partition {partition}: only {count} replicas could be compared")
        });
    }
    finder.done()
}

/// Appends succeeded again in time.
pub(super) fn recovered(history: &History, max: Duration) -> Finding {
    let mut finder = Finder::new("recovery in time");
    let took = history.recovered_after;
    finder.expect(took.is_some_and(|took| took <= max), || match took {
        Some(took) => format!("took {took:?}, the bound is {max:?}"),
        None => "some partition never took an append again".to_owned(),
    });
    finder.done()
}
