//! The nodes of a run.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use parking_lot::RwLock;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::node::Node;

/// A node that one task at a time does something to.
type Shared = Arc<Mutex<Node>>;

/// All nodes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Cluster {
    nodes: Arc<RwLock<BTreeMap<u64, Shared>>>,
}

impl Cluster {
    /// One more node.
    pub(super) fn add(&self, node: Node) {
        let id = node.spec.id;
        let node = Arc::new(Mutex::new(node));
        let _before = self.nodes.write().insert(id, node);
    }

    /// Their ids.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.nodes.read().keys().copied().collect()
    }

    fn all(&self) -> Vec<Shared> {
        self.nodes.read().values().cloned().collect()
    }

    /// A node, for as long as nobody else may do something to it.
    pub(super) async fn node(&self, id: u64) -> anyhow::Result<OwnedMutexGuard<Node>> {
        let node = self.nodes.read().get(&id).cloned();
        let node = node.with_context(|| format!("there is no node {id}"))?;
        Ok(node.lock_owned().await)
    }

    /// Starts every node that does not run.
    pub(super) async fn start_all(&self) -> anyhow::Result<()> {
        for node in self.all() {
            let mut node = node.lock().await;
            if !node.is_running() {
                node.start()?;
            }
        }
        Ok(())
    }

    /// Waits until every node that runs is part of the cluster.
    pub(super) async fn ready_all(&self) -> anyhow::Result<()> {
        for node in self.all() {
            let mut node = node.lock().await;
            if node.is_running() {
                node.ready().await?;
            }
        }
        Ok(())
    }

    /// Stops every node that runs, all at once.
    pub(super) async fn stop_all(&self) -> anyhow::Result<()> {
        let stops = self.all().into_iter().map(async |node| {
            let mut node = node.lock().await;
            if node.is_running() {
                node.stop().await?;
            }
            anyhow::Ok(())
        });
        let _all = futures::future::try_join_all(stops).await?;
        Ok(())
    }

    /// The nodes that nobody does anything to and whose process has ended all the same.
    pub(super) fn gone(&self) -> Vec<(u64, String)> {
        let mut gone = Vec::new();
        for node in self.all() {
            if let Ok(mut node) = node.try_lock()
                && let Some(status) = node.gone()
            {
                gone.push((node.spec.id, status.to_string()));
            }
        }
        gone
    }

    /// Where clients find the nodes.
    pub(super) async fn servers(&self) -> String {
        let mut servers: Vec<SocketAddr> = Vec::new();
        for node in self.all() {
            servers.push(node.lock().await.spec.advertise.grpc);
        }
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        servers.join(",")
    }

    /// Id and data folder of each node.
    pub(super) async fn folders(&self) -> Vec<(u64, PathBuf)> {
        let mut folders = Vec::new();
        for node in self.all() {
            let node = node.lock().await;
            folders.push((node.spec.id, node.spec.data.clone()));
        }
        folders
    }

    /// Id and log of each node.
    pub(super) async fn logs(&self) -> Vec<(u64, PathBuf)> {
        let mut logs = Vec::new();
        for node in self.all() {
            let node = node.lock().await;
            logs.push((node.spec.id, Path::to_owned(node.log())));
        }
        logs
    }
}
