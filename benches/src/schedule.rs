//! When each record is due, whatever happened to the ones before it.

use std::{num::NonZeroU64, time::Duration};

use seriatim_runtime::clock::Instant;

/// One sender's share of a constant rate.
///
/// Every due time is computed from the record's number and never from the record before: rounding
/// does not add up, and a late record delays no other.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    begin: Instant,
    per_second: NonZeroU64,
    /// Number of this sender's next record among the records of all senders.
    next: u64,
    senders: u64,
}

impl Schedule {
    /// The schedule of sender number `sender` of `senders`, which take turns.
    pub(crate) fn new(
        begin: Instant,
        per_second: NonZeroU64,
        (sender, senders): (u64, u64),
    ) -> Self {
        Self {
            begin,
            per_second,
            next: sender,
            senders: senders.max(1),
        }
    }

    /// When the next record is due.
    pub(crate) fn due(&self) -> Instant {
        self.begin + offset(self.next, self.per_second)
    }

    /// Goes on to the record after.
    pub(crate) fn advance(&mut self) {
        self.next += self.senders;
    }

    /// The times of the records due before `end` that were not advanced over.
    pub(crate) fn rest(mut self, end: Instant) -> impl Iterator<Item = Instant> {
        std::iter::from_fn(move || {
            let due = self.due();
            self.advance();
            (due < end).then_some(due)
        })
    }
}

fn offset(number: u64, per_second: NonZeroU64) -> Duration {
    let per_second = u128::from(per_second.get());
    let nanos = u128::from(number) * 1_000_000_000 / per_second;
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    Duration::new(
        u64::try_from(seconds).unwrap_or(u64::MAX),
        u32::try_from(nanos).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use seriatim_runtime::clock;

    use super::*;

    fn rate(per_second: u64) -> NonZeroU64 {
        NonZeroU64::new(per_second).unwrap()
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_never_drifts() {
        let begin = clock::now();
        let mut schedule = Schedule::new(begin, rate(3), (0, 1));
        for _ in 0..3 * 86_400 {
            schedule.advance();
        }
        assert_eq!(schedule.due(), begin + Duration::from_secs(86_400));
    }

    #[test]
    fn senders_share_one_schedule_without_gaps() {
        let begin = clock::now();
        let mut all: Vec<Instant> = (0..3)
            .flat_map(|sender| {
                Schedule::new(begin, rate(1000), (sender, 3)).rest(begin + Duration::from_millis(9))
            })
            .collect();
        all.sort();
        let expected: Vec<Instant> = (0..9).map(|ms| begin + Duration::from_millis(ms)).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_late_sender_is_due_at_the_same_times() {
        let begin = clock::now();
        let mut late = Schedule::new(begin, rate(200), (0, 1));
        late.advance();
        // However late it asks, record 1 was due 5 ms after the beginning.
        assert_eq!(late.due(), begin + Duration::from_millis(5));
        assert_eq!(late.rest(begin + Duration::from_secs(1)).count(), 199);
    }
}
