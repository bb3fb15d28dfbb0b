//! What happened to the records.

use std::{collections::BTreeMap, time::Duration};

use seriatim_runtime::clock::Instant;

use crate::{latency::Latency, window::Window};

/// Distinct errors that are kept as text.
const EXAMPLES_MAX: usize = 8;

/// Counts of one worker, or of all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Records that were done within the window.
    pub(crate) records: u64,
    /// Bytes of their values.
    pub(crate) bytes: u64,
    /// Time from the intended time to the end, of the records that were due within the window.
    pub(crate) latency: Latency,
    pub(crate) failures: Failures,
}

impl Tally {
    /// Counts a record that was due at `intended` and was done at `at`.
    ///
    /// Throughput is what was done in the window; latency is of what was due in it, also if it
    /// was done later: a stall at the end is not cut off.
    pub(crate) fn done(&mut self, window: &Window, intended: Instant, at: Instant, bytes: u64) {
        if window.contains(at) {
            self.records += 1;
            self.bytes += bytes;
        }
        if window.contains(intended) {
            self.latency.record(at.saturating_duration_since(intended));
        }
    }

    /// Counts `bytes` of `records` that have no due time, and the wait for them.
    pub(crate) fn read(&mut self, records: u64, bytes: u64, waited: Duration) {
        self.records += records;
        self.bytes += bytes;
        self.latency.record(waited);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.latency.merge(&other.latency);
        self.failures.merge(&other.failures);
    }
}

/// Records that failed, at any time of the run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    /// Invariant: at most `EXAMPLES_MAX` texts.
    pub(crate) examples: BTreeMap<String, u64>,
}

impl Failures {
    pub(crate) fn add(&mut self, count: u64, error: &impl std::fmt::Display) {
        self.count += count;
        self.example(error.to_string(), count);
    }

    fn example(&mut self, text: String, count: u64) {
        if self.examples.len() < EXAMPLES_MAX || self.examples.contains_key(&text) {
            *self.examples.entry(text).or_default() += count;
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        for (text, count) in &other.examples {
            self.example(text.clone(), *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use seriatim_runtime::clock;

    use super::*;

    #[test]
    fn throughput_is_by_end_and_latency_by_intention() {
        let begin = clock::now();
        let ms = |ms| begin + Duration::from_millis(ms);
        let window = Window::new(begin, Duration::from_millis(10), Duration::from_millis(10));
        let mut tally = Tally::default();
        // Due in the warm-up, done in the window: throughput only.
        tally.done(&window, ms(9), ms(11), 100);
        // Due in the window, done after it: latency only.
        tally.done(&window, ms(19), ms(25), 100);
        // Both.
        tally.done(&window, ms(12), ms(13), 100);
        // Neither.
        tally.done(&window, ms(1), ms(2), 100);
        assert_eq!((tally.records, tally.bytes), (2, 200));
        assert_eq!(tally.latency.count(), 2);
        assert!(tally.latency.max_ms().unwrap() >= 6.0);
    }

    #[test]
    fn failures_are_counted_and_few_are_quoted() {
        let mut failures = Failures::default();
        for error in 0..100 {
            failures.add(1, &format!("error {error}"));
        }
        failures.add(5, &"error 0");
        let mut all = Failures::default();
        all.merge(&failures);
        assert_eq!(all.count, 105);
        assert_eq!(all.examples.len(), EXAMPLES_MAX);
        assert_eq!(all.examples.get("error 0"), Some(&6));
    }
}
