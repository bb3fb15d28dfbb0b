//! Watches the free space of the data directory.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use seriatim_runtime::clock::Instant;

use seriatim_runtime::clock;

use crate::disk::Disk;

/// How old an answer of the file system may be.
const FRESH: Duration = Duration::from_millis(250);

/// Whether there is room to write.
#[derive(Debug)]
pub(crate) struct Space {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    reserve_bytes: u64,
    /// A write met a full disk and has not succeeded since.
    refused: AtomicBool,
    /// Whether the free space was below the reserve, and when that was asked.
    last: Mutex<Option<(Instant, bool)>>,
}

impl Space {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, reserve_bytes: u64) -> Self {
        Self {
            disk,
            dir,
            reserve_bytes,
            refused: AtomicBool::new(false),
            last: Mutex::new(None),
        }
    }

    /// Takes note of a write that found no room, or of one that did.
    pub(crate) fn note(&self, refused: bool) {
        // Mostly false already: a load leaves the cache line shared between the disk threads.
        if self.refused.load(Ordering::Relaxed) != refused {
            self.refused.store(refused, Ordering::Relaxed);
        }
    }

    /// Free bytes now. A file system that does not say is taken to have enough.
    pub(crate) fn free(&self) -> u64 {
        self.disk.free_space(&self.dir).unwrap_or(u64::MAX)
    }

    /// Whether a write is refused now, or the reserve is used up.
    pub(crate) fn is_full(&self) -> bool {
        if self.refused.load(Ordering::Relaxed) {
            return true;
        }
        let now = clock::now();
        let mut last = self.last.lock();
        if let Some((at, full)) = *last
            && now.saturating_duration_since(at) < FRESH
        {
            return full;
        }
        // Space that cannot be asked for is no reason to refuse writes; the write itself will tell.
        let full = self
            .disk
            .free_space(&self.dir)
            .is_ok_and(|free| free < self.reserve_bytes);
        *last = Some((now, full));
        full
    }
}
