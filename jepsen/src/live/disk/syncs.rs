//! Syncs that are under way.

use std::{sync::Arc, time::Duration};

use fuser::{Errno, ReplyEmpty};
use parking_lot::{Condvar, Mutex};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use seriatim_runtime::clock::{self, Instant};

use super::{fs::errno, image::Image, names::Ino};

/// How long a thread with nothing to do sleeps at most.
const IDLE: Duration = Duration::from_secs(3600);

/// A disk and its syncs.
#[derive(Debug)]
pub(super) struct Syncs {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) image: Image,
    waiting: Vec<(Instant, Ino, ReplyEmpty)>,
    rng: SmallRng,
    pub(super) slow: Duration,
    pub(super) stuck: bool,
    pub(super) failing: bool,
}

impl Syncs {
    /// With a thread that ends syncs when they are due.
    pub(super) fn of(image: Image, seed: u64) -> Arc<Self> {
        let state = State {
            image,
            waiting: Vec::new(),
            rng: SmallRng::seed_from_u64(seed),
            slow: Duration::ZERO,
            stuck: false,
            failing: false,
        };
        let this = Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let worker = Arc::clone(&this);
        let _ends_with_the_process = std::thread::spawn(move || worker.run());
        this
    }

    /// Uses the disk.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let done = work(&mut self.state.lock());
        let _woken = self.changed.notify_all();
        done
    }

    /// A sync, which is answered when it is due.
    pub(super) fn sync(&self, ino: Ino, reply: ReplyEmpty) {
        self.with(|state| {
            let now = clock::now();
            if state.slow.is_zero() && !state.stuck {
                state.end(ino, reply);
                return;
            }
            let most = u64::try_from(state.slow.as_micros()).unwrap_or(u64::MAX);
            let takes = Duration::from_micros(state.rng.random_range(0..=most));
            state.waiting.push((now + takes, ino, reply));
        });
    }

    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            let next = state.end_due(clock::now());
            let _timed_out = self.changed.wait_for(&mut state, next);
        }
    }
}

impl State {
    /// Ends what is due; says after what time the next one is.
    fn end_due(&mut self, now: Instant) -> Duration {
        if self.stuck {
            return IDLE;
        }
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(due, _, _)| *due <= now);
        self.waiting = rest;
        for (_, ino, reply) in due {
            self.end(ino, reply);
        }
        let next = self.waiting.iter().map(|(due, _, _)| *due).min();
        next.map_or(IDLE, |due| due.saturating_duration_since(now))
    }

    fn end(&mut self, ino: Ino, reply: ReplyEmpty) {
        if self.failing {
            reply.error(Errno::EIO);
            return;
        }
        match self.image.sync(ino) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Gives up what is under way: those who wait are being killed, and cannot end before.
    pub(super) fn give_up(&mut self) {
        for (_, _, reply) in self.waiting.drain(..) {
            reply.error(Errno::EIO);
        }
    }
}
