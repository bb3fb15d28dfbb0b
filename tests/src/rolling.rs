//! Nodes restarted one after the other, as an operator does it.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::cluster::Cluster;

/// Stops a node with SIGTERM, starts it again and waits until every replica has caught up. Returns
/// how long the process took to end.
///
/// # Errors
/// If it does not end well, or does not come back in time.
pub async fn restart(cluster: &mut Cluster, id: u64) -> anyhow::Result<Duration> {
    let node = cluster.node_mut(id)?;
    let began = Instant::now();
    node.signal(Signal::TERM)?;
    let status = node.wait().await?;
    let took = began.elapsed();
    ensure!(status.success(), "node {id} ended with {status}");
    node.start()?;
    node.ready().await?;
    cluster.settle().await?;
    Ok(took)
}
