//! Promises to those who read.

use std::collections::BTreeMap;

use super::{Finder, Finding};
use crate::history::{History, Mark, Read};

/// Offsets are dense: every log begins at 0 and has no gap, and neither has any answer.
pub(super) fn dense(history: &History) -> Finding {
    let mut finder = Finder::new("dense offsets");
    for (partition, log) in &history.finals {
        for (expected, &(offset, mark)) in (0..).zip(log) {
            finder.expect(offset == expected, || {
                format!("{mark} at {partition}@{offset} where {expected} was due")
            });
        }
    }
    for read in &history.reads {
        let pairs = read.records.iter().zip(read.records.iter().skip(1));
        for (&(a, _), &(b, _)) in pairs {
            finder.expect(b == a + 1, || {
                let (node, partition) = (read.node, read.partition);
                format!("node {node} answered {partition}@{a} and then {b}")
            });
        }
    }
    finder.done()
}

/// No two readers saw different records at one offset, and what was served stayed: anything that
/// was not committed when it was served would be missing from the final log of some run.
pub(super) fn agree(history: &History) -> Finding {
    let mut finder = Finder::new("readers agree");
    for (&partition, log) in &history.finals {
        let stays: BTreeMap<i64, Mark> = log.iter().copied().collect();
        let mut seen: BTreeMap<i64, (Mark, &Read)> = BTreeMap::new();
        for read in history.reads.iter().filter(|r| r.partition == partition) {
            for &(offset, mark) in &read.records {
                let first = seen.entry(offset).or_insert((mark, read)).to_owned();
                finder.expect(first.0 == mark, || {
                    format!(
                        "{partition}@{offset}: {} from node {} at {:?}, {mark} from node {} at {:?}",
                        first.0, first.1.node, first.1.at, read.node, read.at
                    )
                });
                let kept = stays.get(&offset).copied();
                finder.expect(kept == Some(mark), || {
                    format!(
                        "{partition}@{offset}: node {} served {mark} at {:?}, the log has {kept:?}",
                        read.node, read.at
                    )
                });
            }
        }
    }
    finder.done()
}

/// No answer reaches its own high watermark, and none names one beyond the final end.
pub(super) fn below_high_watermark(history: &History) -> Finding {
    let mut finder = Finder::new("below the high watermark");
    for read in &history.reads {
        let top = read.records.iter().map(|&(offset, _)| offset).max();
        finder.expect(top.is_none_or(|top| top < read.high_watermark), || {
            let (node, high) = (read.node, read.high_watermark);
            format!("node {node} served offset {top:?} under high watermark {high}")
        });
        let end = history.finals.get(&read.partition);
        let end = end.map_or(0, |log| log.last().map_or(0, |&(offset, _)| offset + 1));
        finder.expect(read.high_watermark <= end, || {
            let (node, high) = (read.node, read.high_watermark);
            format!("node {node} named high watermark {high}, the log ended at {end}")
        });
    }
    finder.done()
}
