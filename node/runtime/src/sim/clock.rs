//! One virtual time for several executors of one thread.
//!
//! Each simulated host has its own executor with its own paused clock, so that a host dies with
//! everything it had started. What they share is the time since the simulation began.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

thread_local! {
    /// A moment in the clock of the executor that runs now, and what the simulation's time was then.
    static ORIGIN: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// Declares that it is `time` now, in the executor that runs on this thread from here on. Call it
/// inside that executor, each time it gets its turn.
pub fn enter(time: Duration) {
    ORIGIN.set(Some((Instant::now(), time)));
}

/// Time since the simulation began; zero before [`enter`].
pub fn time() -> Duration {
    ORIGIN.get().map_or(Duration::ZERO, |(at, time)| {
        time + Instant::now().saturating_duration_since(at)
    })
}

/// The moment `time` in the clock of the executor that runs now.
pub(super) fn instant(time: Duration) -> Instant {
    let (at, origin) = ORIGIN
        .get()
        .unwrap_or_else(|| (Instant::now(), Duration::ZERO));
    at + time.saturating_sub(origin)
}
