//! Bits that flip in files at rest.

use super::Nemesis;

/// Under the running node, which then reads all of it anew.
pub(super) async fn strike(nemesis: &Nemesis, node: u64, flips: u32) -> anyhow::Result<()> {
    let stage = &*nemesis.stage;
    stage.cluster.note_rot(node);
    let places = stage.disk(node, async |disk| disk.rot(flips).await).await?;
    tracing::info!(node, places, "rot");
    let mut process = stage.cluster.node(node).await?;
    process.stop().await?;
    process.start()?;
    drop(process);
    nemesis.replicated().await
}
