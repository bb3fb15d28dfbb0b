//! Nodes of one process over loopback: storage, lane, consensus and cluster layer, real files.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "each test file uses its own part; a helper that fails is a test that fails"
)]

use std::{collections::BTreeMap, net::TcpListener, path::Path, sync::Arc, time::Duration};

use seriatim_cluster::{Cluster, ClusterError, ClusterOptions, CreateTopic, LocalState, NoHost};
use seriatim_consensus::{Consensus, ConsensusOptions, Lane};
use seriatim_proto::ids::{NodeId, TopicPartition};
use seriatim_runtime::{
    clock,
    net::Net,
    sim::{self, LinkOptions, SimNet},
    task::TaskGroup,
};
use seriatim_storage::{Storage, StorageOptions, disk::PosixDisk};
use tempfile::TempDir;
use tokio::time::Instant;

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) fn deadline() -> Instant {
    clock::now() + PATIENCE
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = deadline();
    while !condition() {
        assert!(clock::now() < deadline, "not in time: {what}");
        clock::sleep(Duration::from_millis(5)).await;
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) storage: Storage,
    pub(crate) consensus: Consensus,
    tasks: TaskGroup,
}

impl Node {
    pub(crate) async fn start(
        dir: &Path,
        options: ClusterOptions,
        net: Net,
    ) -> Result<Self, ClusterError> {
        let tasks = TaskGroup::new();
        let storage = Storage::open(Arc::new(PosixDisk), dir, StorageOptions::default())
            .expect("open the storage");
        let of_lane = storage.clone();
        let lane = Lane::start(
            net,
            &options.replication_addr,
            options.node_id,
            move || {
                of_lane
                    .identity()
                    .read()
                    .ok()
                    .flatten()
                    .and_then(|identity| identity.cluster_id)
            },
            tasks.clone(),
        )
        .await
        .expect("listen");
        let consensus = Consensus::new(
            ConsensusOptions {
                node_id: options.node_id,
                ..ConsensusOptions::default()
            },
            storage.clone(),
            lane.clone(),
        );
        let cluster = Cluster::start(
            options,
            storage.clone(),
            consensus.clone(),
            lane,
            Arc::new(NoHost),
            tasks.clone(),
        )
        .await?;
        Ok(Self {
            cluster,
            storage,
            consensus,
            tasks,
        })
    }

    pub(crate) async fn stop(self) {
        self.cluster.shutdown().await;
        self.consensus.shutdown().await;
        assert!(self.tasks.shutdown(PATIENCE).await, "tasks ended in time");
        self.storage.shutdown().await;
    }
}

/// Nodes 1 to n with their folders; a node may be down.
pub(crate) struct Nodes {
    pub(crate) dirs: Vec<TempDir>,
    addresses: Vec<String>,
    /// Between hosts `n1` to n, where not over loopback.
    pub(crate) network: Option<SimNet>,
    /// Zero: leaders stay where they are.
    pub(crate) leader_balance: Duration,
    /// Bytes of the metadata log before it is compacted, where not the default.
    pub(crate) metadata_log_bytes: Option<u64>,
    pub(crate) running: BTreeMap<usize, Node>,
}

impl Nodes {
    pub(crate) fn new(count: usize) -> Self {
        // All ports are held at once, so that they differ.
        let listeners: Vec<TcpListener> = (0..count)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses = listeners
            .iter()
            .map(|l| l.local_addr().unwrap().to_string())
            .collect();
        Self {
            dirs: (0..count).map(|_| TempDir::new().unwrap()).collect(),
            addresses,
            network: None,
            leader_balance: Duration::ZERO,
            metadata_log_bytes: None,
            running: BTreeMap::new(),
        }
    }

    /// Nodes between which the network can be cut. All of them run on this thread.
    pub(crate) fn between_cuts(count: usize) -> Self {
        sim::clock::enter(Duration::ZERO);
        Self {
            addresses: (1..=count).map(|node| format!("n{node}:7402")).collect(),
            network: Some(SimNet::new(1, LinkOptions::default())),
            ..Self::new(count)
        }
    }

    fn net(&self, node: usize) -> Net {
        match &self.network {
            Some(network) => network.host(&format!("n{node}")),
            None => Net::tokio(),
        }
    }

    /// Lets no message through between a node and some others.
    pub(crate) fn cut(&self, node: usize, others: &[usize]) {
        let network = self.network.as_ref().unwrap();
        for other in others {
            network.cut(&format!("n{node}"), &format!("n{other}"));
        }
    }

    /// Ends the cut between two nodes.
    pub(crate) fn mend(&self, one: usize, other: usize) {
        let network = self.network.as_ref().unwrap();
        for (from, to) in [(one, other), (other, one)] {
            network.mend_one_way(&format!("n{from}"), &format!("n{to}"));
        }
    }

    /// Ends all cuts.
    pub(crate) fn heal(&self) {
        self.network.as_ref().unwrap().heal();
    }

    pub(crate) fn address(&self, node: usize) -> String {
        self.addresses[node - 1].clone()
    }

    pub(crate) fn options(&self, node: usize) -> ClusterOptions {
        let default = ClusterOptions::default();
        ClusterOptions {
            metadata_log_bytes: self
                .metadata_log_bytes
                .unwrap_or(default.metadata_log_bytes),
            node_id: NodeId(u64::try_from(node).unwrap()),
            seeds: self.addresses.iter().take(3).cloned().collect(),
            replication_addr: self.address(node),
            grpc_addr: format!("127.0.0.1:{node}"),
            leader_balance_interval: self.leader_balance,
            ..default
        }
    }

    pub(crate) async fn start(&mut self, node: usize) {
        let net = self.net(node);
        let started = Node::start(self.dirs[node - 1].path(), self.options(node), net).await;
        let _ = self.running.insert(node, started.unwrap());
    }

    pub(crate) async fn stop(&mut self, node: usize) {
        self.running.remove(&node).expect("running").stop().await;
    }

    pub(crate) async fn start_all(&mut self) {
        for node in 1..=self.dirs.len() {
            self.start(node).await;
        }
        for node in self.running.keys() {
            self.ready(*node).await;
        }
    }

    /// Waits until a running node is ready.
    pub(crate) async fn ready(&self, node: usize) {
        let ready = clock::timeout(PATIENCE, self.cluster(node).ready());
        ready.await.unwrap().unwrap();
    }

    pub(crate) async fn stop_all(&mut self) {
        let nodes = std::mem::take(&mut self.running);
        let _ = futures::future::join_all(nodes.into_values().map(Node::stop)).await;
    }

    pub(crate) fn cluster(&self, node: usize) -> &Cluster {
        &self.running[&node].cluster
    }

    /// The node that leads the metadata group, once one does.
    pub(crate) async fn controller(&self) -> usize {
        let mut found = None;
        eventually("a controller", || {
            found = self.running.values().find_map(|node| {
                node.cluster.controller().filter(|leader| {
                    self.running
                        .contains_key(&usize::try_from(leader.0).unwrap())
                })
            });
            found.is_some()
        })
        .await;
        usize::try_from(found.unwrap().0).unwrap()
    }

    /// Every partition has a leader, every running node knows it, and every replica takes part.
    pub(crate) async fn settled(&self, topic: &str, partitions: i32) {
        for (number, node) in &self.running {
            eventually(&format!("{topic} settled on node {number}"), || {
                let led = (0..partitions).all(|partition| {
                    node.cluster
                        .leader(&TopicPartition::new(topic, partition))
                        .is_some()
                });
                let replicas = node.cluster.local_replicas();
                led && replicas
                    .iter()
                    .all(|replica| replica.state == LocalState::Running)
            })
            .await;
        }
    }
}

pub(crate) fn topic(name: &str, partitions: u32, replicas: u32) -> CreateTopic {
    CreateTopic {
        name: name.to_owned(),
        partitions,
        replication_factor: replicas,
        ..CreateTopic::default()
    }
}
