//! Waiting for moves, with progress, and how moves are printed.

use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use seriatim_client::{Admin, ClusterStatus, PartitionStatus, PlannedMove};
use seriatim_runtime::clock::{self, Instant};

use super::{common::tell, fail::interrupted};

/// Pause between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(300);

/// Looks at which nothing moves any more, after which a partition that has not arrived never will.
const STILL: u32 = 20;

/// A line of progress comes at most this often, unless there is news.
const REPEAT: Duration = Duration::from_secs(2);

/// The columns of [`row`].
pub(super) const HEADER: [&str; 4] = ["TOPIC", "PARTITION", "FROM", "TO"];

/// A move as a row of a table.
pub(super) fn row(planned: &PlannedMove) -> Vec<String> {
    vec![
        planned.topic.clone(),
        planned.partition.to_string(),
        list(&planned.from),
        list(&planned.to),
    ]
}

/// A move as JSON.
pub(super) fn to_json(planned: &PlannedMove) -> Value {
    json!({
        "topic": planned.topic,
        "partition": planned.partition,
        "from": planned.from,
        "to": planned.to,
    })
}

fn list(nodes: &[u64]) -> String {
    let all: Vec<_> = nodes.iter().map(ToString::to_string).collect();
    all.join(",")
}

/// Looks at the cluster until `done` says so. Ctrl-C ends the wait, not what is waited for; a cluster
/// that does not answer for a moment is asked again.
pub(super) async fn until(
    admin: &Admin,
    mut done: impl AsyncFnMut(&ClusterStatus) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let wait = async {
        loop {
            match admin.cluster_status().await {
                Ok(status) if done(&status).await? => return Ok(()),
                Ok(_) => {}
                Err(error) if error.is_retryable() => tell(&format!("waiting: {error}")),
                Err(error) => return Err(error.into()),
            }
            clock::sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        interrupted = interrupted() => {
            tell("the moves go on; 'seriatim cluster status' shows how far they are");
            Err(interrupted)
        }
        waited = wait => waited,
    }
}

/// Waits until these moves are done.
///
/// Each look asks any node, which may not have heard of a move yet: only a partition that is where it
/// was to go has arrived.
pub(super) async fn finish(admin: &Admin, moves: &[PlannedMove]) -> anyhow::Result<()> {
    if moves.is_empty() {
        return Ok(());
    }
    let mut watch = Watch::new();
    let total = moves.len();
    let mut still = 0;
    until(admin, async |status| {
        let there = moves.iter().filter(|planned| has_arrived(status, planned));
        let left = total - there.count();
        if left > 0 {
            watch.tell(
                status,
                &format!("{} of {total} partitions moved", total - left),
            );
        }
        let moving = status.partitions.iter().any(|p| p.moving.is_some());
        still = if moving { 0 } else { still + 1 };
        if left > 0 && still > STILL {
            bail!("{left} of {total} partitions went elsewhere meanwhile; look at the status");
        }
        Ok(left == 0)
    })
    .await
}

fn has_arrived(status: &ClusterStatus, planned: &PlannedMove) -> bool {
    let mut partitions = status.partitions.iter();
    let found = partitions.find(|p| p.topic == planned.topic && p.partition == planned.partition);
    // A topic that was deleted moves nowhere.
    found.is_none_or(|p| {
        let nodes = p.replicas.iter().map(|replica| replica.node);
        let mut wanted = planned.to.clone();
        wanted.sort_unstable();
        p.moving.is_none()
            && p.preferred_leader == planned.to.first().copied()
            && nodes.eq(wanted.iter().copied())
    })
}

/// Says how far moves are, without saying the same again and again.
pub(super) struct Watch {
    last: String,
    at: Option<Instant>,
}

impl Watch {
    pub(super) const fn new() -> Self {
        Self {
            last: String::new(),
            at: None,
        }
    }

    /// A line with what is left and what moves now.
    pub(super) fn tell(&mut self, status: &ClusterStatus, what: &str) {
        let line = format!("{what}; {}", stages(status));
        let now = clock::now();
        let late = self.at.is_none_or(|at| now.duration_since(at) >= REPEAT);
        let first = self.at.is_none();
        if first || (late && line != self.last) {
            tell(&line);
            self.last = line;
            self.at = Some(now);
        }
    }
}

/// How many moves are at which stage, and how much is still to copy.
fn stages(status: &ClusterStatus) -> String {
    let mut stages: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for moving in status.partitions.iter().filter_map(|p| p.moving.as_ref()) {
        *stages.entry(moving.stage.as_str()).or_default() += 1;
    }
    let lag: u64 = status.partitions.iter().map(to_copy).sum();
    let mut parts: Vec<String> = stages
        .into_iter()
        .map(|(stage, count)| format!("{count} {stage}"))
        .collect();
    if parts.is_empty() {
        return "nothing moves at the moment".to_owned();
    }
    parts.push(format!("{lag} entries to copy"));
    parts.join(", ")
}

fn to_copy(partition: &PartitionStatus) -> u64 {
    let arriving = partition.replicas.iter().filter(|r| r.arriving);
    arriving.filter_map(|r| r.lag).sum()
}
