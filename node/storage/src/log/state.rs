//! The part of a log that is under its lock: pure bookkeeping, no disk.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use seriatim_proto::ids::Offset;
use seriatim_runtime::mutant::{self, Mutant};
use tokio::sync::oneshot;

use super::AppendDone;
use crate::{
    LogId, LogOptions, Result, StorageError,
    bin::len64,
    cache,
    frame::{Frame, MAX_FRAME_BYTES},
    segment::Segment,
};

/// Something for the disk, in order.
pub(crate) enum Op {
    /// Write the frames up to `end`, which are in the tail.
    Append {
        /// Index after the last frame.
        end: u64,
        /// Their bytes.
        bytes: u64,
        done: AppendDone,
    },
    /// Make everything before durable, whatever the durability.
    Sync(Reply),
    /// Remove the entries from an index on.
    Truncate(u64, Reply),
    /// Forget the entries up to one.
    Purge(LogId, Reply),
    /// Seal the segment that is written to.
    Roll(Reply),
}

/// Where a control operation reports.
pub(crate) type Reply = oneshot::Sender<Result<()>>;

impl Op {
    /// Answers with an error.
    pub(crate) fn refuse(self, error: &Arc<StorageError>) {
        match self {
            Self::Append { done, .. } => done(Err(Arc::clone(error))),
            Self::Sync(reply)
            | Self::Truncate(_, reply)
            | Self::Purge(_, reply)
            | Self::Roll(reply) => {
                // The caller may have stopped waiting.
                drop(reply.send(Err((**error).clone())));
            }
        }
    }
}

/// Where a log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// The last entry that was forgotten.
    pub(crate) purged: Option<LogId>,
    /// Offset of the first record after it.
    pub(crate) offset: Offset,
}

impl Start {
    /// The first index there can be.
    pub(crate) fn index(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }
}

/// What the lock of a log protects.
///
/// ```text
///   start.index()        tail front          written_end         last+1
///        |   in segments only  |  in both         |  in the tail only  |
/// ```
/// Invariant L1: `start.index() <= tail front <= written_end <= end()`, and `flushed_end <= end()`.
pub(crate) struct LogState {
    pub(crate) options: LogOptions,
    pub(crate) start: Start,
    /// Records below are not read any more, whether or not their entries are still here; not
    /// durable, see [`super::Log::raise_start_offset`].
    pub(crate) floor: Offset,
    /// The last entry, or the purged one if nothing follows it.
    pub(crate) last: Option<LogId>,
    /// Invariant L2: the base offset that the next entry must have.
    pub(crate) next_offset: Offset,
    /// Invariant L3: consecutive entries, of which the last is `last`.
    pub(crate) tail: VecDeque<Frame>,
    /// Every entry below is in a file and may leave the tail.
    pub(crate) written_end: u64,
    /// The append of every entry below is done.
    pub(crate) flushed_end: u64,
    /// Oldest first; all but the last sealed. The last may be sealed too.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// The first entry of every term at or after `start`.
    pub(crate) epochs: Vec<LogId>,
    /// How often entries were taken away at the end: what a reader took from a file meanwhile says
    /// nothing.
    pub(crate) cuts: u64,
    /// Bytes of all frames that were appended since the log was opened.
    pub(crate) appended: u64,
    pub(crate) committed: Option<LogId>,
    pub(crate) checkpoint: Option<(LogId, Bytes)>,
    /// Entry and next offset of the boundary; the rest stays in its file, it may be large.
    pub(crate) boundary: Option<(LogId, Offset)>,
    pub(crate) queue: VecDeque<Op>,
    /// Whether the log is in the engine's queue or with one of its threads.
    pub(crate) scheduled: bool,
}

impl LogState {
    /// Offset of the first record that may be read.
    pub(crate) fn start_offset(&self) -> Offset {
        self.start.offset.max(self.floor)
    }

    /// Index after the last entry.
    pub(crate) fn end(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// Index of the first entry in the tail; `end()` if it is empty.
    pub(crate) fn tail_start(&self) -> u64 {
        self.tail
            .front()
            .map_or_else(|| self.end(), |frame| frame.log_id().index)
    }

    /// Where in the tail an entry is.
    pub(crate) fn tail_position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.tail_start())?).ok()
    }

    /// Checks that `frames` continue the log, and nothing else.
    pub(crate) fn check(&self, frames: &[Frame]) -> Result<()> {
        let mut offset = self.next_offset;
        let mut term = self.last.map_or(0, |last| last.term);
        for (index, frame) in (self.end()..).zip(frames) {
            if frame.total_bytes() > MAX_FRAME_BYTES {
                return Err(StorageError::TooLarge {
                    what: "a frame",
                    bytes: frame.total_bytes(),
                    limit: MAX_FRAME_BYTES,
                });
            }
            let id = frame.log_id();
            let fits = frame.kind().is_entry()
                && id.index == index
                && id.term >= term
                && frame.base_offset() == offset;
            if !fits {
                return Err(StorageError::NotContiguous {
                    found: id,
                    offset: frame.base_offset(),
                    expected_index: index,
                    expected_offset: offset,
                });
            }
            term = id.term;
            offset = frame.next_offset();
        }
        Ok(())
    }

    /// Adds checked frames to the tail.
    pub(crate) fn extend(&mut self, frames: Vec<Frame>) {
        for frame in frames {
            let id = frame.log_id();
            if self.last.is_none_or(|last| last.term != id.term) || self.epochs.is_empty() {
                self.epochs.push(id);
            }
            self.last = Some(id);
            self.next_offset = frame.next_offset();
            self.appended += len64(frame.total_bytes());
            self.tail.push_back(frame);
        }
    }

    /// Term of an entry, or of the purged one.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if let Some(purged) = self.start.purged
            && purged.index == index
        {
            return Some(purged.term);
        }
        if index < self.start.index() || index >= self.end() {
            return None;
        }
        let after = self.epochs.partition_point(|epoch| epoch.index <= index);
        self.epochs
            .get(after.checked_sub(1)?)
            .map(|epoch| epoch.term)
    }

    /// Drops written frames below `end` from the tail; returns what they counted.
    pub(crate) fn evict(&mut self, end: u64) -> u64 {
        let end = end.min(self.written_end);
        let mut freed = 0;
        while let Some(frame) = self.tail.front() {
            if frame.log_id().index >= end {
                break;
            }
            freed += cache::cost(frame);
            drop(self.tail.pop_front());
        }
        freed
    }

    /// Removes the entries from `index` on, all of them written; `offset` is the base offset of
    /// the first. Returns what the frames counted in the cache.
    pub(crate) fn truncate(&mut self, index: u64, offset: Offset) -> u64 {
        let mut freed = 0;
        while let Some(frame) = self.tail.back() {
            if frame.log_id().index < index {
                break;
            }
            freed += cache::cost(frame);
            drop(self.tail.pop_back());
        }
        self.cuts += 1;
        self.last = index.checked_sub(1).and_then(|before| {
            let term = self.term_at(before)?;
            Some(LogId {
                term,
                index: before,
            })
        });
        self.epochs.retain(|epoch| epoch.index < index);
        if !mutant::on(Mutant::OffsetsNotTruncated) {
            self.next_offset = offset;
        }
        self.written_end = self.written_end.min(index);
        self.flushed_end = self.flushed_end.min(index);
        freed
    }

    /// Makes the entry after `purged` the first, at `offset`; it exists, or is the next to be appended.
    pub(crate) fn begin_after(&mut self, purged: LogId, offset: Offset) {
        let first = purged.index + 1;
        if let Some(term) = self.term_at(first) {
            self.epochs.retain(|epoch| epoch.index > first);
            self.epochs.insert(0, LogId { term, index: first });
        } else {
            self.epochs.clear();
        }
        self.start = Start {
            purged: Some(purged),
            offset,
        };
    }

    /// Empties the log; it goes on after `purged` at `offset`. Returns what the tail counted in
    /// the cache.
    pub(crate) fn reset(&mut self, purged: LogId, offset: Offset) -> u64 {
        self.cuts += 1;
        let freed = self.tail.drain(..).map(|frame| cache::cost(&frame)).sum();
        self.start = Start {
            purged: Some(purged),
            offset,
        };
        self.last = Some(purged);
        self.next_offset = offset;
        self.written_end = purged.index + 1;
        self.flushed_end = purged.index + 1;
        self.segments.clear();
        self.epochs.clear();
        freed
    }
}
