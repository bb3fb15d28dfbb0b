//! Nodes that do not hear each other, and packets that are lost.

use crate::live::{net::Rule, schedule::Shape, stage::Stage};

pub(super) async fn begin(stage: &Stage, fault: u64, shape: &Shape) -> anyhow::Result<()> {
    let nodes = stage.cluster.ids();
    let rules = shape.rules(&nodes);
    stage.network.begin(fault, rules, &nodes).await
}

/// A part of the packets that come to a node.
pub(super) async fn lose(stage: &Stage, fault: u64, node: u64, percent: u8) -> anyhow::Result<()> {
    let rules = vec![Rule::Loss { node, percent }];
    stage.network.begin(fault, rules, &[node]).await
}

pub(super) async fn end(stage: &Stage, fault: u64) -> anyhow::Result<()> {
    stage.network.end(fault, &stage.cluster.ids()).await
}
