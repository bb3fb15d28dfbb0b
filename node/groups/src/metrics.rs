//! Metrics of the consumer groups that this node coordinates.

use std::collections::BTreeSet;

use metrics::{Counter, Histogram};
use parking_lot::Mutex;
use seriatim_proto::ids::{PartitionId, TopicPartition};
use seriatim_runtime::metric::{self, Kind, Metric, Unit};

use crate::Groups;

const GROUPS: &str = "seriatim_groups";
const MEMBERS: &str = "seriatim_group_members";
const CHANGES: &str = "seriatim_group_member_changes_total";
const EXPIRED: &str = "seriatim_group_sessions_expired_total";
const COMMITS: &str = "seriatim_group_commits_total";
const COMMIT_ERRORS: &str = "seriatim_group_commit_errors_total";
const COMMIT_SECONDS: &str = "seriatim_group_commit_seconds";
const LAG: &str = "seriatim_group_lag_records";

/// Most series of [`LAG`] in the life of the process.
const LAG_SERIES: usize = 1_000;

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    metric::gauge(
        GROUPS,
        Unit::Count,
        "consumer groups that this node coordinates",
    ),
    metric::gauge(
        MEMBERS,
        Unit::Count,
        "members of the consumer groups that this node coordinates",
    ),
    metric::counter(
        CHANGES,
        Unit::Count,
        "changes of the members of consumer groups, of what they subscribe to, or of what they \
         are to have",
    ),
    metric::counter(
        EXPIRED,
        Unit::Count,
        "members of consumer groups that were silent for their session timeout",
    ),
    metric::counter(COMMITS, Unit::Count, "commits of offsets that were stored"),
    metric::counter(
        COMMIT_ERRORS,
        Unit::Count,
        "commits of offsets that were refused or not acknowledged",
    ),
    metric::histogram(
        COMMIT_SECONDS,
        "time from a commit of offsets to its answer",
    ),
    Metric {
        name: LAG,
        kind: Kind::Gauge,
        unit: Unit::Count,
        labels: &["group", "topic", "partition"],
        meaning: "records between what a group committed and the end of the partition; of groups \
                  that this node coordinates and partitions that it has a replica of, at most \
                  1000 in the life of the process (`seriatim group describe` shows all)",
    },
];

/// Handles, looked up once. The recorder must be installed before the groups are made.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) changes: Counter,
    pub(crate) expired: Counter,
    pub(crate) commits: Counter,
    pub(crate) commit_errors: Counter,
    pub(crate) commit_seconds: Histogram,
    /// Groups and partitions whose lag was shown.
    shown: Mutex<BTreeSet<(String, TopicPartition)>>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            changes: metrics::counter!(CHANGES),
            expired: metrics::counter!(EXPIRED),
            commits: metrics::counter!(COMMITS),
            commit_errors: metrics::counter!(COMMIT_ERRORS),
            commit_seconds: metrics::histogram!(COMMIT_SECONDS),
            shown: Mutex::default(),
        }
    }
}

impl Groups {
    /// Sets the gauges that are only looked at when somebody asks for metrics.
    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    pub fn refresh_gauges(&self) {
        let (mut groups, mut members) = (0_u64, 0_usize);
        let mut lags = Vec::new();
        for shard in self.served() {
            shard.machine.for_each(|id, group| {
                groups += 1;
                members += group.members.len();
                for (tp, committed) in &group.offsets {
                    if lags.len() < LAG_SERIES {
                        let tp = TopicPartition::new(&*tp.topic, PartitionId(tp.partition));
                        lags.push((id.to_owned(), tp, committed.offset));
                    }
                }
            });
        }
        metrics::gauge!(GROUPS).set(groups as f64);
        metrics::gauge!(MEMBERS).set(members as f64);
        let Some(cluster) = self.0.cluster_now() else {
            return;
        };
        let mut shown = self.0.metrics.shown.lock();
        // What this node does not coordinate any more, or what is gone, has no lag here.
        let mut left = shown.clone();
        for (group, tp, committed) in lags {
            let Some(partition) = cluster.partition(&tp) else {
                continue;
            };
            let end = partition.high_watermark().borrow().0;
            let series = (group, tp);
            let _shown = left.remove(&series);
            if shown.contains(&series) || shown.len() < LAG_SERIES {
                set_lag(&series, end.saturating_sub(committed).max(0) as f64);
                let _new = shown.insert(series);
            }
        }
        for series in left {
            set_lag(&series, 0.0);
        }
    }
}

fn set_lag((group, tp): &(String, TopicPartition), lag: f64) {
    let labels = [
        ("group", group.clone()),
        ("topic", tp.topic.clone()),
        ("partition", tp.partition.to_string()),
    ];
    metrics::gauge!(LAG, &labels).set(lag);
}
