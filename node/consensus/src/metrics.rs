//! Metrics of the consensus layer.

use metrics::Counter;
use seriatim_runtime::metric::{self, Metric, Unit};

use crate::{Consensus, Role};

const GROUPS: &str = "seriatim_raft_groups";
const GROUPS_LED: &str = "seriatim_raft_groups_led";
const LEADER_CHANGES: &str = "seriatim_raft_leader_changes_total";
const QUEUED_REQUESTS: &str = "seriatim_replication_queued_requests";
const IN_FLIGHT_BYTES: &str = "seriatim_replication_in_flight_bytes";

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    metric::gauge(
        GROUPS,
        Unit::Count,
        "Raft groups open on this node: its replicas of partitions, and the metadata group",
    ),
    metric::gauge(GROUPS_LED, Unit::Count, "Raft groups that this node leads"),
    metric::counter(
        LEADER_CHANGES,
        Unit::Count,
        "times that a group of this node got another leader, the first one included",
    ),
    metric::gauge(
        QUEUED_REQUESTS,
        Unit::Count,
        "requests to other nodes that wait for their connection",
    ),
    metric::gauge(
        IN_FLIGHT_BYTES,
        Unit::Bytes,
        "bytes of entries under way to other nodes",
    ),
];

/// Counts the leaders that a group has.
pub(crate) fn leader_changes() -> Counter {
    metrics::counter!(LEADER_CHANGES)
}

impl Consensus {
    /// Sets the gauges that are only looked at when somebody asks for metrics.
    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    pub fn refresh_gauges(&self) {
        let groups = self.groups();
        let led = groups
            .iter()
            .filter(|group| group.state().borrow().role == Role::Leader);
        metrics::gauge!(GROUPS_LED).set(led.count() as f64);
        metrics::gauge!(GROUPS).set(groups.len() as f64);
        let (queued, in_flight) = self.lane().load();
        metrics::gauge!(QUEUED_REQUESTS).set(queued as f64);
        metrics::gauge!(IN_FLIGHT_BYTES).set(in_flight as f64);
    }
}
