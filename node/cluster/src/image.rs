//! The image: what the metadata group has agreed on, as an immutable value.
//!
//! Every node holds one. A new image is made from the old one and a batch of commands
//! (`apply.rs`); topics are shared between the two, so that a change costs what it touches.

use std::{collections::BTreeMap, sync::Arc};

use seriatim_proto::{
    ids::{GroupId, NodeId, PartitionId, ReplicaId, TopicPartition},
    settings::TopicSettings,
};

/// What the cluster consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Identity of the cluster; empty until it is founded, then never changed.
    pub cluster_id: String,
    /// Every registered node.
    pub nodes: BTreeMap<NodeId, Arc<NodeInfo>>,
    /// Every topic, by name.
    pub topics: BTreeMap<String, Arc<Topic>>,
    /// The next group id. Invariant: above every group id ever given out, so that a group below it
    /// which no topic has was deleted.
    pub next_group: u64,
    /// The next replica id. Invariant: above every replica id ever given out, in any group.
    pub next_replica: u64,
    /// The next producer id. Invariant: above every producer id ever given out.
    pub next_producer_id: u64,
    /// The feature level that commands and formats may use; raised only when every node has it.
    pub feature_level: u32,
}

/// A node of the cluster, as it registered at its last start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// The node.
    pub id: NodeId,
    /// Identity of its data folder. Invariant: when it changes, every replica id of the node has
    /// been replaced in the same command, because the votes behind the old ids are gone.
    pub incarnation: String,
    /// Advertised address of the native API.
    pub grpc_addr: String,
    /// Advertised address of the replication lane.
    pub replication_addr: String,
    /// Advertised address of the HTTP listener.
    pub http_addr: String,
    /// Failure domain; empty where none is configured.
    pub rack: String,
    /// The highest feature level that the node's software knows.
    pub feature_level: u32,
    /// Its replica of the metadata group.
    pub controller_replica: ReplicaId,
    /// Votes in the metadata group; the others learn.
    pub voter: bool,
    /// Version of the software that it runs.
    pub software_version: String,
}

/// A topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topic {
    /// The name.
    pub name: String,
    /// Identity: a topic deleted and created again has another.
    pub id: String,
    /// Replicas of each partition.
    pub replication_factor: u32,
    /// The effective settings.
    pub settings: TopicSettings,
    /// What was set, as text; the rest has its default. Settings that this version does not know
    /// stay here untouched.
    pub overrides: BTreeMap<String, String>,
    /// The partitions, by number.
    pub partitions: Vec<PartitionInfo>,
    /// The request that created the topic.
    pub request_id: String,
}

/// A partition and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its Raft group; never reused.
    pub group: GroupId,
    /// Its replicas; the first is the preferred leader. Invariant: no node occurs twice.
    pub replicas: Vec<Replica>,
    /// The replicas that the group was created with, where they are no longer `replicas`.
    /// Invariant: only founders may initialize the group, and only with this set; a replacement
    /// that did would found a second group beside the first.
    pub founders: Option<Vec<Replica>>,
}

/// One replica of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// The Raft identity; never reused.
    pub id: ReplicaId,
    /// Where it lives.
    pub node: NodeId,
}

impl Image {
    /// A topic's partition.
    pub fn partition(&self, tp: &TopicPartition) -> Option<&PartitionInfo> {
        self.topics.get(&tp.topic)?.partition(tp.partition)
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.get(&id).map(|node| &**node)
    }

    /// Every partition of every topic.
    pub fn partitions(&self) -> impl Iterator<Item = (&Arc<Topic>, PartitionId, &PartitionInfo)> {
        self.topics.values().flat_map(|topic| {
            (0..)
                .map(PartitionId)
                .zip(&topic.partitions)
                .map(move |(number, partition)| (topic, number, partition))
        })
    }

    /// How many replicas each node holds and how many of them are preferred leaders. Every
    /// registered node is listed.
    pub fn load(&self) -> BTreeMap<NodeId, Load> {
        let mut load: BTreeMap<NodeId, Load> =
            self.nodes.keys().map(|&id| (id, Load::default())).collect();
        for (_, _, partition) in self.partitions() {
            for (position, replica) in partition.replicas.iter().enumerate() {
                let node = load.entry(replica.node).or_default();
                node.replicas += 1;
                node.leaders += u64::from(position == 0);
            }
        }
        load
    }
}

impl Topic {
    /// The partition with this number.
    pub fn partition(&self, number: PartitionId) -> Option<&PartitionInfo> {
        self.partitions.get(usize::try_from(number.0).ok()?)
    }
}

impl PartitionInfo {
    /// The replica on this node.
    pub fn replica_on(&self, node: NodeId) -> Option<Replica> {
        self.replicas
            .iter()
            .copied()
            .find(|replica| replica.node == node)
    }

    /// The replicas that the group was created with.
    pub fn founders(&self) -> &[Replica] {
        self.founders.as_deref().unwrap_or(&self.replicas)
    }

    /// Members as the consensus layer wants them.
    pub fn members(replicas: &[Replica]) -> BTreeMap<ReplicaId, NodeId> {
        replicas
            .iter()
            .map(|replica| (replica.id, replica.node))
            .collect()
    }
}

/// How much a node carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Partition replicas.
    pub replicas: u64,
    /// Partitions whose preferred leader it is.
    pub leaders: u64,
}

/// The effective settings of these overrides. Names and values that this version does not know are
/// left out: they were checked by the node that proposed them.
pub fn effective_settings(overrides: &BTreeMap<String, String>) -> TopicSettings {
    let mut settings = TopicSettings::default();
    for (name, value) in overrides {
        if let Err(error) = settings.set(name, value) {
            tracing::debug!(%error, "topic setting of another version left out");
        }
    }
    settings
}
