//! SIGKILL, and a new start.

use rustix::process::Signal;

use crate::live::stage::Stage;

/// Kills them all before it waits for any.
pub(super) async fn begin(stage: &Stage, nodes: &[u64]) -> anyhow::Result<()> {
    let mut killed = Vec::new();
    for &node in nodes {
        let mut node = stage.cluster.node(node).await?;
        node.signal(Signal::KILL)?;
        killed.push(node);
    }
    for mut node in killed {
        let _status = node.wait().await?;
    }
    Ok(())
}

/// Starts those that do not run.
pub(super) async fn end(stage: &Stage, nodes: &[u64]) -> anyhow::Result<()> {
    for &node in nodes {
        let mut node = stage.cluster.node(node).await?;
        if !node.is_running() {
            node.start()?;
        }
    }
    Ok(())
}
