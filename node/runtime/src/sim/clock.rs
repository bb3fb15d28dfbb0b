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
    /// A moment in the clock of the executor that runs now, what the simulation's time was then, and how
    /// fast the executor's clock runs.
    Runs(Instant, Duration, Speed),
}

/// How fast the clocks of a host run, in percent: of what is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed(u32);

impl Speed {
    /// As it should be.
    pub const RIGHT: Self = Self(100);

    /// At least 1 percent.
    pub fn percent(percent: u32) -> Self {
        Self(percent.max(1))
    }

    /// What the host takes `time` for.
    pub fn shown(self, time: Duration) -> Duration {
        if self == Self::RIGHT {
            time
        } else {
            time * self.0 / 100
        }
    }

    /// How long it takes until the host has seen `shown` pass.
    pub fn real(self, shown: Duration) -> Duration {
        if self == Self::RIGHT {
            shown
        } else {
            shown * 100 / self.0
        }
    }
}

/// Declares that it is `time` now, in the executor that runs on this thread from here on. Call it
/// inside that executor, each time it gets its turn.
pub fn enter(time: Duration) {
    enter_at(time, Speed::RIGHT);
}

/// The same, where the executor's clock does not run at the right speed.
pub fn enter_at(time: Duration, speed: Speed) {
    NOW.set(Now::Runs(Instant::now(), time, speed));
}

/// Whether the clock of the executor that runs now is right.
pub(super) fn is_right() -> bool {
    !matches!(NOW.get(), Now::Runs(_, _, speed) if speed != Speed::RIGHT)
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
        Now::Runs(at, time, speed) => {
            time + speed.real(Instant::now().saturating_duration_since(at))
        }
    }
}

/// The moment `time` in the clock of the executor that runs now.
pub(super) fn instant(time: Duration) -> Instant {
    match NOW.get() {
        Now::Still(still) => Instant::now() + time.saturating_sub(still),
        Now::Runs(at, origin, speed) => at + speed.shown(time.saturating_sub(origin)),
    }
}

/// The time at the moment `instant` of the executor that runs now, not before it was entered.
pub(super) fn at(instant: Instant) -> Duration {
    match NOW.get() {
        Now::Still(time) => time,
        Now::Runs(at, time, speed) => time + speed.real(instant.saturating_duration_since(at)),
    }
}
