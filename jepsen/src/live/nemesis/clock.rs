//! Wall clocks that jump.

use crate::live::stage::Stage;

/// Sets a clock off by so many milliseconds from the right time.
pub(super) async fn set(stage: &Stage, node: u64, offset_ms: i64) -> anyhow::Result<()> {
    let clock = stage.cluster.node(node).await?.spec.clock.clone();
    match clock {
        Some(clock) => clock.set(offset_ms),
        None => anyhow::bail!("node {node} has the machine's clock"),
    }
}
