//! One replica's log.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use parking_lot::Mutex;
use seriatim_proto::ids::Offset;
use seriatim_runtime::clock;
use tokio::sync::{Notify, oneshot};

use crate::{
    Boundary, Frame, LogId, LogKey, LogOptions, Result, StorageError,
    bin::len64,
    core::Core,
    engine::{FULL_DISK_RETRY, Work},
    progress::LogProgress,
};

mod control;
pub(crate) mod files;
mod read;
pub(crate) mod recover;
mod scrub;
mod sizes;
mod state;
mod unlink;
mod write;

pub(crate) use state::Start;
use state::{LogState, Op, Reply};
pub(crate) use unlink::Unlink;
pub(crate) use write::Round;
use write::Writer;

/// Called once when an append is done, from a disk thread: it must not block.
pub type AppendDone = Box<dyn FnOnce(Result<(), Arc<StorageError>>) + Send>;

/// One replica's log. Cheap to clone. One appender at a time; many readers.
#[derive(Clone)]
pub struct Log(pub(crate) Arc<LogInner>);

/// Lock order: `writer`, then `state`, then a segment's `summary`, then its `index`.
pub(crate) struct LogInner {
    pub(crate) key: LogKey,
    dir: PathBuf,
    core: Arc<Core>,
    state: Mutex<LogState>,
    writer: Mutex<Writer>,
    /// Held while checkpoint or boundary are replaced; taken before all other locks.
    small_files: Mutex<()>,
    /// Why the log stopped; set once.
    poison: OnceLock<Arc<StorageError>>,
    /// Told once `poison` is set.
    stopped: Notify,
    /// Told whenever `flushed_end` has risen.
    flushed: Notify,
}

impl fmt::Debug for LogInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("key", &self.key)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl LogInner {
    /// Recovers a log from its folder. Blocks.
    pub(crate) fn recover(core: Arc<Core>, key: LogKey, options: LogOptions) -> Result<Arc<Self>> {
        let recovered = recover::recover(&core, key, options)?;
        Ok(Arc::new(Self {
            key,
            dir: core.log_dir(key),
            core,
            state: Mutex::new(recovered.state),
            writer: Mutex::new(recovered.writer),
            small_files: Mutex::new(()),
            poison: OnceLock::new(),
            stopped: Notify::new(),
            flushed: Notify::new(),
        }))
    }

    /// Why the log stopped, if it did.
    pub(crate) fn poisoned(&self) -> Option<Arc<StorageError>> {
        self.poison.get().cloned()
    }

    /// An error that says that the log stopped, if it did.
    fn check_running(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(error) => Err(StorageError::Poisoned {
                key: self.key,
                source: Arc::clone(error),
            }),
        }
    }

    /// Hands the log to the disk threads, if it is not there.
    fn schedule(self: &Arc<Self>, state: &mut LogState) -> bool {
        if state.scheduled {
            return true;
        }
        state.scheduled = self.core.engine.submit(Work::Log(Arc::clone(self)));
        state.scheduled
    }

    /// Runs one operation on the disk thread, in order with the appends.
    async fn run(self: &Arc<Self>, op: impl FnOnce(Reply) -> Op) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.state.lock();
            self.check_running()?;
            state.queue.push_back(op(reply));
            if !self.schedule(&mut state) {
                drop(state.queue.pop_back());
                return Err(StorageError::Closed);
            }
        }
        answer.await.unwrap_or(Err(StorageError::Closed))
    }

    /// What all logs share.
    pub(crate) fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    /// Takes the log out of use without calling it a failure, and waits for its disk thread.
    pub(crate) fn retire(&self, why: StorageError) {
        let why = Arc::new(why);
        let _first = self.poison.set(Arc::clone(&why));
        self.stopped.notify_waiters();
        // A round that is on its way ends before the writer can be had.
        let mut writer = self.writer.lock();
        writer.active = None;
        drop(writer);
        self.refuse_queued(&why);
    }

    /// Writes what is only in memory: how far the log is committed.
    pub(crate) fn save_last_progress(&self) {
        let synced_end = self.writer.lock().synced_end;
        let committed = self.state.lock().committed;
        self.save_progress(LogProgress {
            synced_end,
            committed,
        });
    }
}

impl Drop for LogInner {
    fn drop(&mut self) {
        self.core.cache.remove(self.cached());
        if self.poison.get().is_none() {
            self.save_last_progress();
        }
    }
}

impl Log {
    /// The log's name.
    pub fn key(&self) -> LogKey {
        self.0.key
    }

    /// Enqueues frames. When this returns they are readable through every reader; `done` runs after
    /// they were written and, with durability `fsync`, synced. On an error nothing was enqueued
    /// and `done` is dropped without a call.
    ///
    /// The frames MUST be entries whose indexes and base offsets continue the log.
    pub fn append(&self, frames: Vec<Frame>, done: AppendDone) -> Result<()> {
        let bytes = frames.iter().map(|frame| len64(frame.total_bytes())).sum();
        let mut state = self.0.state.lock();
        self.0.check_running()?;
        state.check(&frames)?;
        if !self.0.schedule(&mut state) {
            return Err(StorageError::Closed);
        }
        state.extend(frames);
        let end = state.end();
        state.queue.push_back(Op::Append { end, bytes, done });
        self.0.core.pending_add(bytes);
        Ok(())
    }

    /// Offset that the next record will get.
    pub fn next_offset(&self) -> Offset {
        self.0.state.lock().next_offset
    }

    /// Offset of the first record that may be read.
    pub fn log_start_offset(&self) -> Offset {
        self.0.state.lock().start_offset()
    }

    /// Hides the records below `offset` from readers of records and offsets. Only raises, and only
    /// until the log is closed: whoever decides it remembers it. Entries stay until they are purged.
    pub fn raise_start_offset(&self, offset: Offset) {
        let mut state = self.0.state.lock();
        state.floor = state.floor.max(offset);
    }

    /// Seals the segment that is written to; ordered with appends, durable on return.
    pub async fn roll(&self) -> Result<()> {
        self.0.run(Op::Roll).await
    }

    /// Index of the first entry there is, or will be.
    pub fn first_index(&self) -> u64 {
        self.0.state.lock().start.index()
    }

    /// The last entry, or the purged one if nothing follows it.
    pub fn last_log_id(&self) -> Option<LogId> {
        self.0.state.lock().last
    }

    /// The last entry that was purged.
    pub fn purged_log_id(&self) -> Option<LogId> {
        self.0.state.lock().start.purged
    }

    /// Index of the last entry whose append is done; `None` if there is none.
    pub fn flushed_index(&self) -> Option<u64> {
        self.0.state.lock().flushed_end.checked_sub(1)
    }

    /// Returns when the append of the entry at `index` is done. It MUST be one that is never truncated.
    pub async fn flushed(&self, index: u64) -> Result<()> {
        loop {
            let mut told = std::pin::pin!(self.0.flushed.notified());
            let _ready = told.as_mut().enable();
            if self.0.state.lock().flushed_end > index {
                return Ok(());
            }
            tokio::select! {
                biased;
                _why = self.stopped() => return self.0.check_running(),
                () = told.as_mut() => {}
            }
        }
    }

    /// Changes segment size and durability from the next round on.
    pub fn set_options(&self, options: LogOptions) {
        self.0.state.lock().options = options;
    }

    /// Removes the entries from `index` on, with their offsets; ordered with appends, durable on
    /// return. No append may be made before it returned.
    pub async fn truncate_from(&self, index: u64) -> Result<()> {
        self.0.run(|reply| Op::Truncate(index, reply)).await
    }

    /// Forgets the entries up to `upto`, and drops segments that have no others; durable on
    /// return. If the log does not hold `upto`, it restarts behind it: its next offset then comes
    /// from the boundary, which must have been saved for `upto`.
    pub async fn purge(&self, upto: LogId) -> Result<()> {
        self.0.run(|reply| Op::Purge(upto, reply)).await
    }

    /// Makes every append so far durable, whatever the log's durability.
    pub async fn sync(&self) -> Result<()> {
        self.0.run(Op::Sync).await
    }

    /// Term of the entry at `index`, or of the purged one; `None` outside the log.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.0.state.lock().term_at(index)
    }

    /// The first entry of every term that the log holds.
    pub fn epochs(&self) -> Vec<LogId> {
        self.0.state.lock().epochs.clone()
    }

    /// Remembers how far the log is committed; written with the next round, never synced.
    pub fn save_committed(&self, committed: LogId) {
        self.0.state.lock().committed = Some(committed);
    }

    /// What [`Log::save_committed`] said; after a restart perhaps an older value, or none.
    pub fn committed(&self) -> Option<LogId> {
        self.0.state.lock().committed
    }

    /// Replaces the state machine's checkpoint; durable on return, after the log up to `at`.
    pub async fn save_checkpoint(&self, at: LogId, data: Bytes) -> Result<()> {
        self.sync().await?;
        self.small_file("checkpoint", move |inner| {
            inner.ensure_dir(&mut inner.writer.lock())?;
            let _one_at_a_time = inner.small_files.lock();
            if inner.state.lock().term_at(at.index) != Some(at.term) {
                return Err(inner.out_of_range(at.index));
            }
            files::write_checkpoint(&*inner.core.disk, &inner.dir, at, &data)?;
            inner.state.lock().checkpoint = Some((at, data.clone()));
            Ok(())
        })
        .await
    }

    /// The last checkpoint.
    pub fn checkpoint(&self) -> Option<(LogId, Bytes)> {
        self.0.state.lock().checkpoint.clone()
    }

    /// Replaces the boundary; durable on return. Save it before [`Log::purge`].
    pub async fn save_boundary(&self, boundary: Boundary) -> Result<()> {
        self.small_file("boundary", move |inner| {
            inner.check_running()?;
            inner.ensure_dir(&mut inner.writer.lock())?;
            let _one_at_a_time = inner.small_files.lock();
            files::write_boundary(&*inner.core.disk, &inner.dir, &boundary)?;
            inner.state.lock().boundary = Some((boundary.log_id, boundary.next_offset));
            Ok(())
        })
        .await
    }

    /// Replaces a small file beside the executor; waits for space as appends do.
    async fn small_file(
        &self,
        name: &'static str,
        write: impl Fn(&LogInner) -> Result<()> + Send + Sync + 'static,
    ) -> Result<()> {
        let write = Arc::new(write);
        loop {
            let (inner, write) = (Arc::clone(&self.0), Arc::clone(&write));
            let core = &self.0.core;
            match core.blocking(name, move || write(&inner)).await {
                Err(error) if error.is_no_space() && core.engine.is_running() => {
                    core.space.note(true);
                    clock::sleep(FULL_DISK_RETRY).await;
                }
                Ok(()) => {
                    core.space.note(false);
                    return Ok(());
                }
                result => return result,
            }
        }
    }

    /// The last entry that the boundary stands for.
    pub fn boundary_id(&self) -> Option<LogId> {
        self.0.state.lock().boundary.map(|(at, _)| at)
    }

    /// Reads the last boundary; damage stops the log.
    pub async fn boundary(&self) -> Result<Option<Boundary>> {
        if self.boundary_id().is_none() {
            return Ok(None);
        }
        let inner = Arc::clone(&self.0);
        let read = move || files::read_boundary(&*inner.core.disk, &inner.dir);
        let read = self.0.core.blocking("boundary", read).await;
        read.inspect_err(|error| {
            if error.is_damage() {
                drop(self.0.poison(error.clone()));
            }
        })
    }

    /// Why the log stopped, if it did.
    pub fn poisoned(&self) -> Option<Arc<StorageError>> {
        self.0.poisoned()
    }

    /// Returns when the log has stopped, with the reason: nobody else hears of damage that was found
    /// while nothing is read or written.
    pub async fn stopped(&self) -> Arc<StorageError> {
        loop {
            let mut told = std::pin::pin!(self.0.stopped.notified());
            let _ready = told.as_mut().enable();
            if let Some(why) = self.poisoned() {
                return why;
            }
            told.await;
        }
    }
}

impl LogInner {
    fn out_of_range(&self, index: u64) -> StorageError {
        let state = self.state.lock();
        StorageError::OutOfRange {
            index,
            first: state.start.index(),
            end: state.end(),
        }
    }
}
