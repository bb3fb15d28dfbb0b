//! The power fails: processes are gone, and what they had not synced.

use crate::live::stage::Stage;

pub(super) async fn begin(stage: &Stage, nodes: &[u64]) -> anyhow::Result<()> {
    super::kill::begin(stage, nodes).await?;
    for &node in nodes {
        forget(stage, node).await?;
    }
    Ok(())
}

/// A disk forgets what was not synced; the process is gone already.
pub(super) async fn forget(stage: &Stage, node: u64) -> anyhow::Result<()> {
    let what = stage
        .disk(node, async |disk| disk.power_loss().await)
        .await?;
    tracing::debug!(node, what, "power loss");
    Ok(())
}

pub(super) async fn end(stage: &Stage, nodes: &[u64]) -> anyhow::Result<()> {
    super::kill::end(stage, nodes).await
}
