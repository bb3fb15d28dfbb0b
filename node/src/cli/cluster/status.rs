//! What `seriatim cluster status` prints.

use serde_json::{Value, json};
use seriatim_client::{ClusterStatus, NodeStatus, PartitionMoving, PartitionStatus, ReplicaStatus};

use seriatim_runtime::clock;

use super::super::common::{Output, print, print_json, print_table};

/// How long a lost disk is told of after everything was rebuilt; the JSON form has it for ever.
const NEWS_MS: u64 = 24 * 60 * 60 * 1000;

/// Prints the state of the cluster.
pub(super) fn show(status: &ClusterStatus, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Table => tables(status),
        Output::Json => print_json(&to_json(status)),
    }
}

fn count(status: &ClusterStatus, of: impl Fn(&PartitionStatus) -> bool) -> usize {
    status.partitions.iter().filter(|p| of(p)).count()
}

fn under_replicated(status: &ClusterStatus) -> usize {
    count(status, PartitionStatus::is_under_replicated)
}

fn leaderless(status: &ClusterStatus) -> usize {
    count(status, |p| p.leader.is_none())
}

fn unavailable(status: &ClusterStatus) -> usize {
    count(status, |p| !p.is_available())
}

fn moving(status: &ClusterStatus) -> usize {
    count(status, |p| p.moving.is_some())
}

/// Led by another replica than the preferred one.
fn misplaced(status: &ClusterStatus) -> usize {
    count(status, |p| {
        p.leader.is_some() && p.leader != p.preferred_leader
    })
}

fn tables(status: &ClusterStatus) -> anyhow::Result<()> {
    let controller = status
        .controller
        .map_or("none".to_owned(), |node| node.to_string());
    print(&format!(
        "cluster {}, controller {controller}\n\n",
        status.cluster_id
    ))?;
    nodes(status)?;
    print("\n")?;
    partitions(status)?;
    moves(status)?;
    print(&format!(
        "\n{} partitions, {} under-replicated, {} leaderless, {} unavailable, {} moving, \
         {} not led by the preferred node\n",
        status.partitions.len(),
        under_replicated(status),
        leaderless(status),
        unavailable(status),
        moving(status),
        misplaced(status)
    ))?;
    print(&reasons(status))
}

fn nodes(status: &ClusterStatus) -> anyhow::Result<()> {
    let nodes = status.nodes.iter().map(|n| {
        vec![
            n.node.to_string(),
            n.grpc_address.clone(),
            state_text(n),
            format!("{}/{}", n.leaders, n.preferred),
            n.replicas.to_string(),
            n.version.clone(),
        ]
    });
    print_table(
        &["NODE", "GRPC", "STATE", "LEADERS", "REPLICAS", "VERSION"],
        nodes,
    )
}

fn partitions(status: &ClusterStatus) -> anyhow::Result<()> {
    let partitions = status.partitions.iter().map(|p| {
        let replicas: Vec<_> = p.replicas.iter().map(replica_text).collect();
        vec![
            p.topic.clone(),
            p.partition.to_string(),
            p.leader.map_or("none".to_owned(), |node| node.to_string()),
            p.term.to_string(),
            p.high_watermark.to_string(),
            replicas.join(" "),
        ]
    });
    let header = [
        "TOPIC",
        "PARTITION",
        "LEADER",
        "TERM",
        "HIGH WATERMARK",
        "REPLICAS (NODE:LAG)",
    ];
    print_table(&header, partitions)
}

fn moves(status: &ClusterStatus) -> anyhow::Result<()> {
    let moving = status.partitions.iter().filter_map(|p| {
        let moving = p.moving.as_ref()?;
        Some(vec![
            p.topic.clone(),
            p.partition.to_string(),
            list(&moving.from),
            list(&moving.to),
            moving.stage.clone(),
            arriving_lag(p).map_or("?".to_owned(), |lag| lag.to_string()),
        ])
    });
    let rows: Vec<_> = moving.collect();
    if rows.is_empty() {
        return Ok(());
    }
    print("\n")?;
    print_table(&["MOVING", "PARTITION", "FROM", "TO", "STAGE", "LAG"], rows)
}

/// Nodes in their order.
pub(super) fn list(nodes: &[u64]) -> String {
    let all: Vec<_> = nodes.iter().map(ToString::to_string).collect();
    all.join(",")
}

/// How far the replicas that come with a move are behind, if somebody knows.
fn arriving_lag(partition: &PartitionStatus) -> Option<u64> {
    let arriving = partition.replicas.iter().filter(|r| r.arriving);
    arriving.map(|r| r.lag).max().unwrap_or(Some(0))
}

/// Why nodes and replicas are not as they should be, one line each.
fn reasons(status: &ClusterStatus) -> String {
    let mut text = String::new();
    for node in &status.nodes {
        let id = node.node;
        if let Some(why) = &node.unreachable {
            text += &format!("node {id}: {why}\n");
        }
        if node.disk_full {
            text += &format!("node {id}: its disk has no room for appends\n");
        }
        if node.is_safe_to_stop() {
            text += &format!("node {id}: decommissioned and safe to stop\n");
        } else if node.leaving {
            let left = node.assigned;
            text += &format!("node {id}: is being decommissioned, {left} replicas to move\n");
        }
        if let Some(told) = node
            .data_lost_ms
            .and_then(|lost| data_lost(status, id, lost))
        {
            text += &format!("node {id}: {told}\n");
        }
    }
    for p in &status.partitions {
        for r in p.replicas.iter().filter(|r| !r.reason.is_empty()) {
            let (topic, partition) = (&p.topic, p.partition);
            text += &format!(
                "{topic}-{partition} on node {}: {}: {}\n",
                r.node, r.state, r.reason
            );
        }
    }
    text
}

/// News of a node that lost its data: until its replicas are rebuilt, and for a day.
fn data_lost(status: &ClusterStatus, node: u64, lost_ms: u64) -> Option<String> {
    let when = i64::try_from(lost_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "once".to_owned(), |time| format!("at {time:.0}"));
    let rebuilding = status.partitions.iter().flat_map(|p| &p.replicas);
    let rebuilding = rebuilding.filter(|r| r.node == node && r.state == "rebuilding");
    let now_ms = u64::try_from(clock::wall_ms()).unwrap_or_default();
    match rebuilding.count() {
        0 if now_ms.saturating_sub(lost_ms) > NEWS_MS => None,
        0 => Some(format!(
            "came back without its data {when}; all its replicas are rebuilt"
        )),
        left => Some(format!(
            "came back without its data {when}; {left} replicas are being rebuilt"
        )),
    }
}

const fn state(node: &NodeStatus) -> &'static str {
    match (&node.unreachable, node.disk_full) {
        (Some(_), _) => "unreachable",
        (None, true) => "disk full",
        (None, false) if node.stopping => "stopping",
        (None, false) => "up",
    }
}

fn state_text(node: &NodeStatus) -> String {
    let state = state(node);
    if node.is_safe_to_stop() {
        format!("{state}, safe to stop")
    } else if node.leaving {
        format!("{state}, leaving")
    } else {
        state.to_owned()
    }
}

fn replica_text(replica: &ReplicaStatus) -> String {
    let lag = replica.lag.map_or("?".to_owned(), |lag| lag.to_string());
    match (replica.state, replica.arriving) {
        ("running", false) => format!("{}:{lag}", replica.node),
        ("running" | "rebuilding", true) => format!("{}:{lag}(arriving)", replica.node),
        (other, _) => format!("{}:{lag}({other})", replica.node),
    }
}

fn to_json(status: &ClusterStatus) -> Value {
    json!({
        "cluster_id": status.cluster_id,
        "controller": status.controller,
        "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "partitions": status.partitions.iter().map(partition_json).collect::<Vec<_>>(),
        "under_replicated": under_replicated(status),
        "leaderless": leaderless(status),
        "unavailable": unavailable(status),
        "moving": moving(status),
        "not_led_by_preferred": misplaced(status),
    })
}

fn node_json(n: &NodeStatus) -> Value {
    json!({
        "node": n.node,
        "grpc_address": n.grpc_address,
        "rack": n.rack,
        "state": state(n),
        "error": n.unreachable,
        "leaders": n.leaders,
        "preferred_leaders": n.preferred,
        "replicas": n.replicas,
        "assigned_replicas": n.assigned,
        "leaving": n.leaving,
        "safe_to_stop": n.is_safe_to_stop(),
        "controller_voter": n.controller_voter,
        "data_lost_ms": n.data_lost_ms,
        "disk_full": n.disk_full,
        "version": n.version,
    })
}

fn partition_json(p: &PartitionStatus) -> Value {
    let replica = |r: &ReplicaStatus| {
        json!({
            "node": r.node,
            "lag": r.lag,
            "state": r.state,
            "arriving": r.arriving,
            "reason": r.reason,
            "log_end_offset": r.log_end_offset,
        })
    };
    let moving = |m: &PartitionMoving| json!({ "from": m.from, "to": m.to, "stage": m.stage });
    json!({
        "topic": p.topic,
        "partition": p.partition,
        "leader": p.leader,
        "preferred_leader": p.preferred_leader,
        "term": p.term,
        "high_watermark": p.high_watermark,
        "under_replicated": p.is_under_replicated(),
        "available": p.is_available(),
        "moving": p.moving.as_ref().map(moving),
        "replicas": p.replicas.iter().map(replica).collect::<Vec<_>>(),
    })
}
