//! Disks whose syncs take long, do not return, or fail.

use crate::live::stage::Stage;

/// Syncs take up to so many milliseconds.
pub(super) async fn slow(stage: &Stage, node: u64, ms: u64) -> anyhow::Result<()> {
    stage.disk(node, async |disk| disk.slow(ms).await).await
}

/// Syncs do not return, or do again.
pub(super) async fn stuck(stage: &Stage, node: u64, stuck: bool) -> anyhow::Result<()> {
    stage.disk(node, async |disk| disk.stuck(stuck).await).await
}

/// Syncs fail. The node may end: it cannot keep what it promises.
pub(super) async fn fail(stage: &Stage, node: u64) -> anyhow::Result<()> {
    stage.cluster.excuse(node, true);
    stage
        .disk(node, async |disk| disk.failing(true).await)
        .await
}

/// What a failed sync has not written is lost; then all is well, and the node starts again.
pub(super) async fn heal(stage: &Stage, node: u64) -> anyhow::Result<()> {
    {
        let mut process = stage.cluster.node(node).await?;
        if process.gone().is_none() && process.is_running() {
            process.kill().await?;
        }
    }
    stage
        .disk(node, async |disk| disk.failing(false).await)
        .await?;
    super::power::forget(stage, node).await?;
    stage.cluster.excuse(node, false);
    super::kill::end(stage, &[node]).await
}
