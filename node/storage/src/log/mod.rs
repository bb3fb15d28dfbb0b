//! One replica's log.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use seriatim_proto::ids::Offset;

use crate::{Boundary, Frame, FrameHead, LogId, LogKey, LogOptions, Result, StorageError};

/// Called once when an append is done, from a disk thread: it must not block.
pub type AppendDone = Box<dyn FnOnce(Result<(), Arc<StorageError>>) + Send>;

/// One replica's log. Cheap to clone. One appender at a time; many readers.
#[derive(Debug, Clone)]
pub struct Log {}

impl Log {
    /// The log's name.
    pub fn key(&self) -> LogKey {
        todo!()
    }

    /// Enqueues frames. When this returns they are readable through every reader; `done` runs after
    /// they were written and, with durability `fsync`, synced. On an error nothing was enqueued
    /// and `done` is dropped without a call.
    ///
    /// The frames MUST be entries whose indexes and base offsets continue the log.
    pub fn append(&self, frames: Vec<Frame>, done: AppendDone) -> Result<()> {
        todo!()
    }

    /// Offset that the next record will get.
    pub fn next_offset(&self) -> Offset {
        todo!()
    }

    /// Offset of the first record that may be read.
    pub fn log_start_offset(&self) -> Offset {
        todo!()
    }

    /// Index of the first entry there is, or will be.
    pub fn first_index(&self) -> u64 {
        todo!()
    }

    /// The last entry, or the purged one if nothing follows it.
    pub fn last_log_id(&self) -> Option<LogId> {
        todo!()
    }

    /// The last entry that was purged.
    pub fn purged_log_id(&self) -> Option<LogId> {
        todo!()
    }

    /// Index of the last entry whose append is done; `None` if there is none.
    pub fn flushed_index(&self) -> Option<u64> {
        todo!()
    }

    /// Changes segment size and durability from the next round on.
    pub fn set_options(&self, options: LogOptions) {
        todo!()
    }

    /// Removes the entries from `index` on, with their offsets; ordered with appends, durable on
    /// return. No append may be made before it returned.
    pub async fn truncate_from(&self, index: u64) -> Result<()> {
        todo!()
    }

    /// Forgets the entries up to `upto`, and drops segments that have no others; durable on return. If
    /// `upto` is beyond the last entry, the log restarts behind it: its next offset then comes
    /// from the boundary saved for `upto`.
    pub async fn purge(&self, upto: LogId) -> Result<()> {
        todo!()
    }

    /// Entries of a range of indexes, at least one and then up to `max_bytes`; fewer where the log
    /// ends. An index that was purged or does not exist yet is an error, unless the range is empty.
    pub async fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Frame>> {
        todo!()
    }

    /// The same without records and without a limit of bytes.
    pub async fn read_heads(&self, range: Range<u64>) -> Result<Vec<FrameHead>> {
        todo!()
    }

    /// Whole batches from the one that contains `from`, as long as their base offset is below `before`, at
    /// least one and then up to `max_bytes`. A batch may come as two pieces, so pieces
    /// concatenate to batches. Empty if there is none in this range.
    pub async fn read_batches(
        &self,
        from: Offset,
        before: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>> {
        todo!()
    }

    /// Term of the entry at `index`, or of the purged one; `None` outside the log.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        todo!()
    }

    /// The first entry of every term that the log holds.
    pub fn epochs(&self) -> Vec<LogId> {
        todo!()
    }

    /// Base offset of the entry at `index`; of the index after the last, the next offset.
    pub async fn offset_at(&self, index: u64) -> Result<Offset> {
        todo!()
    }

    /// Index of the batch that contains `offset`; `None` outside the log.
    pub async fn index_at(&self, offset: Offset) -> Result<Option<u64>> {
        todo!()
    }

    /// The first batch with a record of time `timestamp_ms` or later, and a base offset below `before`: its base offset
    /// and its largest timestamp.
    pub async fn offset_for_time(
        &self,
        timestamp_ms: i64,
        before: Offset,
    ) -> Result<Option<(Offset, i64)>> {
        todo!()
    }

    /// Remembers how far the log is committed; written with the next round, never synced.
    pub fn save_committed(&self, committed: LogId) {
        todo!()
    }

    /// What [`Log::save_committed`] said; after a restart perhaps an older value, or none.
    pub fn committed(&self) -> Option<LogId> {
        todo!()
    }

    /// Replaces the state machine's checkpoint; durable on return, after the log up to `at`.
    pub async fn save_checkpoint(&self, at: LogId, data: Bytes) -> Result<()> {
        todo!()
    }

    /// The last checkpoint.
    pub fn checkpoint(&self) -> Option<(LogId, Bytes)> {
        todo!()
    }

    /// Replaces the boundary; durable on return. Save it before [`Log::purge`].
    pub async fn save_boundary(&self, boundary: Boundary) -> Result<()> {
        todo!()
    }

    /// The last boundary.
    pub fn boundary(&self) -> Option<Boundary> {
        todo!()
    }

    /// Why the log stopped, if it did.
    pub fn poisoned(&self) -> Option<Arc<StorageError>> {
        todo!()
    }

    /// Reads all sealed segments and verifies every checksum; damage stops the log.
    pub async fn verify_sealed(&self) -> Result<()> {
        todo!()
    }
}
