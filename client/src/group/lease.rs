//! How long this member may believe what it was told.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Heartbeats without an answer whose times are kept.
const BEATS: usize = 64;

/// The right to hand on records, granted by the coordinator for four fifths of the session timeout.
///
/// A coordinator gives a member's partitions away when it has not heard from it for the session
/// timeout. The member counts from when it *sent* the heartbeat that was answered, so its lease ends
/// first, whatever held it up: a slow network, or a process that was stopped and knows nothing of it.
/// The last fifth is for clocks that do not run alike: the coordinator's may be a quarter faster (simulator
/// seed 866).
#[derive(Debug, Default)]
pub(super) struct Lease {
    until: Option<Instant>,
    lasts: Duration,
}

impl Lease {
    /// The coordinator has said what this member owns, in answer to a join sent then.
    pub(super) fn confirm(&mut self, sent: Instant, timeout: Duration) {
        self.lasts = timeout * 4 / 5;
        self.until = Some(sent + self.lasts);
    }

    /// A heartbeat sent then was answered. One that ran out is not renewed: what was owned may have
    /// gone to others meanwhile, so the coordinator has to [confirm](Self::confirm) it.
    pub(super) fn renew(&mut self, sent: Instant, now: Instant) {
        if self.holds(now) {
            self.until = self.until.max(Some(sent + self.lasts));
        }
    }

    /// Gives it up.
    pub(super) const fn end(&mut self) {
        self.until = None;
    }

    pub(super) fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When it runs out.
    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// When the heartbeats were sent that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Beats {
    last: u64,
    sent: VecDeque<(u64, Instant)>,
}

impl Beats {
    /// The sequence number of a heartbeat that is sent now.
    pub(super) fn send(&mut self, now: Instant) -> u64 {
        self.last += 1;
        if self.sent.len() == BEATS {
            let _oldest = self.sent.pop_front();
        }
        self.sent.push_back((self.last, now));
        self.last
    }

    /// When the heartbeat was sent that is answered.
    pub(super) fn answered(&mut self, sequence: u64) -> Option<Instant> {
        while let Some((number, sent)) = self.sent.pop_front() {
            if number == sequence {
                return Some(sent);
            }
            if number > sequence {
                self.sent.push_front((number, sent));
                return None;
            }
        }
        None
    }

    pub(super) fn clear(&mut self) {
        self.sent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A clock that is set by hand.
    fn clock() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |ms| start + Duration::from_millis(ms)
    }

    #[test]
    fn counts_from_when_the_heartbeat_was_sent() {
        let at = clock();
        let (mut lease, mut beats) = (Lease::default(), Beats::default());
        assert!(!lease.holds(at(0)), "nobody has granted it");
        lease.confirm(at(0), TIMEOUT);
        let beat = beats.send(at(3_000));
        lease.renew(beats.answered(beat).unwrap(), at(7_000));
        assert!(lease.holds(at(10_999)));
        assert!(!lease.holds(at(11_000)));
        assert_eq!(lease.until(), Some(at(11_000)));
    }

    /// The process was stopped; the answer to a heartbeat from before lay in the socket, or one from
    /// after comes while others own what it had.
    #[test]
    fn a_lease_that_ran_out_has_to_be_confirmed() {
        let at = clock();
        let (mut lease, mut beats) = (Lease::default(), Beats::default());
        lease.confirm(at(0), TIMEOUT);
        let before = beats.send(at(7_000));
        let after = beats.send(at(8_000));
        for beat in [before, after] {
            lease.renew(beats.answered(beat).unwrap(), at(8_001));
            assert!(!lease.holds(at(8_001)));
        }
        lease.confirm(at(8_002), TIMEOUT);
        assert!(lease.holds(at(16_001)));
        lease.end();
        assert!(!lease.holds(at(8_003)));
    }

    #[test]
    fn answers_may_be_missing_and_their_times_are_bounded() {
        let mut beats = Beats::default();
        let first = Instant::now();
        for _ in 0..1_000 {
            let _sequence = beats.send(first);
        }
        assert_eq!(beats.sent.len(), BEATS);
        assert_eq!(beats.answered(1), None, "too long ago");
        assert_eq!(beats.answered(999), Some(first));
        assert_eq!(beats.answered(999), None, "only once");
        assert_eq!(beats.answered(1_000), Some(first));
    }
}
