//! A disk without room: it delays, and loses nothing.

use crate::live::stage::Stage;

/// Room for so many bytes from now on, or for any.
pub(super) async fn set(stage: &Stage, node: u64, room_bytes: Option<u64>) -> anyhow::Result<()> {
    let set = async |disk: &mut crate::live::disk::Disk| disk.room(room_bytes).await;
    stage.disk(node, set).await
}
