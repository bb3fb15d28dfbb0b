//! Operations of a run by their kind: how they ended, and how long they took.

use std::collections::BTreeMap;

use super::calls::{Call, Outcome};

/// How operations of one kind ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// They took effect.
    pub(super) ok: u64,
    /// They certainly did not.
    pub(super) fail: u64,
    /// They may have.
    pub(super) info: u64,
    /// Median time of those that took effect, in microseconds.
    pub(super) p50_us: u64,
    /// The time within which 99 of 100 of them ended, in microseconds.
    pub(super) p99_us: u64,
    /// The longest of them, in microseconds.
    pub(super) max_us: u64,
}

/// Sums up operations.
pub(super) fn by_kind(calls: &[Call<'_>]) -> BTreeMap<&'static str, Ends> {
    let mut took: BTreeMap<&'static str, (Ends, Vec<u64>)> = BTreeMap::new();
    for call in calls {
        let (ends, times) = took.entry(call.kind()).or_default();
        match call.outcome {
            Outcome::Ok => {
                ends.ok += 1;
                times.push(call.took() / 1000);
            }
            Outcome::Fail => ends.fail += 1,
            Outcome::Info => ends.info += 1,
        }
    }
    let took = took.into_iter().map(|(kind, (mut ends, mut times))| {
        times.sort_unstable();
        ends.p50_us = quantile(&times, 500);
        ends.p99_us = quantile(&times, 990);
        ends.max_us = quantile(&times, 1000);
        (kind, ends)
    });
    took.collect()
}

/// The least value that at least `thousandths` of the sorted ones do not exceed; 0 of none.
pub(super) fn quantile(sorted: &[u64], thousandths: usize) -> u64 {
    let rank = (sorted.len() * thousandths).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}
