//! Latencies, to three digits.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::float;

const HIGHEST_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// A histogram of durations in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, HIGHEST_US, DIGITS).expect("the bounds are valid"))
    }
}

impl Latency {
    /// Counts a duration; more than an hour counts as an hour.
    pub(crate) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The duration that a share `quantile` of all does not exceed; `None` of nothing.
    pub(crate) fn quantile_us(&self, quantile: f64) -> Option<u64> {
        (self.count() > 0).then(|| self.0.value_at_quantile(quantile))
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        self.quantile_us(quantile).map(to_ms)
    }

    pub(crate) fn max_ms(&self) -> Option<f64> {
        (self.count() > 0).then(|| to_ms(self.0.max()))
    }
}

fn to_ms(us: u64) -> f64 {
    float(us) / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_known_latencies() {
        let mut low = Latency::default();
        let mut high = Latency::default();
        for ms in 1..=500 {
            low.record(Duration::from_millis(ms));
        }
        for ms in 501..=1000 {
            high.record(Duration::from_millis(ms));
        }
        low.merge(&high);
        assert_eq!(low.count(), 1000);
        let close = |actual: Option<f64>, expected: f64| {
            let actual = actual.unwrap();
            assert!(
                (actual - expected).abs() <= expected / 500.0,
                "{actual} {expected}"
            );
        };
        close(low.quantile_ms(0.5), 500.0);
        close(low.quantile_ms(0.99), 990.0);
        close(low.quantile_ms(0.999), 999.0);
        close(low.max_ms(), 1000.0);
    }

    #[test]
    fn extremes_are_kept() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_ms(0.5), None);
        assert_eq!(latency.max_ms(), None);
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(100_000));
        assert_eq!(latency.count(), 2);
        assert!(latency.max_ms().unwrap() >= 3_600_000.0);
    }
}
