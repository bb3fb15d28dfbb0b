//! Metrics of the storage layer.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram};
use seriatim_runtime::metric::{self, Metric, Unit};

use crate::{bin::len64, segment::Segment};

/// Calls of fdatasync.
pub const FSYNCS: &str = "seriatim_storage_fsyncs_total";
/// Seconds that an fdatasync took.
pub const FSYNC_SECONDS: &str = "seriatim_storage_fsync_seconds";
/// Write rounds of logs.
pub const ROUNDS: &str = "seriatim_storage_rounds_total";
/// Bytes written to segments.
pub const WRITTEN_BYTES: &str = "seriatim_storage_written_bytes_total";
/// Bytes read from segments; reads from memory do not count.
pub const READ_BYTES: &str = "seriatim_storage_read_bytes_total";
/// Bytes of written frames in memory.
pub const CACHED_BYTES: &str = "seriatim_storage_cached_bytes";
/// Bytes appended and not yet written.
pub const PENDING_BYTES: &str = "seriatim_storage_pending_bytes";
/// 1 while the disk counts as full.
pub const DISK_FULL: &str = "seriatim_storage_disk_full";
/// Logs that stopped after an error.
pub const POISONED: &str = "seriatim_storage_logs_poisoned_total";
/// Damaged places found.
pub const DAMAGED: &str = "seriatim_storage_damage_found_total";

/// Segments whose entries were purged.
pub const PURGED_SEGMENTS: &str = "seriatim_storage_purged_segments_total";
/// Bytes of these.
pub const PURGED_BYTES: &str = "seriatim_storage_purged_bytes_total";
/// Bytes of all open logs.
pub const LOG_BYTES: &str = "seriatim_storage_log_bytes";

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    metric::counter(FSYNCS, Unit::Count, "calls of fdatasync"),
    metric::histogram(FSYNC_SECONDS, "time that an fdatasync took"),
    metric::counter(
        ROUNDS,
        Unit::Count,
        "write rounds of logs; appends of one round share a sync",
    ),
    metric::counter(WRITTEN_BYTES, Unit::Bytes, "bytes written to segments"),
    metric::counter(
        READ_BYTES,
        Unit::Bytes,
        "bytes read from segments; reads from the cache do not count",
    ),
    metric::gauge(
        CACHED_BYTES,
        Unit::Bytes,
        "bytes of written frames in the cache for readers",
    ),
    metric::gauge(
        PENDING_BYTES,
        Unit::Bytes,
        "bytes appended and not yet written",
    ),
    metric::gauge(
        DISK_FULL,
        Unit::Count,
        "1 while the disk counts as full and appends are refused",
    ),
    metric::counter(
        POISONED,
        Unit::Count,
        "logs that stopped after an error of the disk",
    ),
    metric::counter(DAMAGED, Unit::Count, "damaged places that checksums found"),
    metric::counter(
        PURGED_SEGMENTS,
        Unit::Count,
        "segments that were removed because retention or a snapshot made them superfluous",
    ),
    metric::counter(PURGED_BYTES, Unit::Bytes, "bytes of these segments"),
    metric::gauge(
        LOG_BYTES,
        Unit::Bytes,
        "bytes of the segments of all open logs",
    ),
];

/// Describes every metric to the installed recorder.
pub fn describe() {
    metric::describe(METRICS);
}

/// Handles of the metrics, looked up once. The recorder must be installed before the storage is
/// opened.
pub(crate) struct Metrics {
    pub(crate) fsyncs: Counter,
    pub(crate) fsync_seconds: Histogram,
    pub(crate) rounds: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) cached_bytes: Gauge,
    pub(crate) pending_bytes: Gauge,
    pub(crate) disk_full: Gauge,
    pub(crate) poisoned: Counter,
    pub(crate) damaged: Counter,
    purged_segments: Counter,
    purged_bytes: Counter,
    pub(crate) log_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe();
        Self {
            fsyncs: metrics::counter!(FSYNCS),
            fsync_seconds: metrics::histogram!(FSYNC_SECONDS),
            rounds: metrics::counter!(ROUNDS),
            written_bytes: metrics::counter!(WRITTEN_BYTES),
            read_bytes: metrics::counter!(READ_BYTES),
            cached_bytes: metrics::gauge!(CACHED_BYTES),
            pending_bytes: metrics::gauge!(PENDING_BYTES),
            disk_full: metrics::gauge!(DISK_FULL),
            poisoned: metrics::counter!(POISONED),
            damaged: metrics::counter!(DAMAGED),
            purged_segments: metrics::counter!(PURGED_SEGMENTS),
            purged_bytes: metrics::counter!(PURGED_BYTES),
            log_bytes: metrics::gauge!(LOG_BYTES),
        }
    }

    /// Counts segments that are no longer part of their log.
    pub(crate) fn purged(&self, segments: &[Arc<Segment>]) {
        let bytes = segments.iter().map(|segment| segment.summary.lock().end);
        self.purged_segments.increment(len64(segments.len()));
        self.purged_bytes.increment(bytes.sum());
    }
}
