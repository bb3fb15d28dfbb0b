//! Metrics of the cluster layer.

use std::time::Duration;

use seriatim_runtime::metric::{self, Metric, Unit};

const RETENTION_PASS_SECONDS: &str = "seriatim_retention_pass_seconds";
const LOG_STARTS: &str = "seriatim_retention_log_starts_total";

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    metric::histogram(
        RETENTION_PASS_SECONDS,
        "time that one look for old records over all partitions of this node took",
    ),
    metric::counter(
        LOG_STARTS,
        Unit::Count,
        "times that retention moved the start of a partition that this node leads",
    ),
];

pub(crate) fn retention_pass(took: Duration) {
    metrics::histogram!(RETENTION_PASS_SECONDS).record(took.as_secs_f64());
}

pub(crate) fn log_start_moved() {
    metrics::counter!(LOG_STARTS).increment(1);
}
