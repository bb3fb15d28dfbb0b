//! Metrics of the broker: what clients ask for, and how the replicas of this node are.

use std::collections::BTreeMap;

use metrics::{Counter, Histogram};
use seriatim_cluster::{LocalReplica, LocalState, PartitionInfo};
use seriatim_consensus::{Group, GroupStatus, Role};
use seriatim_runtime::metric::{self, Kind, Metric, Unit};

use crate::Broker;

const APPEND_RECORDS: &str = "seriatim_append_records_total";
const APPEND_BYTES: &str = "seriatim_append_bytes_total";
const APPEND_ERRORS: &str = "seriatim_append_errors_total";
const APPEND_SECONDS: &str = "seriatim_append_seconds";
const APPEND_IN_FLIGHT: &str = "seriatim_append_in_flight_bytes";
const FETCH_BYTES: &str = "seriatim_fetch_bytes_total";
const FETCH_ERRORS: &str = "seriatim_fetch_errors_total";
const FETCH_SECONDS: &str = "seriatim_fetch_seconds";
const REPLICAS: &str = "seriatim_replicas";
const LAG: &str = "seriatim_replication_lag_entries";
const LAG_BYTES: &str = "seriatim_replication_lag_bytes";

const UNDER_REPLICATED: &str = "seriatim_under_replicated_partitions";
const MOVING: &str = "seriatim_moving_partitions";
const MISPLACED: &str = "seriatim_misplaced_leaders";
const LEAVING: &str = "seriatim_leaving_nodes";

/// A replica that is further behind is not in sync.
const IN_SYNC_ENTRIES: u64 = 1_000;

/// The states of a replica, as labels.
const STATES: [&str; 5] = ["opening", "running", "damaged", "failed", "rebuilding"];

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    metric::counter(
        APPEND_RECORDS,
        Unit::Count,
        "records appended and acknowledged",
    ),
    metric::counter(
        APPEND_BYTES,
        Unit::Bytes,
        "bytes of batches that were asked to be appended",
    ),
    metric::counter(
        APPEND_ERRORS,
        Unit::Count,
        "batches that were refused or not acknowledged",
    ),
    metric::histogram(
        APPEND_SECONDS,
        "time from a produce request to its answer, the wait for room included",
    ),
    metric::gauge(
        APPEND_IN_FLIGHT,
        Unit::Bytes,
        "bytes of batches between admission and acknowledgement; `append_bytes` is the limit",
    ),
    metric::counter(
        FETCH_BYTES,
        Unit::Bytes,
        "bytes of batches handed to readers",
    ),
    metric::counter(
        FETCH_ERRORS,
        Unit::Count,
        "reads of a partition that failed",
    ),
    metric::histogram(
        FETCH_SECONDS,
        "time that one read of a partition took; waits for new records do not count",
    ),
    Metric {
        labels: &["state"],
        ..metric::gauge(
            REPLICAS,
            Unit::Count,
            "replicas of partitions on this node: opening, running, damaged, failed or rebuilding",
        )
    },
    Metric {
        name: LAG,
        kind: Kind::Gauge,
        unit: Unit::Count,
        labels: &["node"],
        meaning: "largest number of log entries that a follower on that node is behind, over the \
                  partitions that this node leads",
    },
    Metric {
        name: LAG_BYTES,
        kind: Kind::Gauge,
        unit: Unit::Bytes,
        labels: &["node"],
        meaning: "about how many bytes of log the replicas on that node still lack, over the \
                  partitions that this node leads: what is left of a rebuild",
    },
    metric::gauge(
        UNDER_REPLICATED,
        Unit::Count,
        "partitions that this node leads of which a replica does not vote, does not answer or is \
         more than 1000 entries behind",
    ),
    metric::gauge(
        MOVING,
        Unit::Count,
        "partitions that this node leads and whose replicas are being moved",
    ),
    metric::gauge(
        MISPLACED,
        Unit::Count,
        "partitions that this node leads although another replica is preferred",
    ),
    metric::gauge(
        LEAVING,
        Unit::Count,
        "nodes that are being decommissioned, the same on every node",
    ),
];

/// Handles, looked up once. The recorder must be installed before the broker is made.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) append_records: Counter,
    pub(crate) append_bytes: Counter,
    pub(crate) append_errors: Counter,
    pub(crate) append_seconds: Histogram,
    pub(crate) fetch_bytes: Counter,
    pub(crate) fetch_errors: Counter,
    pub(crate) fetch_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            append_records: metrics::counter!(APPEND_RECORDS),
            append_bytes: metrics::counter!(APPEND_BYTES),
            append_errors: metrics::counter!(APPEND_ERRORS),
            append_seconds: metrics::histogram!(APPEND_SECONDS),
            fetch_bytes: metrics::counter!(FETCH_BYTES),
            fetch_errors: metrics::counter!(FETCH_ERRORS),
            fetch_seconds: metrics::histogram!(FETCH_SECONDS),
        }
    }
}

impl Broker {
    /// Sets the gauges that are only looked at when somebody asks for metrics.
    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    pub fn refresh_gauges(&self) {
        metrics::gauge!(APPEND_IN_FLIGHT).set(self.budget.used() as f64);
        self.groups.refresh_gauges();
        let replicas = self.cluster.local_replicas();
        let mut states = STATES.map(|state| (state, 0_u32));
        for local in &replicas {
            for (state, count) in &mut states {
                *count += u32::from(*state == name(&local.state));
            }
        }
        for (state, count) in states {
            metrics::gauge!(REPLICAS, "state" => state).set(count);
        }
        self.refresh_moves(&replicas);
        let lags = self.lags(&replicas);
        for (node, (entries, bytes)) in lags {
            metrics::gauge!(LAG, "node" => node.to_string()).set(entries as f64);
            metrics::gauge!(LAG_BYTES, "node" => node.to_string()).set(bytes as f64);
        }
    }

    /// How the partitions that this node leads are spread.
    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    fn refresh_moves(&self, replicas: &[LocalReplica]) {
        let image = self.cluster.image();
        let me = self.cluster.node_id();
        let (mut under_replicated, mut moving, mut misplaced) = (0_u32, 0_u32, 0_u32);
        for local in replicas {
            let Some(info) = image.partition(&local.tp) else {
                continue;
            };
            let status = local.group.as_ref().map(Group::status);
            let Some(status) = status.filter(|status| status.state.role == Role::Leader) else {
                continue;
            };
            let preferred = info.replicas.first().map(|replica| replica.node);
            under_replicated += u32::from(!is_in_sync(info, &status));
            moving += u32::from(info.is_moving());
            misplaced += u32::from(preferred != Some(me));
        }
        metrics::gauge!(UNDER_REPLICATED).set(under_replicated);
        metrics::gauge!(MOVING).set(moving);
        metrics::gauge!(MISPLACED).set(misplaced);
        let leaving = image.nodes.values().filter(|node| node.leaving).count();
        metrics::gauge!(LEAVING).set(leaving as f64);
    }

    /// The largest lag in entries of each other node's replicas, and the bytes that they all lack, as
    /// their leaders here know it.
    fn lags(&self, replicas: &[LocalReplica]) -> BTreeMap<u64, (u64, u64)> {
        let me = self.cluster.node_id();
        // A node that this one leads nothing of any more has no lag, not the last one seen.
        let image = self.cluster.image();
        let others = image.nodes.keys().filter(|node| **node != me);
        let mut lags: BTreeMap<u64, (u64, u64)> = others.map(|node| (node.0, (0, 0))).collect();
        for group in replicas.iter().filter_map(|local| local.group.as_ref()) {
            let log = group.log();
            let group = group.status();
            if group.state.role != Role::Leader {
                continue;
            }
            for member in group.membership.iter().filter(|m| m.node != me) {
                let lag = group
                    .last_index
                    .saturating_sub(member.matched.unwrap_or_default());
                let behind = member
                    .matched
                    .map_or_else(|| log.size_bytes(), |matched| log.bytes_behind(matched));
                let (largest, bytes) = lags.entry(member.node.0).or_default();
                *largest = lag.max(*largest);
                *bytes += behind;
            }
        }
        lags
    }

    /// What is broken on this node, one line each; empty on a healthy one.
    pub fn failures(&self) -> Vec<String> {
        let replicas = self.cluster.local_replicas();
        let broken = replicas.iter().filter_map(|local| match &local.state {
            LocalState::Damaged(why) | LocalState::Failed(why) => Some(format!(
                "log {} (partition {}) is {}: {why}",
                local.key,
                local.tp,
                name(&local.state)
            )),
            LocalState::Opening | LocalState::Running | LocalState::Rebuilding => None,
        });
        let mut lines: Vec<String> = broken.collect();
        for key in self.storage.stats().poisoned {
            let told = format!("log {key} ");
            if !lines.iter().any(|line| line.starts_with(&told)) {
                lines.push(format!("log {key} stopped after an error of the disk"));
            }
        }
        lines
    }
}

/// Whether every replica of a partition is in sync, as its leader knows it.
fn is_in_sync(info: &PartitionInfo, status: &GroupStatus) -> bool {
    let leader = status.state.leader.map(|(replica, _node)| replica);
    info.replicas.iter().all(|replica| {
        let mut members = status.membership.iter();
        let member = members.find(|member| member.replica == replica.id);
        member.is_some_and(|member| {
            let lag = status
                .last_index
                .saturating_sub(member.matched.unwrap_or_default());
            let near = lag <= IN_SYNC_ENTRIES || leader == Some(member.replica);
            member.voter && member.answers && near
        })
    })
}

const fn name(state: &LocalState) -> &'static str {
    match state {
        LocalState::Opening => "opening",
        LocalState::Running => "running",
        LocalState::Damaged(_) => "damaged",
        LocalState::Failed(_) => "failed",
        LocalState::Rebuilding => "rebuilding",
    }
}
