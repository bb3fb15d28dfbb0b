//! One virtual time for several executors of one thread.
//!
//! Each simulated host has its own executor with its own paused clock, so that a host dies with
//! everything it had started. What they share is the time since the simulation began.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

thread_local! {
    static NOW: Cell<Now> = const { Cell::new(Now::Still(Duration::ZERO)) };
}

/// How this thread knows the time of the simulation.
#[derive(Debug, Clone, Copy)]
enum Now {
    /// No executor runs: it stands still.
    Still(Duration),
    /// A moment in the clock of the executor that runs now, and what the simulation's time was then.
    Runs(Instant, Duration),
}

/// Declares that it is `time` now, in the executor that runs on this thread from here on. Call it
/// inside that executor, each time it gets its turn.
pub fn enter(time: Duration) {
    NOW.set(Now::Runs(Instant::now(), time));
}

/// Declares that it is `time` now, and that no executor runs until the next [`enter`]: outside of
/// all of them tokio's clock is the real one.
pub fn stand_still(time: Duration) {
    NOW.set(Now::Still(time));
}

/// Time since the simulation began; zero before [`enter`].
pub fn time() -> Duration {
    match NOW.get() {
        Now::Still(time) => time,
        Now::Runs(at, time) => time + Instant::now().saturating_duration_since(at),
    }
}

/// The moment `time` in the clock of the executor that runs now.
pub(super) fn instant(time: Duration) -> Instant {
    match NOW.get() {
        Now::Still(still) => Instant::now() + time.saturating_sub(still),
        Now::Runs(at, origin) => at + time.saturating_sub(origin),
    }
}

/// The time at the moment `instant` of the executor that runs now, not before it was entered.
pub(super) fn at(instant: Instant) -> Duration {
    match NOW.get() {
        Now::Still(time) => time,
        Now::Runs(at, time) => time + instant.saturating_duration_since(at),
    }
}
