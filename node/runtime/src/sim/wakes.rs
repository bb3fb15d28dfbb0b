//! When a host next has something to do by itself.
//!
//! A simulation of many hosts would spend most of its time asking each of them, every millisecond,
//! whether one of its timers has ended. So every timer that is made through the seams leaves the moment
//! of its end here, and a host is not entered before the earliest of them (or before somebody else has
//! woken one of its tasks).

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::clock;

thread_local! {
    /// Those of the host whose turn it is.
    static CURRENT: RefCell<Option<Wakes>> = const { RefCell::new(None) };
}

/// Moments at which timers of one host end. A timer that is dropped before leaves its moment behind,
/// so that the host has a turn in which nothing happens.
#[derive(Debug, Clone, Default)]
pub struct Wakes {
    /// In milliseconds of the simulation's time, rounded up as tokio does: many timers share one.
    at_ms: BTreeSet<u64>,
}

impl Wakes {
    /// The earliest.
    pub fn first(&self) -> Option<Duration> {
        self.at_ms.first().copied().map(Duration::from_millis)
    }

    /// Forgets what lies at `time` or before.
    pub fn pass(&mut self, time: Duration) {
        let now_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        while self.at_ms.first().is_some_and(|&first| first <= now_ms) {
            let _passed = self.at_ms.pop_first();
        }
    }

    /// From now on timers that are made on this thread leave their end here.
    pub fn enter(self) {
        CURRENT.set(Some(self));
    }

    /// The ends of the timers that were made since [`Wakes::enter`], and those before.
    pub fn leave() -> Self {
        CURRENT.take().unwrap_or_default()
    }
}

/// A timer was made that ends at `deadline` of the executor that runs now.
pub fn expect(deadline: Instant) {
    CURRENT.with_borrow_mut(|current| {
        if let Some(wakes) = current {
            let mut end = clock::at(deadline);
            if !clock::is_right() {
                // Milliseconds of the executor are not those of the simulation.
                end += Duration::from_millis(2);
            }
            let end_ms = end.as_nanos().div_ceil(1_000_000);
            let _new = wakes
                .at_ms
                .insert(u64::try_from(end_ms).unwrap_or(u64::MAX));
        }
    });
}

/// A timer was made that ends `duration` from now.
pub fn expect_in(duration: Duration) {
    let simulated = CURRENT.with_borrow(Option::is_some);
    if simulated && let Some(deadline) = Instant::now().checked_add(duration) {
        expect(deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_end_of_a_timer_is_known_until_it_has_passed() {
        clock::enter(Duration::from_secs(1));
        Wakes::default().enter();
        expect_in(Duration::from_micros(2500));
        expect_in(Duration::from_millis(70));
        expect(Instant::now());
        let mut wakes = Wakes::leave();
        expect_in(Duration::ZERO);
        assert_eq!(wakes.first(), Some(Duration::from_secs(1)));
        wakes.pass(Duration::from_secs(1));
        assert_eq!(wakes.first(), Some(Duration::from_millis(1003)));
        wakes.pass(Duration::from_millis(1003));
        assert_eq!(wakes.first(), Some(Duration::from_millis(1070)));
        wakes.pass(Duration::from_secs(9));
        assert_eq!(wakes.first(), None);
    }
}
