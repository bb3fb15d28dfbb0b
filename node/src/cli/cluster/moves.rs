//! `seriatim cluster decommission` and `seriatim cluster rebalance`.

use anyhow::{Context as _, bail};
use serde_json::json;
use seriatim_client::{Admin, ClusterStatus, NodeStatus};

use super::super::{
    common::{Output, print, print_json, print_table, tell},
    moving::{self, Watch},
};

/// Moves everything away from a node and waits until it is safe to stop.
pub(super) async fn leave(
    admin: &Admin,
    node: u64,
    no_wait: bool,
    output: Output,
) -> anyhow::Result<()> {
    admin.decommission(node, false).await?;
    let mut safe = false;
    if no_wait {
        tell(&format!(
            "node {node} gives its replicas away; 'seriatim cluster status' shows how far it is"
        ));
    } else {
        let mut watch = Watch::new();
        let mut seen = false;
        moving::until(admin, async |status| {
            // Stopped too early, or by somebody else: gone is as good as safe.
            let Some(known) = find(status, node) else {
                return Ok(true);
            };
            // Any node is asked, which may not have heard of it yet.
            if !known.leaving && seen {
                bail!("the decommission of node {node} was cancelled meanwhile");
            }
            seen = known.leaving;
            watch.tell(status, &rest(known));
            Ok(known.is_safe_to_stop())
        })
        .await?;
        safe = true;
    }
    match output {
        Output::Table if safe => print(&format!(
            "node {node} holds nothing any more: it is safe to stop\n"
        )),
        Output::Table => print(&format!("node {node} is being decommissioned\n")),
        Output::Json => print_json(&json!({ "node": node, "safe_to_stop": safe })),
    }
}

fn find(status: &ClusterStatus, node: u64) -> Option<&NodeStatus> {
    status.nodes.iter().find(|known| known.node == node)
}

fn rest(node: &NodeStatus) -> String {
    let vote = if node.controller_voter {
        " and its vote in the metadata group"
    } else {
        ""
    };
    format!(
        "{} replicas{vote} left on node {}",
        node.assigned, node.node
    )
}

/// Lets a node stay.
pub(super) async fn stay(admin: &Admin, node: u64, output: Output) -> anyhow::Result<()> {
    admin.decommission(node, true).await?;
    let status = admin.cluster_status().await?;
    let known = find(&status, node).context("the node is gone already")?;
    match output {
        Output::Table => print(&format!(
            "node {node} stays, with {} replicas; 'seriatim cluster rebalance' gives it more\n",
            known.assigned
        )),
        Output::Json => print_json(&json!({ "node": node, "replicas": known.assigned })),
    }
}

/// Spreads what there is.
pub(super) async fn rebalance(
    admin: &Admin,
    dry_run: bool,
    no_wait: bool,
    output: Output,
) -> anyhow::Result<()> {
    let moves = admin.rebalance(dry_run).await?;
    if !dry_run && !no_wait {
        moving::finish(admin, &moves).await?;
    }
    if output == Output::Json {
        let moves: Vec<_> = moves.iter().map(moving::to_json).collect();
        return print_json(&json!({ "dry_run": dry_run, "moves": moves }));
    }
    if moves.is_empty() {
        return print("replicas and leaders are spread evenly: nothing to move\n");
    }
    print_table(&moving::HEADER, moves.iter().map(moving::row))?;
    let copied = moves.iter().filter(|planned| planned.copies()).count();
    let verb = match (dry_run, no_wait) {
        (true, _) => "would move",
        (false, true) => "begun to move",
        (false, false) => "moved",
    };
    print(&format!(
        "\n{verb}: {copied} partitions with their records, {} only in who leads them\n",
        moves.len() - copied
    ))
}
