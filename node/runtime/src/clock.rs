//! Time. Under a paused tokio clock all of it is virtual.

use std::{cell::Cell, future::Future, time::Duration};

pub use tokio::time::{Instant, error::Elapsed};

use crate::sim::wakes;

thread_local! {
    /// Wall clock of the simulation that runs on this thread: its start, in both clocks.
    static SIMULATED: Cell<Option<(Instant, i64)>> = const { Cell::new(None) };
}

/// Monotonic time.
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since the Unix epoch.
pub fn wall_ms() -> i64 {
    if let Some((start, start_ms)) = SIMULATED.get() {
        let passed = now().saturating_duration_since(start).as_millis();
        return start_ms + i64::try_from(passed).unwrap_or(i64::MAX / 2);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Makes this thread's wall clock virtual: it shows `start_ms` now and advances with [`now`].
pub fn simulate_wall_clock(start_ms: i64) {
    SIMULATED.set(Some((now(), start_ms)));
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    wakes::expect_in(duration);
    tokio::time::sleep(duration).await;
}

/// Waits until `deadline`.
pub async fn sleep_until(deadline: Instant) {
    wakes::expect(deadline);
    tokio::time::sleep_until(deadline).await;
}

/// The future's output, or [`Elapsed`] after `duration`.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    wakes::expect_in(duration);
    tokio::time::timeout(duration, future).await
}

/// The future's output, or [`Elapsed`] at `deadline`.
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    wakes::expect(deadline);
    tokio::time::timeout_at(deadline, future).await
}
