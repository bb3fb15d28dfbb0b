//! Another build, one node after the other.

use super::Nemesis;

/// Each node is stopped, and started with the new build once the one before is in step again.
pub(super) async fn strike(nemesis: &Nemesis) -> anyhow::Result<()> {
    let stage = &*nemesis.stage;
    *stage.binary.lock() = stage.newest.clone();
    for id in stage.cluster.ids() {
        let Some(claim) = nemesis.claim(&[id]).await else {
            return Ok(());
        };
        {
            let mut node = stage.cluster.node(id).await?;
            if !node.is_running() {
                continue;
            }
            node.stop().await?;
            node.spec.binary.clone_from(&stage.newest);
            node.start()?;
        }
        nemesis.ready(id).await?;
        drop(claim);
        nemesis.replicated().await?;
    }
    Ok(())
}
