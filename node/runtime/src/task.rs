//! Tasks: named, joined, and cancelled together.

use std::{cell::Cell, future::Future, time::Duration};

pub use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

thread_local! {
    /// Whether this thread runs a simulation, where nothing may leave the thread.
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
}

/// Declares that this thread runs a simulation: [`blocking`] then runs in place.
pub fn simulate(on: bool) {
    SIMULATED.set(on);
}

/// Whether this thread runs a simulation.
pub fn is_simulated() -> bool {
    SIMULATED.get()
}

/// Starts a task; `name` appears in its log lines.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    tokio::spawn(future.instrument(tracing::trace_span!("task", name)))
}

/// Runs work that blocks (disk reads) beside the executor; in place when simulated. A panic of the
/// work is passed on.
pub async fn blocking<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if is_simulated() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only at shutdown of the whole runtime: nobody is left to be answered.
            Err(_) => {
                tracing::debug!(name, "blocking work was cancelled");
                std::future::pending().await
            }
        },
    }
}

/// Tasks that end together.
#[derive(Clone, Debug, Default)]
pub struct TaskGroup {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl TaskGroup {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// A group that is cancelled with this one but can be cancelled alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
            tracker: TaskTracker::new(),
        }
    }

    /// Starts a task that is dropped at its next await once the group is cancelled.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let token = self.token.clone();
        let tracked = self
            .tracker
            .track_future(async move { token.run_until_cancelled_owned(future).await });
        spawn(name, tracked)
    }

    /// Returns once the group is cancelled.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Whether the group is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Cancels every task without waiting.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Cancels every task and waits for them, at most `limit`; says whether all ended.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        self.token.cancel();
        let _already_closed = self.tracker.close();
        crate::clock::timeout(limit, self.tracker.wait())
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancelled_group_ends_its_tasks() {
        let group = TaskGroup::new();
        let handle = group.spawn("test", std::future::pending::<()>());
        assert!(group.shutdown(Duration::from_secs(5)).await);
        assert_eq!(handle.await.unwrap(), None);
    }
}
