//! SIGTERM, and a new start: what an operator does.

use crate::live::stage::Stage;

/// The process has ended well on return.
pub(super) async fn begin(stage: &Stage, node: u64) -> anyhow::Result<()> {
    stage.cluster.node(node).await?.stop().await
}

pub(super) async fn end(stage: &Stage, node: u64) -> anyhow::Result<()> {
    super::kill::end(stage, &[node]).await
}
