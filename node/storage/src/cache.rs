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

    /// Counts frames that are about to become evictable.
    pub(crate) fn charge(&self, bytes: u64) {
        let _ = self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Frames of a log that were charged are evictable; evicts what is too much. The caller holds no
    /// log's lock.
    pub(crate) fn add(&self, log: Weak<LogInner>, end: u64) {
        self.rounds.lock().push_back((log, end));
        while let Some((log, end)) = self.next_to_evict() {
            if let Some(log) = log.upgrade() {
                self.remove(log.evict(end));
            }
        }
    }

    /// The oldest round, if there are too many bytes or too many rounds. Purges and truncations take
    /// frames and leave their rounds, so that these need a bound of their own.
    fn next_to_evict(&self) -> Option<(Weak<LogInner>, u64)> {
        let mut rounds = self.rounds.lock();
        let too_many = len64(rounds.len()) > self.limit / FRAME_OVERHEAD;
        if too_many || self.bytes() > self.limit {
            rounds.pop_front()
        } else {
            None
        }
    }

    /// Frames left memory for another reason.
    pub(crate) fn remove(&self, bytes: u64) {
        let _ = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
