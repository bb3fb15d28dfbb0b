//! Commands of the metadata group and their answers, as values and as bytes.
//!
//! A command carries the version it needs. A node that does not know the version, or finds no
//! command it can read, refuses it with [`Refusal::UnknownCommand`]: the same answer on every
//! replica of that software, no change and no panic.

use bytes::Bytes;
use prost::Message as _;
use seriatim_proto::{
    ids::{GroupId, NodeId, ReplicaId},
    internal::v1 as wire,
};

use crate::image::Image;

use wire::{meta_command::Command as Kind, meta_reply::Reply as ReplyKind};

/// The newest command version that this software applies.
pub const COMMAND_VERSION: u32 = 2;

/// The feature level of this software: what every node must have before a newer command or format
/// is proposed.
///
/// | level | what came with it |
/// |---|---|
/// | 1 | topics, nodes, replicas |
/// | 2 | moves of replicas, nodes that leave, more partitions; logs that do not begin at 0 |
/// | 3 | moves are counted; requests that created deleted topics are remembered |
pub const FEATURE_LEVEL: u32 = 3;

/// The feature level from which on replicas move.
pub(crate) const MOVES_LEVEL: u32 = 2;

/// The feature level from which on the moves of a partition are counted.
pub(crate) const MOVES_COUNTED_LEVEL: u32 = 3;

/// The feature level from which on it is remembered which requests created topics that were deleted.
pub(crate) const DELETED_REQUESTS_LEVEL: u32 = 3;

/// The feature level from which on a partition's log may say where its records begin.
pub const LOG_START_LEVEL: u32 = 2;

/// Most producer ids handed out at once.
pub const MAX_PRODUCER_BLOCK: u32 = 100_000;

/// The version that a command came with, which is also the feature level that every node must have
/// before it may be proposed.
pub(crate) const fn version(command: &Kind) -> u32 {
    match command {
        Kind::FoundCluster(_)
        | Kind::RegisterNode(_)
        | Kind::CreateTopic(_)
        | Kind::DeleteTopic(_)
        | Kind::AlterTopic(_)
        | Kind::AllocateProducerIds(_)
        | Kind::ReplaceReplica(_) => 1,
        Kind::MovePartitions(_)
        | Kind::FinishMove(_)
        | Kind::CancelMove(_)
        | Kind::SetLeaving(_)
        | Kind::RemoveNode(_)
        | Kind::SetControllers(_)
        | Kind::AddPartitions(_) => 2,
    }
}

/// A command with its version.
pub(crate) fn versioned(command: Kind) -> wire::MetaCommand {
    wire::MetaCommand {
        version: version(&command),
        command: Some(command),
    }
}

/// Encodes a command for the log.
pub(crate) fn encode(command: Kind) -> Bytes {
    versioned(command).encode_to_vec().into()
}

/// Whether every node understands a command of this version.
pub(crate) fn allowed(image: &Image, version: u32) -> Result<(), Refusal> {
    let old = image.nodes.values().find(|n| n.feature_level < version);
    match old {
        Some(node) if version > 1 => Err(Refusal::TooOld {
            node: node.id,
            level: node.feature_level,
            needed: version,
        }),
        _ => Ok(()),
    }
}

/// Reads a command from the log.
pub(crate) fn decode(bytes: &[u8]) -> Result<Kind, Refusal> {
    let unknown = |version| Refusal::UnknownCommand { version };
    match wire::MetaCommand::decode(bytes) {
        Ok(command) if command.version > COMMAND_VERSION => Err(unknown(command.version)),
        Ok(command) => command.command.ok_or_else(|| unknown(command.version)),
        Err(error) => {
            tracing::error!(%error, "unreadable command in the metadata log");
            Err(unknown(0))
        }
    }
}

/// Why the metadata group did not do what was asked. Decided while the command is applied, thus the
/// same on every node; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A command of another version.
    #[error(
        "this version of seriatim does not know a command of version {version}; upgrade every node"
    )]
    UnknownCommand {
        /// The command's version, 0 where unreadable.
        version: u32,
    },
    /// The name is taken.
    #[error("topic '{name}' exists already")]
    TopicExists {
        /// The topic.
        name: String,
    },
    /// No such topic.
    #[error("there is no topic '{name}'")]
    UnknownTopic {
        /// The topic.
        name: String,
    },
    /// The topic that was meant is gone, and there is another one of its name.
    #[error("topic '{name}' was deleted, and there is another one of its name")]
    OtherTopic {
        /// The name.
        name: String,
        /// The identity of the one that there is.
        topic_id: String,
    },
    /// The request has created its topic, which was deleted since.
    #[error("topic '{name}' was created by this request and deleted since")]
    CreatedAndDeleted {
        /// The name.
        name: String,
    },
    /// Two names that would be one metric name.
    #[error("the name collides with topic '{name}': names must differ in more than '.' and '_'")]
    NameCollision {
        /// The topic that is there.
        name: String,
    },
    /// Fewer nodes than replicas.
    #[error(
        "{wanted} replicas need {wanted} nodes, {have} registered; start more nodes or lower \
         the replication factor"
    )]
    NotEnoughNodes {
        /// Replicas asked for.
        wanted: u64,
        /// Nodes there are.
        have: u64,
    },
    /// A node that never registered.
    #[error("node {node} is not registered in this cluster")]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// Another data folder under a node id that is in use at another address.
    #[error(
        "node id {node} belongs to the node at {address}, which has another data folder; \
         give this node an id of its own"
    )]
    NodeIdTaken {
        /// The node.
        node: NodeId,
        /// Where the registered node lives.
        address: String,
    },
    /// The replica is not, or no longer, part of the group.
    #[error("group {group} has no replica {replica}")]
    UnknownReplica {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// The cluster was founded before.
    #[error("the cluster was founded already, as {cluster_id}")]
    AlreadyFounded {
        /// Its identity.
        cluster_id: String,
    },
    /// The first command, which founds the cluster, has not been applied yet.
    #[error("the cluster is being founded; try again")]
    NotFounded,
    /// The partition is being moved already.
    #[error(
        "partition {partition} of topic '{topic}' is being moved: wait until that is done, or take \
         it back with 'seriatim topic reassign --cancel'"
    )]
    Moving {
        /// Its topic.
        topic: String,
        /// Its number.
        partition: u64,
    },
    /// No such partition.
    #[error("topic '{topic}' has no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The number.
        partition: u64,
    },
    /// The partitions of a topic cannot become fewer.
    #[error(
        "topic '{topic}' has {have} partitions: their number can only grow, because records of a \
         partition that is taken away would be lost"
    )]
    FewerPartitions {
        /// The topic.
        topic: String,
        /// Partitions that it has.
        have: u64,
    },
    /// The node gives its replicas away.
    #[error(
        "node {node} is being decommissioned and gets no replicas; name another, or take that back \
         with 'seriatim cluster decommission {node} --cancel'"
    )]
    NodeLeaving {
        /// The node.
        node: NodeId,
    },
    /// The node cannot be removed: it does not leave, or holds something.
    #[error("node {node} still is a part of the cluster: decommission it first")]
    NodeInUse {
        /// The node.
        node: NodeId,
    },
    /// The planner saw an older image; it plans again.
    #[error("the cluster changed meanwhile; try again")]
    Outdated,
    /// A node's software is too old for this.
    #[error(
        "node {node} runs a version of seriatim that does not know this (feature level {level}, \
         needed is {needed}); upgrade it first"
    )]
    TooOld {
        /// The node.
        node: NodeId,
        /// What it knows.
        level: u32,
        /// What it would have to know.
        needed: u32,
    },
    /// A command without a sensible content.
    #[error("malformed command: {what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
}

impl From<Refusal> for wire::Refusal {
    fn from(refusal: Refusal) -> Self {
        let mut topic = String::new();
        let (kind, name, first, second) = match refusal {
            Refusal::UnknownCommand { version } => (1, String::new(), u64::from(version), 0),
            Refusal::TopicExists { name } => (2, name, 0, 0),
            Refusal::UnknownTopic { name } => (3, name, 0, 0),
            Refusal::NameCollision { name } => (4, name, 0, 0),
            Refusal::NotEnoughNodes { wanted, have } => (5, String::new(), wanted, have),
            Refusal::UnknownNode { node } => (6, String::new(), node.0, 0),
            Refusal::NodeIdTaken { node, address } => (7, address, node.0, 0),
            Refusal::UnknownReplica { group, replica } => (8, String::new(), group.0, replica.0),
            Refusal::AlreadyFounded { cluster_id } => (9, cluster_id, 0, 0),
            Refusal::NotFounded => (11, String::new(), 0, 0),
            Refusal::Moving { topic, partition } => (12, topic, partition, 0),
            Refusal::UnknownPartition { topic, partition } => (13, topic, partition, 0),
            Refusal::FewerPartitions { topic, have } => (14, topic, have, 0),
            Refusal::NodeLeaving { node } => (15, String::new(), node.0, 0),
            Refusal::NodeInUse { node } => (16, String::new(), node.0, 0),
            Refusal::Outdated => (17, String::new(), 0, 0),
            Refusal::TooOld {
                node,
                level,
                needed,
            } => (18, needed.to_string(), node.0, u64::from(level)),
            Refusal::OtherTopic { name, topic_id } => {
                topic = topic_id;
                (19, name, 0, 0)
            }
            Refusal::CreatedAndDeleted { name } => (20, name, 0, 0),
            Refusal::Malformed { what } => (10, what, 0, 0),
        };
        Self {
            kind,
            name,
            first,
            second,
            topic_id: topic,
        }
    }
}

impl From<wire::Refusal> for Refusal {
    fn from(refusal: wire::Refusal) -> Self {
        let wire::Refusal {
            kind,
            name,
            first,
            second,
            topic_id,
        } = refusal;
        match kind {
            1 => Self::UnknownCommand {
                version: u32::try_from(first).unwrap_or(u32::MAX),
            },
            2 => Self::TopicExists { name },
            3 => Self::UnknownTopic { name },
            4 => Self::NameCollision { name },
            5 => Self::NotEnoughNodes {
                wanted: first,
                have: second,
            },
            6 => Self::UnknownNode {
                node: NodeId(first),
            },
            7 => Self::NodeIdTaken {
                node: NodeId(first),
                address: name,
            },
            8 => Self::UnknownReplica {
                group: GroupId(first),
                replica: ReplicaId(second),
            },
            9 => Self::AlreadyFounded { cluster_id: name },
            11 => Self::NotFounded,
            12 => Self::Moving {
                topic: name,
                partition: first,
            },
            13 => Self::UnknownPartition {
                topic: name,
                partition: first,
            },
            14 => Self::FewerPartitions {
                topic: name,
                have: first,
            },
            15 => Self::NodeLeaving {
                node: NodeId(first),
            },
            16 => Self::NodeInUse {
                node: NodeId(first),
            },
            17 => Self::Outdated,
            18 => Self::TooOld {
                node: NodeId(first),
                level: u32::try_from(second).unwrap_or(u32::MAX),
                needed: name.parse().unwrap_or(u32::MAX),
            },
            19 => Self::OtherTopic { name, topic_id },
            20 => Self::CreatedAndDeleted { name },
            10 => Self::Malformed { what: name },
            other => Self::Malformed {
                what: format!("refused by a newer controller for reason {other} ({name})"),
            },
        }
    }
}

/// Encodes what a command answered.
pub(crate) fn encode_reply(reply: Result<ReplyKind, Refusal>) -> wire::MetaReply {
    let reply = reply.unwrap_or_else(|refusal| ReplyKind::Refused(refusal.into()));
    wire::MetaReply {
        reply: Some(reply),
        index: 0,
    }
}

/// Splits an answer into what was done and why it was not.
pub(crate) fn decode_reply(reply: wire::MetaReply) -> Result<ReplyKind, Refusal> {
    match reply.reply {
        Some(ReplyKind::Refused(refusal)) => Err(refusal.into()),
        Some(done) => Ok(done),
        None => Err(Refusal::Malformed {
            what: "an answer of a newer controller".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_survive_the_wire() {
        let all = [
            Refusal::UnknownCommand { version: 9 },
            Refusal::TopicExists { name: "a".into() },
            Refusal::UnknownTopic { name: "b".into() },
            Refusal::NameCollision { name: "c".into() },
            Refusal::NotEnoughNodes { wanted: 3, have: 1 },
            Refusal::UnknownNode { node: NodeId(4) },
            Refusal::NodeIdTaken {
                node: NodeId(4),
                address: "x:1".into(),
            },
            Refusal::UnknownReplica {
                group: GroupId(1),
                replica: ReplicaId(2),
            },
            Refusal::AlreadyFounded {
                cluster_id: "u".into(),
            },
            Refusal::Moving {
                topic: "m".into(),
                partition: 5,
            },
            Refusal::UnknownPartition {
                topic: "p".into(),
                partition: 6,
            },
            Refusal::FewerPartitions {
                topic: "f".into(),
                have: 7,
            },
            Refusal::NodeLeaving { node: NodeId(8) },
            Refusal::NodeInUse { node: NodeId(9) },
            Refusal::Outdated,
            Refusal::TooOld {
                node: NodeId(10),
                level: 1,
                needed: 2,
            },
            Refusal::OtherTopic {
                name: "o".into(),
                topic_id: "u".into(),
            },
            Refusal::CreatedAndDeleted { name: "d".into() },
            Refusal::Malformed { what: "w".into() },
        ];
        for refusal in all {
            let wire = wire::Refusal::from(refusal.clone());
            assert_eq!(Refusal::from(wire), refusal);
        }
    }

    #[test]
    fn unknown_commands_are_refused() {
        let newer = wire::MetaCommand {
            version: COMMAND_VERSION + 1,
            command: Some(Kind::DeleteTopic(wire::DeleteTopic::default())),
        };
        let refused = Err(Refusal::UnknownCommand {
            version: COMMAND_VERSION + 1,
        });
        assert_eq!(decode(&newer.encode_to_vec()), refused);
        // Field 99 is no command of this version.
        assert_eq!(
            decode(&[8, 1, 0x9a, 0x06, 0]),
            Err(Refusal::UnknownCommand { version: 1 })
        );
        assert_eq!(
            decode(&[0xff; 9]),
            Err(Refusal::UnknownCommand { version: 0 })
        );
    }
}
