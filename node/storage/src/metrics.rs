//! Metrics of the storage layer.

use metrics::{Counter, Gauge, Histogram, Unit};

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

/// Describes every metric to the installed recorder.
pub fn describe() {
    let counters = [
        (FSYNCS, Unit::Count, "calls of fdatasync"),
        (ROUNDS, Unit::Count, "write rounds of logs"),
        (WRITTEN_BYTES, Unit::Bytes, "bytes written to segments"),
        (READ_BYTES, Unit::Bytes, "bytes read from segments"),
        (POISONED, Unit::Count, "logs that stopped after an error"),
        (DAMAGED, Unit::Count, "damaged places found"),
    ];
    for (name, unit, text) in counters {
        metrics::describe_counter!(name, unit, text);
    }
    metrics::describe_histogram!(
        FSYNC_SECONDS,
        Unit::Seconds,
        "seconds that an fdatasync took"
    );
    metrics::describe_gauge!(
        CACHED_BYTES,
        Unit::Bytes,
        "bytes of written frames in memory"
    );
    metrics::describe_gauge!(
        PENDING_BYTES,
        Unit::Bytes,
        "bytes appended and not yet written"
    );
    metrics::describe_gauge!(DISK_FULL, Unit::Count, "1 while the disk counts as full");
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
        }
    }
}
