//! Promises to those who read.

use std::collections::BTreeMap;

use super::{Finder, Finding};
use crate::seen::{History, Mark, Read};

/// Offsets are dense: every log begins at its start and has no gap, and neither has any answer.
pub(super) fn dense(history: &History) -> Finding {
    let mut finder = Finder::new("dense offsets");
    for (partition, log) in &history.finals {
        for (expected, &(offset, mark)) in (history.start(*partition)..).zip(log) {
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
                if offset < history.start(partition) {
                    continue;
                }
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

/// The log start that a node names never goes back, not even after a restart. (Another node that
/// still believes it leads may name an older one.)
pub(super) fn log_start_grows(history: &History) -> Finding {
    let mut finder = Finder::new("log start grows");
    let mut highest: BTreeMap<(u32, u64, i32), i64> = BTreeMap::new();
    for read in &history.reads {
        let key = (read.reader, read.node, read.partition);
        let before = highest.get(&key).copied().unwrap_or(0);
        finder.expect(read.log_start >= before, || {
            let (node, partition, start) = (read.node, read.partition, read.log_start);
            format!("node {node} named log start {start} of partition {partition} after {before}")
        });
        let _last = highest.insert(key, read.log_start.max(before));
    }
    for ((_, node, partition), start) in highest {
        let last = history.start(partition);
        finder.expect(start <= last, || {
            format!("node {node} named log start {start} of partition {partition}, at last {last}")
        });
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
        let start = history.start(read.partition);
        let end = end.map_or(0, |log| log.last().map_or(start, |&(offset, _)| offset + 1));
        finder.expect(read.high_watermark <= end, || {
            let (node, high) = (read.node, read.high_watermark);
            format!("node {node} named high watermark {high}, the log ended at {end}")
        });
    }
    finder.done()
}
