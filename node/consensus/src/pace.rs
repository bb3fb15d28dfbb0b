//! What is sent to followers that are behind: how fast, and what no more.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::{
    Instant as _, RaftMetrics, alias::WatchReceiverOf, async_runtime::watch::WatchReceiver as _,
};
use parking_lot::Mutex;
use seriatim_runtime::{
    clock::{self, Instant},
    hit,
};
use seriatim_storage::Log;
use tokio::sync::watch;

use crate::raft::Types;

/// A follower that was not heard of for longer does not count as one that commits with the others.
const ALIVE: Duration = Duration::from_secs(2);

/// Shares a number of bytes per second among all followers of a node that are behind.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// 0: no limit.
    bytes_per_s: u64,
    /// When what was let through so far has used up its time.
    free_at: Mutex<Instant>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s,
            free_at: Mutex::new(clock::now()),
        }
    }

    /// Waits for the turn to send so many bytes.
    pub(crate) async fn pass(&self, bytes: usize) {
        if self.bytes_per_s == 0 {
            return;
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let micros = bytes.saturating_mul(1_000_000) / self.bytes_per_s;
        let turn = {
            let mut free_at = self.free_at.lock();
            let turn = clock::now().max(*free_at);
            *free_at = turn + Duration::from_micros(micros);
            turn
        };
        hit!("consensus.catch-up.paced");
        clock::sleep_until(turn).await;
    }
}

/// Entries below an index are not sent any more, nor are answers to them waited for: they are to be
/// purged, and who lacks them gets the boundary instead. The index never goes down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Withheld(watch::Sender<u64>);

impl Withheld {
    /// Withholds all entries up to one.
    pub(crate) fn withhold(&self, upto: u64) {
        let _ = self.0.send_if_modified(|below| {
            let more = *below <= upto;
            *below = (*below).max(upto + 1);
            more
        });
    }

    /// Does something about an entry, unless the entry is withheld before it is done.
    pub(crate) async fn unless<T>(
        &self,
        index: Option<u64>,
        doing: impl Future<Output = T>,
    ) -> Option<T> {
        let Some(index) = index else {
            return Some(doing.await);
        };
        let mut below = self.0.subscribe();
        tokio::select! {
            biased;
            _gone = below.wait_for(|below| index < *below) => None,
            done = doing => Some(done),
        }
    }
}

/// One group's view of its followers. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Pace {
    pub(crate) log: Log,
    throttle: Arc<Throttle>,
    /// openraft's figures, once the group runs.
    metrics: Arc<OnceLock<WatchReceiverOf<Types, RaftMetrics<Types>>>>,
    pub(crate) withheld: Withheld,
}

impl Pace {
    pub(crate) fn new(log: Log, throttle: Arc<Throttle>) -> Self {
        Self {
            log,
            throttle,
            metrics: Arc::default(),
            withheld: Withheld::default(),
        }
    }

    pub(crate) fn follow(&self, metrics: WatchReceiverOf<Types, RaftMetrics<Types>>) {
        let _first = self.metrics.set(metrics);
    }

    /// Waits for the turn of a message with entries from `first` on. What is still in memory goes at
    /// once: its receiver is in step. So does what the group needs to commit anything at all.
    ///
    /// Only what brings the follower nearer counts: as much as was appended since its last message
    /// (`seen`) goes besides, or one that is slower than the producers would never arrive.
    pub(crate) async fn wait(&self, target: u64, first: u64, bytes: usize, seen: &AtomicU64) {
        let appended = self.log.appended_bytes();
        let before = seen.swap(appended, Ordering::Relaxed);
        if self.log.is_in_memory(first) || self.is_needed(target) {
            return;
        }
        let fresh = if before == 0 {
            0
        } else {
            appended.saturating_sub(before)
        };
        let fresh = usize::try_from(fresh).unwrap_or(usize::MAX);
        self.throttle.pass(bytes.saturating_sub(fresh)).await;
    }

    /// Waits for the turn of bytes that are not entries.
    pub(crate) async fn throttle(&self, bytes: usize) {
        self.throttle.pass(bytes).await;
    }

    /// Whether there is no majority without this follower.
    fn is_needed(&self, target: u64) -> bool {
        let Some(metrics) = self.metrics.get() else {
            return false;
        };
        let metrics = metrics.borrow_watched();
        let (Some(matched), Some(heard)) = (&metrics.replication, &metrics.heartbeat) else {
            return false;
        };
        let committed = metrics.local_committed.map_or(0, |id| id.index);
        let in_step = |voter: &u64| {
            let alive = heard.get(voter).copied().flatten();
            let matched = matched.get(voter).copied().flatten();
            *voter == metrics.id
                || (alive.is_some_and(|at| at.elapsed() < ALIVE)
                    && matched.is_some_and(|id| id.index >= committed))
        };
        let membership = metrics.membership_config.membership();
        membership.get_joint_config().iter().any(|voters| {
            let others = voters.iter().filter(|voter| **voter != target);
            voters.contains(&target) && others.filter(|v| in_step(v)).count() <= voters.len() / 2
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_are_let_through_at_the_rate_whoever_asks() {
        let throttle = Arc::new(Throttle::new(1000));
        let began = clock::now();
        let passes = (0..4).map(|_| throttle.pass(500));
        let _done: Vec<()> = futures::future::join_all(passes).await;
        // The first goes at once, the fourth when three times 500 bytes have had their time.
        assert_eq!(began.elapsed().as_millis(), 1500);
        throttle.pass(0).await;
        assert_eq!(began.elapsed().as_millis(), 2000);
        clock::sleep(Duration::from_secs(60)).await;
        // Time in which nothing was sent is not saved up.
        throttle.pass(1000).await;
        throttle.pass(1).await;
        assert_eq!(began.elapsed().as_millis(), 63_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_withheld_is_not_waited_for() {
        let withheld = Withheld::default();
        let never = std::future::pending::<()>;
        let waiting = withheld.unless(Some(7), never());
        let raising = async {
            withheld.withhold(6);
            clock::sleep(Duration::from_secs(1)).await;
            withheld.withhold(9);
            withheld.withhold(3);
        };
        let (waited, ()) = tokio::join!(waiting, raising);
        assert_eq!(waited, None);
        assert_eq!(withheld.unless(Some(9), never()).await, None);
        assert_eq!(withheld.unless(Some(10), async { 1 }).await, Some(1));
        assert_eq!(withheld.unless(None, async { 2 }).await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_waits() {
        let began = clock::now();
        Throttle::new(0).pass(usize::MAX).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
