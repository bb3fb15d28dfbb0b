//! What a log takes on disk, and how much of it lies behind an entry.

use super::{Log, LogInner};
use crate::SegmentInfo;

impl Log {
    /// The log's files, oldest first; the last may still be written to.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = self.0.segments();
        let infos = segments.iter().filter_map(|segment| {
            let summary = segment.summary.lock();
            Some(SegmentInfo {
                last: summary.last?,
                base_offset: segment.base_offset,
                next_offset: summary.next_offset,
                bytes: summary.end,
                max_timestamp: summary.max_timestamp,
                sealed: summary.sealed,
            })
        });
        infos.collect()
    }

    /// Bytes that were appended since the log was opened.
    pub fn appended_bytes(&self) -> u64 {
        self.0.state.lock().appended
    }

    /// Bytes of its files.
    pub fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    /// About how many bytes of its files lie behind an entry.
    pub fn bytes_behind(&self, index: u64) -> u64 {
        let segments = self.0.segments();
        let behind = segments.iter().map(|segment| {
            let summary = segment.summary.lock();
            let end = summary.end_index();
            if index < segment.first_index {
                return summary.end;
            }
            let count = end.saturating_sub(segment.first_index);
            let left = end.saturating_sub(index.saturating_add(1));
            // Entries of one file are taken to be of one size.
            let share = u128::from(summary.end) * u128::from(left) / u128::from(count.max(1));
            u64::try_from(share).unwrap_or(summary.end)
        });
        behind.sum()
    }

    /// Whether an entry can be read without the disk.
    pub fn is_in_memory(&self, index: u64) -> bool {
        index >= self.0.state.lock().tail_start()
    }
}

impl LogInner {
    pub(crate) fn size_bytes(&self) -> u64 {
        let segments = self.segments();
        segments
            .iter()
            .map(|segment| segment.summary.lock().end)
            .sum()
    }
}
