//! Nodes that come, go, and come back without their data.

use anyhow::Context as _;

use super::Nemesis;

/// A new node gets a share of all partitions.
pub(super) async fn grow(nemesis: &Nemesis, node: u64) -> anyhow::Result<()> {
    let stage = &*nemesis.stage;
    if stage.cluster.ids().contains(&node) {
        stage.wipe(node).await?;
    } else {
        stage.add(node).await?;
    }
    stage.cluster.node(node).await?.start()?;
    nemesis.ready(node).await?;
    let admin = nemesis.client().await?.admin();
    let asked = nemesis.patiently("the cluster spreads its partitions", async || {
        Ok(Some(admin.rebalance(false).await?))
    });
    if asked.await?.is_some() {
        nemesis.replicated().await?;
    }
    Ok(())
}

/// A node gives away all that it has, is stopped and forgotten.
pub(super) async fn shrink(nemesis: &Nemesis, node: u64) -> anyhow::Result<()> {
    let stage = &*nemesis.stage;
    if !stage.cluster.node(node).await?.is_running() {
        return Ok(());
    }
    let admin = nemesis.client().await?.admin();
    let asked = nemesis.patiently("the node is being decommissioned", async || {
        Ok(Some(admin.decommission(node, false).await?))
    });
    if asked.await?.is_none() {
        return Ok(());
    }
    let empty = nemesis.patiently("the node holds nothing any more", async || {
        let status = admin.cluster_status().await?;
        let found = status.nodes.iter().find(|found| found.node == node);
        let found = found.with_context(|| format!("nobody knows node {node}"))?;
        Ok(found.is_safe_to_stop().then_some(()))
    });
    if empty.await?.is_none() {
        return Ok(());
    }
    stage.cluster.node(node).await?.stop().await?;
    let forgotten = nemesis.patiently("the node is forgotten", async || {
        let status = admin.cluster_status().await?;
        let known = status.nodes.iter().any(|found| found.node == node);
        Ok((!known).then_some(()))
    });
    let _early = forgotten.await?;
    Ok(())
}

/// A node loses its disk and comes back with an empty one.
pub(super) async fn replace(nemesis: &Nemesis, node: u64) -> anyhow::Result<()> {
    let stage = &*nemesis.stage;
    super::kill::begin(stage, &[node]).await?;
    stage.wipe(node).await?;
    stage.cluster.node(node).await?.start()?;
    nemesis.ready(node).await?;
    nemesis.replicated().await
}
