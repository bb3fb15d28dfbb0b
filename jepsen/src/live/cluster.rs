//! The nodes of a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::Context as _;
use parking_lot::{Mutex as SyncMutex, RwLock};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::node::Node;

/// A node that one task at a time does something to.
type Shared = Arc<Mutex<Node>>;

/// The process id of a node, 0 while it does not run.
type Processes = BTreeMap<u64, Arc<AtomicU32>>;

/// All nodes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Cluster {
    nodes: Arc<RwLock<BTreeMap<u64, Shared>>>,
    pids: Arc<RwLock<Processes>>,
    claims: Arc<SyncMutex<BTreeSet<u64>>>,
    /// Nodes whose process may end by itself at present.
    excused: Arc<SyncMutex<BTreeSet<u64>>>,
    /// Nodes on whose disks bits flipped, some of which nobody may have read since.
    rotten: Arc<SyncMutex<BTreeSet<u64>>>,
}

/// Nodes that one fault has to itself, until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    nodes: Vec<u64>,
    claims: Arc<SyncMutex<BTreeSet<u64>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.claims.lock();
        claims.retain(|node| !self.nodes.contains(node));
    }
}

impl Cluster {
    /// One more node.
    pub(super) fn add(&self, node: Node) {
        let id = node.spec.id;
        let _before = self.pids.write().insert(id, node.pid());
        let node = Arc::new(Mutex::new(node));
        let _before = self.nodes.write().insert(id, node);
    }

    /// These nodes, if no other fault has any of them.
    pub(super) fn claim(&self, nodes: &[u64]) -> Option<Claim> {
        let mut claims = self.claims.lock();
        if nodes.iter().any(|node| claims.contains(node)) {
            return None;
        }
        claims.extend(nodes);
        Some(Claim {
            nodes: nodes.to_vec(),
            claims: Arc::clone(&self.claims),
        })
    }

    /// Whether a node may end by itself from now on.
    pub(super) fn excuse(&self, node: u64, excused: bool) {
        let mut all = self.excused.lock();
        let _changed = if excused {
            all.insert(node)
        } else {
            all.remove(&node)
        };
    }

    /// Bits flipped on the disk of a node.
    pub(super) fn note_rot(&self, node: u64) {
        let _new = self.rotten.lock().insert(node);
    }

    /// Whether bits ever flipped on the disk of a node.
    pub(super) fn is_rotten(&self, node: u64) -> bool {
        self.rotten.lock().contains(&node)
    }

    /// Nodes and their processes, of those that run.
    pub(super) fn pids(&self) -> Vec<(u64, u32)> {
        let pids = self.pids.read();
        let all = pids
            .iter()
            .map(|(&node, pid)| (node, pid.load(Ordering::Relaxed)));
        all.filter(|&(_, pid)| pid != 0).collect()
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
                && !self.excused.lock().contains(&node.spec.id)
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
