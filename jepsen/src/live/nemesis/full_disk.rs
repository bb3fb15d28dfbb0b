//! A disk without room: it delays, and loses nothing.

use crate::live::stage::Stage;

pub(super) async fn set(stage: &Stage, node: u64, full: bool) -> anyhow::Result<()> {
    stage.disk(node, async |disk| disk.full(full).await).await
}
