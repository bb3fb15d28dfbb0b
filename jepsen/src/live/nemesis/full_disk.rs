//! A disk without room: it delays, and loses nothing.

use crate::live::stage::Stage;

/// Room for so many bytes from now on, or for any.
pub(super) async fn set(stage: &Stage, node: u64, room_bytes: Option<u64>) -> anyhow::Result<()> {
    stage
        .disk(node, async |disk| disk.room(room_bytes).await)
        .await
}
