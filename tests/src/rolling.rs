//! Nodes restarted one after the other, as an operator does it.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::{cluster::Cluster, wait};

/// How long a node may take to catch up.
const LIMIT: Duration = Duration::from_secs(60);
/// Entries that a replica may be behind.
const NEAR: u64 = 100;

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
    back(cluster).await?;
    Ok(took)
}

/// Waits until every replica runs and is next to nothing behind, which is all that there can be while
/// somebody writes.
///
/// # Errors
/// If that is not in time.
pub async fn back(cluster: &Cluster) -> anyhow::Result<()> {
    let admin = cluster.client().await?.admin();
    wait::until("replicas have caught up", LIMIT, async || {
        let status = admin.cluster_status().await?;
        let near = |lag: Option<u64>| lag.is_some_and(|lag| lag <= NEAR);
        let behind = status.partitions.iter().find(|p| {
            p.leader.is_none()
                || p.is_under_replicated()
                || p.replicas.iter().any(|replica| !near(replica.lag))
        });
        match behind {
            Some(partition) => anyhow::bail!("{partition:?}"),
            None => Ok(Some(())),
        }
    })
    .await
}
