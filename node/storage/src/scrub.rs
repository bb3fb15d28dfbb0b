//! Background verification: after a log was opened, its segments are read once, slowly.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use seriatim_runtime::{clock, task};

use crate::log::LogInner;

/// Logs that wait for verification. One task for all of them, which ends when there are none.
#[derive(Debug)]
pub(crate) struct Scrubber {
    bytes_per_s: u64,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    logs: VecDeque<Weak<LogInner>>,
    running: bool,
    stopped: bool,
}

impl Scrubber {
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s: bytes_per_s.max(1),
            queue: Mutex::default(),
        }
    }

    /// Has a log verified, if there is anything in it.
    pub(crate) fn add(self: &Arc<Self>, log: &Arc<LogInner>) {
        if log.segments().is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        queue.logs.push_back(Arc::downgrade(log));
        if !queue.running && !queue.stopped {
            queue.running = true;
            let scrubber = Arc::clone(self);
            drop(task::spawn("scrub", async move { scrubber.run().await }));
        }
    }

    /// Ends the task before its next segment.
    pub(crate) fn stop(&self) {
        let mut queue = self.queue.lock();
        queue.stopped = true;
        queue.logs.clear();
    }

    async fn run(&self) {
        while let Some(log) = self.next() {
            let segments = log.upgrade().map(|log| log.segments()).unwrap_or_default();
            for segment in segments {
                if self.queue.lock().stopped {
                    return;
                }
                let Some(log) = log.upgrade() else {
                    break;
                };
                let key = log.key;
                let core = log.core();
                let verify = move || log.verify_segment(&segment);
                match core.blocking("scrub", verify).await {
                    Ok(bytes) => clock::sleep(self.pause(bytes)).await,
                    // The log has stopped and said so.
                    Err(error) => {
                        tracing::debug!(log = %key, %error, "stop the verification of a log");
                        break;
                    }
                }
            }
        }
    }

    fn next(&self) -> Option<Weak<LogInner>> {
        let mut queue = self.queue.lock();
        let next = queue.logs.pop_front();
        queue.running = next.is_some();
        next
    }

    /// How long reading this much may take.
    fn pause(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1000) / self.bytes_per_s)
    }
}
