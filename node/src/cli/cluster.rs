//! `seriatim cluster status`.

use serde_json::{Value, json};
use seriatim_client::{ClusterStatus, NodeStatus, PartitionStatus, ReplicaStatus};

use super::common::{Output, Servers, print, print_json, print_table};

const EXAMPLES: &str = "Examples:
  seriatim cluster status
  seriatim cluster status --output json --servers 10.0.0.1:7401";

/// Show the state of the cluster
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    servers: Servers,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, global = true, value_name = "FORM")]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Nodes, leaders, lag of each replica, under-replicated and leaderless partitions
    ///
    /// Lag counts the entries of the log that a replica is behind its leader. A partition takes
    /// appends while it has a leader and a majority of its replicas runs.
    #[command(after_help = EXAMPLES)]
    Status,
}

/// Runs the verb.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Verb::Status = args.verb;
    let status = args
        .servers
        .connect()
        .await?
        .admin()
        .cluster_status()
        .await?;
    match args.output {
        Output::Table => tables(&status),
        Output::Json => print_json(&to_json(&status)),
    }
}

fn under_replicated(status: &ClusterStatus) -> usize {
    status
        .partitions
        .iter()
        .filter(|p| p.is_under_replicated())
        .count()
}

fn leaderless(status: &ClusterStatus) -> usize {
    status
        .partitions
        .iter()
        .filter(|p| p.leader.is_none())
        .count()
}

/// Whether the partition takes appends.
fn is_available(partition: &PartitionStatus) -> bool {
    let running = partition.replicas.iter().filter(|r| r.state == "running");
    partition.leader.is_some() && 2 * running.count() > partition.replicas.len()
}

fn unavailable(status: &ClusterStatus) -> usize {
    let partitions = status.partitions.iter();
    partitions.filter(|p| !is_available(p)).count()
}

fn tables(status: &ClusterStatus) -> anyhow::Result<()> {
    let controller = status
        .controller
        .map_or("none".to_owned(), |node| node.to_string());
    print(&format!(
        "cluster {}, controller {controller}\n\n",
        status.cluster_id
    ))?;
    let nodes = status.nodes.iter().map(|n| {
        vec![
            n.node.to_string(),
            n.grpc_address.clone(),
            state(n).to_owned(),
            n.leaders.to_string(),
            n.replicas.to_string(),
            n.version.clone(),
        ]
    });
    print_table(
        &["NODE", "GRPC", "STATE", "LEADERS", "REPLICAS", "VERSION"],
        nodes,
    )?;
    print("\n")?;
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
    print_table(&header, partitions)?;
    print(&format!(
        "\n{} partitions, {} under-replicated, {} leaderless, {} unavailable\n",
        status.partitions.len(),
        under_replicated(status),
        leaderless(status),
        unavailable(status)
    ))?;
    print(&reasons(status))
}

/// Why nodes and replicas are not as they should be, one line each.
fn reasons(status: &ClusterStatus) -> String {
    let mut text = String::new();
    for node in &status.nodes {
        if let Some(why) = &node.unreachable {
            text += &format!("node {}: {why}\n", node.node);
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

const fn state(node: &NodeStatus) -> &'static str {
    match (&node.unreachable, node.disk_full) {
        (Some(_), _) => "unreachable",
        (None, true) => "disk full",
        (None, false) => "up",
    }
}

fn replica_text(replica: &ReplicaStatus) -> String {
    let lag = replica.lag.map_or("?".to_owned(), |lag| lag.to_string());
    match replica.state {
        "running" => format!("{}:{lag}", replica.node),
        other => format!("{}:{lag}({other})", replica.node),
    }
}

fn to_json(status: &ClusterStatus) -> Value {
    let node = |n: &NodeStatus| {
        json!({
            "node": n.node,
            "grpc_address": n.grpc_address,
            "rack": n.rack,
            "state": state(n),
            "error": n.unreachable,
            "leaders": n.leaders,
            "replicas": n.replicas,
            "version": n.version,
        })
    };
    let replica = |r: &ReplicaStatus| {
        json!({
            "node": r.node,
            "lag": r.lag,
            "state": r.state,
            "reason": r.reason,
            "log_end_offset": r.log_end_offset,
        })
    };
    let partition = |p: &PartitionStatus| {
        json!({
            "topic": p.topic,
            "partition": p.partition,
            "leader": p.leader,
            "term": p.term,
            "high_watermark": p.high_watermark,
            "under_replicated": p.is_under_replicated(),
            "available": is_available(p),
            "replicas": p.replicas.iter().map(replica).collect::<Vec<_>>(),
        })
    };
    json!({
        "cluster_id": status.cluster_id,
        "controller": status.controller,
        "nodes": status.nodes.iter().map(node).collect::<Vec<_>>(),
        "partitions": status.partitions.iter().map(partition).collect::<Vec<_>>(),
        "under_replicated": under_replicated(status),
        "leaderless": leaderless(status),
        "unavailable": unavailable(status),
    })
}
