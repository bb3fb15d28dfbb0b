//! Group commit for the whole node: logs that have something to write queue up here, and a few disk
//! threads take them, write, sync, and complete. On a simulated disk one task does the same.
//!
//! A log is in the queue or with one thread, never both, so its writes keep their order. What is
//! appended to it meanwhile shares its next round, and so do, where the queue is long, the
//! directory syncs of logs that were created together.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use seriatim_runtime::{clock, task};
use tokio::sync::Notify;

use crate::{
    Result,
    disk::{Disk, DiskFile},
    error::IoContext,
    log::{LogInner, Round, Unlink},
    metrics::Metrics,
    votes::{Journal, VoteRound},
};

/// How long writes wait after the disk was full.
pub(crate) const FULL_DISK_RETRY: Duration = Duration::from_millis(100);

/// Most pieces of work that one thread takes at once.
const BATCH_MAX: usize = 32;

/// Something with writes to do.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Log(Arc<LogInner>),
    Votes(Arc<Journal>),
    Unlink(Arc<Unlink>),
}

/// What a piece of work has done.
pub(crate) enum Begun<R> {
    /// There was nothing to write.
    Idle,
    /// Something that needs no further step.
    Done,
    /// The disk is full: the same again later.
    Full,
    /// Written; to be synced and finished.
    Round(R),
}

enum AnyRound {
    Log(Arc<LogInner>, Round),
    Votes(Arc<Journal>, VoteRound),
}

/// The queue and what all disk work shares.
pub(crate) struct Engine {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) metrics: Metrics,
    pub(crate) fsyncs: AtomicU64,
    logs_dir: PathBuf,
    threads: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
    notify: Notify,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Work>,
    /// Work that waits for space.
    full: Vec<Work>,
    /// Threads that wait for work.
    waiting: usize,
    stopped: bool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("logs_dir", &self.logs_dir)
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn new(disk: Arc<dyn Disk>, logs_dir: PathBuf, threads: usize) -> Self {
        Self {
            disk,
            metrics: Metrics::new(),
            fsyncs: AtomicU64::new(0),
            logs_dir,
            threads: threads.max(1),
            queue: Mutex::default(),
            wake: Condvar::new(),
            notify: Notify::new(),
        }
    }

    /// Starts the threads, or on a simulated disk the task; returns the threads.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<Vec<std::thread::JoinHandle<()>>> {
        if self.disk.is_simulated() {
            let engine = Arc::clone(self);
            drop(task::spawn(
                "disk",
                async move { engine.run_simulated().await },
            ));
            return Ok(Vec::new());
        }
        (0..self.threads)
            .map(|number| {
                let engine = Arc::clone(self);
                std::thread::Builder::new()
                    .name(format!("disk-{number}"))
                    .spawn(move || engine.run_thread())
            })
            .collect()
    }

    /// Queues work that was not queued; `false` once the engine has stopped.
    pub(crate) fn submit(&self, work: Work) -> bool {
        let mut queue = self.queue.lock();
        if queue.stopped {
            return false;
        }
        queue.ready.push_back(work);
        let wake = queue.waiting > 0;
        drop(queue);
        if self.disk.is_simulated() {
            self.notify.notify_one();
        } else if wake {
            let _ = self.wake.notify_one();
        }
        true
    }

    /// No more work is taken; what is queued is finished, unless the disk is full.
    pub(crate) fn stop(&self) {
        let mut queue = self.queue.lock();
        queue.stopped = true;
        let full = std::mem::take(&mut queue.full);
        drop(queue);
        for work in full {
            abandon(&work);
        }
        let _ = self.wake.notify_all();
        self.notify.notify_one();
    }

    /// Whether work is still taken.
    pub(crate) fn is_running(&self) -> bool {
        !self.queue.lock().stopped
    }

    /// Syncs a file and measures it.
    pub(crate) fn sync(&self, file: &dyn DiskFile, path: &std::path::Path) -> Result<()> {
        let before = clock::now();
        let result = file.sync().at("sync", path);
        let took = clock::now().saturating_duration_since(before);
        let _ = self.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.metrics.fsyncs.increment(1);
        self.metrics.fsync_seconds.record(took);
        result
    }

    fn run_thread(&self) {
        while let Some(batch) = self.next_batch() {
            for round in self.write(batch) {
                self.complete(round.synced());
            }
        }
    }

    /// Waits for work; `None` when stopped and nothing is left.
    fn next_batch(&self) -> Option<Vec<Work>> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(batch) = queue.take(self.threads) {
                return Some(batch);
            }
            if queue.stopped {
                return None;
            }
            queue.waiting += 1;
            if queue.full.is_empty() {
                self.wake.wait(&mut queue);
            } else if self.wake.wait_for(&mut queue, FULL_DISK_RETRY).timed_out() {
                queue.retry();
            }
            queue.waiting -= 1;
        }
    }

    async fn run_simulated(&self) {
        loop {
            let (batch, full, stopped) = {
                let mut queue = self.queue.lock();
                (queue.take(1), !queue.full.is_empty(), queue.stopped)
            };
            match batch {
                Some(batch) => {
                    let written = self.write(batch);
                    let syncs = u32::try_from(written.len()).unwrap_or(u32::MAX);
                    let ahead = self.disk.sync_time(syncs);
                    if !ahead.is_zero() {
                        clock::sleep(ahead).await;
                    }
                    let rounds: Vec<_> = written.into_iter().map(AnyRound::synced).collect();
                    let delay = self.disk.take_delay().saturating_sub(ahead);
                    if !delay.is_zero() {
                        clock::sleep(delay).await;
                    }
                    for round in rounds {
                        self.complete(round);
                    }
                    // Others may run between rounds, as they do beside a thread.
                    tokio::task::yield_now().await;
                }
                None if stopped => return,
                None if full => {
                    clock::sleep(FULL_DISK_RETRY).await;
                    self.queue.lock().retry();
                }
                None => self.notify.notified().await,
            }
        }
    }

    /// Writes; returns what must be synced.
    fn write(&self, batch: Vec<Work>) -> Vec<AnyRound> {
        let mut rounds = Vec::with_capacity(batch.len());
        let mut created = false;
        for work in batch {
            let begun = match &work {
                Work::Log(log) => match log.begin() {
                    Begun::Round(round) => {
                        created |= round.created_dir;
                        Begun::Round(AnyRound::Log(Arc::clone(log), round))
                    }
                    Begun::Idle => Begun::Idle,
                    Begun::Done => Begun::Done,
                    Begun::Full => Begun::Full,
                },
                Work::Votes(journal) => match journal.begin() {
                    Begun::Round(round) => {
                        Begun::Round(AnyRound::Votes(Arc::clone(journal), round))
                    }
                    Begun::Idle => Begun::Idle,
                    Begun::Done => Begun::Done,
                    Begun::Full => Begun::Full,
                },
                Work::Unlink(unlink) => {
                    unlink.step();
                    Begun::Done
                }
            };
            match begun {
                Begun::Idle => {}
                Begun::Done => self.requeue(work),
                Begun::Full => self.wait_for_space(work),
                Begun::Round(round) => rounds.push(round),
            }
        }
        if created {
            // One sync names all logs that were created in this batch.
            let result = self
                .disk
                .sync_dir(&self.logs_dir)
                .at("sync", &self.logs_dir);
            if let Err(error) = result {
                for round in &mut rounds {
                    if let AnyRound::Log(_, round) = round
                        && round.created_dir
                    {
                        round.fail(error.clone());
                    }
                }
            }
        }
        rounds
    }

    fn complete(&self, round: AnyRound) {
        match round {
            AnyRound::Log(log, round) => {
                log.finish(round);
                self.requeue(Work::Log(log));
            }
            AnyRound::Votes(journal, round) => {
                journal.finish(round);
                self.requeue(Work::Votes(journal));
            }
        }
    }

    /// Queues work again if it has more to do, behind the others.
    fn requeue(&self, work: Work) {
        let quiet = self.queue.lock().ready.is_empty();
        let more = match &work {
            Work::Log(log) => log.has_more(quiet),
            Work::Votes(journal) => journal.has_more(),
            Work::Unlink(unlink) => unlink.has_more(),
        };
        if more {
            // Also after a stop: what was enqueued before it is still written.
            let mut queue = self.queue.lock();
            queue.ready.push_back(work);
            if queue.waiting > 0 {
                let _ = self.wake.notify_one();
            }
        }
    }

    fn wait_for_space(&self, work: Work) {
        let mut queue = self.queue.lock();
        if queue.stopped {
            drop(queue);
            abandon(&work);
        } else {
            queue.full.push(work);
        }
    }
}

impl AnyRound {
    fn synced(mut self) -> Self {
        match &mut self {
            Self::Log(log, round) => log.sync(round),
            Self::Votes(journal, round) => journal.sync(round),
        }
        self
    }
}

impl Queue {
    /// This thread's share of what is ready.
    fn take(&mut self, threads: usize) -> Option<Vec<Work>> {
        if self.ready.is_empty() {
            return None;
        }
        let share = (self.ready.len() / threads).clamp(1, BATCH_MAX);
        Some(self.ready.drain(..share).collect())
    }

    fn retry(&mut self) {
        self.ready.extend(self.full.drain(..));
    }
}

fn abandon(work: &Work) {
    match work {
        Work::Log(log) => log.abandon(),
        Work::Votes(journal) => journal.abandon(),
        // The next start removes the files.
        Work::Unlink(_) => {}
    }
}
