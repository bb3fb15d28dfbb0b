//! Bounds the written frames that all logs together keep in memory.

use std::{
    collections::VecDeque,
    sync::{
        Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{bin::len64, frame::Frame, log::LogInner};

/// What a frame costs besides its bytes.
const FRAME_OVERHEAD: u64 = 200;

/// What a frame counts in the cache.
pub(crate) fn cost(frame: &Frame) -> u64 {
    len64(frame.total_bytes()) + FRAME_OVERHEAD
}

/// Written frames of all logs, oldest rounds dropped first. The frames are in the logs; here is only
/// who may drop what.
#[derive(Debug)]
pub(crate) struct Cache {
    limit: u64,
    /// Invariant: the sum of [`cost`] over the written frames in all logs' tails.
    bytes: AtomicU64,
    /// A log and the index after a round that it wrote.
    rounds: Mutex<VecDeque<(Weak<LogInner>, u64)>>,
}

impl Cache {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            bytes: AtomicU64::new(0),
            rounds: Mutex::default(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Frames of a log were written; evicts what is too much. The caller holds no log's lock.
    pub(crate) fn add(&self, log: Weak<LogInner>, end: u64, bytes: u64) {
        let mut total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.rounds.lock().push_back((log, end));
        while total > self.limit {
            let Some((log, end)) = self.rounds.lock().pop_front() else {
                return;
            };
            if let Some(log) = log.upgrade() {
                let freed = log.evict(end);
                total = self.bytes.fetch_sub(freed, Ordering::Relaxed) - freed;
            }
        }
    }

    /// Frames left memory for another reason.
    pub(crate) fn remove(&self, bytes: u64) {
        let _ = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
