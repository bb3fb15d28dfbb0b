//! The image: what the metadata group has agreed on, as an immutable value.
//!
//! Every node holds one. A new image is made from the old one and a batch of commands
//! (`apply.rs`); topics are shared between the two, so that a change costs what it touches.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use seriatim_proto::{
    ids::{GroupId, NodeId, PartitionId, ReplicaId, TopicPartition},
    settings::TopicSettings,
};

/// How many deleted topics leave a trace.
pub const DELETED_REQUESTS: usize = 128;

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
    /// The requests that created the topics that were deleted last, the latest last. One of these that
    /// arrives once more would bring its topic back. Invariant: at most [`DELETED_REQUESTS`].
    pub deleted_requests: VecDeque<String>,
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
    /// Gets no new replicas and gives away those that it has.
    pub leaving: bool,
    /// When it came back without its data, in ms since the Unix epoch by its own clock; 0 for never.
    pub data_lost_ms: u64,
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
///
/// A move has two ends, `replicas` and `target`. The nodes of both have the log from the moment that
/// the move is decided until the partition's leader has said that the members of the group are those
/// of the target: then the target becomes `replicas`, and what is in neither list loses its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its Raft group; never reused.
    pub group: GroupId,
    /// Its replicas; the first is the preferred leader. Invariant: no node occurs twice.
    pub replicas: Vec<Replica>,
    /// The replicas that the group was created with, where they are no longer `replicas`.
    /// Invariant: only founders may initialize the group, and only with this set; a replacement
    /// that did would found a second group beside the first.
    pub founders: Option<Vec<Replica>>,
    /// Where the partition is moving to, the preferred leader first. Invariants: no node occurs twice;
    /// a node that is in `replicas` too has the same replica id in both.
    pub target: Option<Vec<Replica>>,
    /// The move was turned round: it goes back to where it came from.
    pub returning: bool,
    /// How often a move was begun or turned round; counted from feature level 3 on. Tells moves apart that
    /// have the same replicas.
    pub moves: u64,
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

    /// Where a node's native API is. `None` where this image does not tell: others hear from a node before
    /// their image has it, and founders are in the image before they register.
    pub fn grpc_addr(&self, id: NodeId) -> Option<&str> {
        let address = self.node(id).map(|node| node.grpc_addr.as_str());
        address.filter(|address| !address.is_empty())
    }

    /// The nodes that may get replicas.
    pub fn staying(&self) -> impl Iterator<Item = &Arc<NodeInfo>> {
        self.nodes.values().filter(|node| !node.leaving)
    }

    /// Whether a partition has, or is to get, a replica on this node.
    pub fn holds_replicas(&self, node: NodeId) -> bool {
        self.partitions()
            .any(|(_, _, partition)| partition.replica_on(node).is_some())
    }

    /// The topic and the number of a group's partition.
    pub fn find_group(&self, group: GroupId) -> Option<(&Arc<Topic>, PartitionId)> {
        let mut all = self.partitions();
        let found = all.find(|(_, _, partition)| partition.group == group);
        found.map(|(topic, number, _)| (topic, number))
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

    /// How many replicas each node holds and how many of them are preferred leaders, once all moves
    /// are finished. Every registered node is listed.
    pub fn load(&self) -> BTreeMap<NodeId, Load> {
        let mut load: BTreeMap<NodeId, Load> =
            self.nodes.keys().map(|&id| (id, Load::default())).collect();
        for (_, _, partition) in self.partitions() {
            for (position, replica) in partition.goal().iter().enumerate() {
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
    /// The replica on this node, at either end of a move.
    pub fn replica_on(&self, node: NodeId) -> Option<Replica> {
        self.hosted().find(|replica| replica.node == node)
    }

    /// Every replica that has a log: those of both ends of a move, each once.
    pub fn hosted(&self) -> impl Iterator<Item = Replica> {
        let target = self.target.iter().flatten();
        let new = target.filter(|replica| !self.replicas.contains(replica));
        self.replicas.iter().chain(new).copied()
    }

    /// The replicas that there shall be.
    pub fn goal(&self) -> &[Replica] {
        self.target.as_deref().unwrap_or(&self.replicas)
    }

    /// Whether the replicas are being moved.
    pub const fn is_moving(&self) -> bool {
        self.target.is_some()
    }

    /// The nodes of the goal, the preferred leader first.
    pub fn goal_nodes(&self) -> Vec<NodeId> {
        self.goal().iter().map(|replica| replica.node).collect()
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
