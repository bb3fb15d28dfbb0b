//! What all logs of one data directory share.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use seriatim_runtime::{clock, task};

use crate::{
    LogKey, StorageError,
    cache::Cache,
    disk::{DirLock, Disk},
    engine::Engine,
    handles::Handles,
    progress::Progress,
    rolled::Rolled,
    space::Space,
};

/// Shared parts of one data directory.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) logs_dir: PathBuf,
    pub(crate) engine: Arc<Engine>,
    pub(crate) cache: Cache,
    pub(crate) handles: Handles,
    pub(crate) progress: Progress,
    pub(crate) space: Space,
    /// Bytes appended to any log and not yet written.
    pub(crate) pending_bytes: AtomicU64,
    /// Logs that began another segment.
    pub(crate) rolled: Rolled,
    /// Logs that stopped, and why.
    pub(crate) failed: Mutex<BTreeMap<LogKey, Arc<StorageError>>>,
    /// The lock of the data directory, as long as anything may still write to it.
    pub(crate) lock: Mutex<Option<Box<dyn DirLock>>>,
}

impl Core {
    /// The folder of a log.
    pub(crate) fn log_dir(&self, key: LogKey) -> PathBuf {
        self.logs_dir.join(key.to_string())
    }

    /// Runs disk work beside the executor; in place on a simulated disk, which says how long it took.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if self.disk.is_simulated() {
            let done = work();
            let delay = self.disk.take_delay();
            if !delay.is_zero() {
                clock::sleep(delay).await;
            }
            done
        } else {
            task::blocking(name, work).await
        }
    }

    /// Adds to the bytes not yet written.
    pub(crate) fn pending_add(&self, bytes: u64) {
        let _ = self.pending_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes from the bytes not yet written.
    pub(crate) fn pending_remove(&self, bytes: u64) {
        let _ = self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Updates the gauge of what all logs take.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge of bytes need not be exact"
    )]
    pub(crate) fn publish_log_bytes(&self, bytes: u64) {
        self.engine.metrics.log_bytes.set(bytes as f64);
    }

    /// Updates the gauges.
    pub(crate) fn publish(&self) {
        let metrics = &self.engine.metrics;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge of bytes need not be exact"
        )]
        let float = |value: u64| value as f64;
        metrics.cached_bytes.set(float(self.cache.bytes()));
        metrics
            .pending_bytes
            .set(float(self.pending_bytes.load(Ordering::Relaxed)));
        metrics
            .disk_full
            .set(if self.space.is_full() { 1.0 } else { 0.0 });
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Nobody holds a log any more, so nothing is queued: the threads may end.
        self.engine.stop();
    }
}
