//! A run over time: what ended in each stretch of it, and how long that took.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{calls::Call, summary::quantile};

/// Most stretches of a run.
const BINS_MAX: u64 = 400;

/// Lengths of a stretch, in milliseconds: the least is taken that gives no more than [`BINS_MAX`].
const WIDTHS_MS: [u64; 12] = [
    10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000,
];

/// Stands for operations of every kind.
const ALL: &str = "all";

/// Operations over time, by kind.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Series {
    /// Length of a stretch.
    pub(super) width_ms: u64,
    /// How many there are.
    pub(super) bins: usize,
    /// By kind of operation.
    pub(super) kinds: BTreeMap<&'static str, [Vec<Stretch>; 3]>,
}

/// Operations of one kind and outcome that ended in one stretch of time: its number, how many, and
/// their median, 99th percentile and longest time in microseconds. A tuple, as there are many.
pub(super) type Stretch = (usize, usize, u64, u64, u64);

/// Times of operations in microseconds, by the stretch in which they ended.
type Times = BTreeMap<usize, Vec<u64>>;

/// Sums up calls by the time at which they ended.
pub(super) fn series(calls: &[Call<'_>], end: u64) -> Series {
    let width_ms = width(end / 1_000_000);
    let mut kinds: BTreeMap<&'static str, [Times; 3]> = BTreeMap::new();
    for call in calls {
        let bin = bin(call.end, width_ms);
        for kind in [ALL, call.kind()] {
            let by_outcome = kinds.entry(kind).or_default();
            if let Some(bins) = by_outcome.get_mut(call.outcome.number()) {
                bins.entry(bin).or_default().push(call.took() / 1000);
            }
        }
    }
    let kinds = kinds.into_iter().map(|(kind, by_outcome)| {
        let by_outcome = by_outcome.map(|bins| bins.into_iter().map(stretch).collect());
        (kind, by_outcome)
    });
    Series {
        width_ms,
        bins: bin(end, width_ms) + 1,
        kinds: kinds.collect(),
    }
}

/// The length of a stretch of a run of that many milliseconds.
fn width(length_ms: u64) -> u64 {
    let fitting = WIDTHS_MS
        .into_iter()
        .find(|width| length_ms / width < BINS_MAX);
    fitting.unwrap_or_else(|| length_ms.div_ceil(BINS_MAX).max(1))
}

/// The stretch that a time in nanoseconds lies in.
pub(super) fn bin(time: u64, width_ms: u64) -> usize {
    usize::try_from(time / 1_000_000 / width_ms).unwrap_or(usize::MAX)
}

fn stretch((bin, mut times): (usize, Vec<u64>)) -> Stretch {
    times.sort_unstable();
    (
        bin,
        times.len(),
        quantile(&times, 500),
        quantile(&times, 990),
        quantile(&times, 1000),
    )
}
