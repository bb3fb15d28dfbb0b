//! Identifiers as distinct types, so that one is never passed for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

id! {
    /// A node of the cluster, chosen by its operator; 1 or more.
    NodeId(u64)
}
id! {
    /// A Raft group: the metadata group is 0, every partition has its own. Never reused.
    GroupId(u64)
}
id! {
    /// One replica of one group on one node: the Raft identity. Allocated by the metadata group and
    /// never reused, because a reused identity with an empty log could vote twice in one term.
    ReplicaId(u64)
}
id! {
    /// Position of a partition in its topic, from 0.
    PartitionId(i32)
}
id! {
    /// Position of a record in its partition: dense, from 0.
    Offset(i64)
}
id! {
    /// The Raft term in which a leader appended; stamped into each batch as Kafka's leader epoch.
    LeaderEpoch(i32)
}
id! {
    /// A producer session; allocated by the metadata group, never reused. -1 means none.
    ProducerId(i64)
}

impl GroupId {
    /// The metadata group, which every node replicates.
    pub const METADATA: Self = Self(0);
}

impl ProducerId {
    /// Not idempotent.
    pub const NONE: Self = Self(-1);
}

/// A topic name and a partition number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<String>, partition: impl Into<PartitionId>) -> Self {
        Self {
            topic: topic.into(),
            partition: partition.into(),
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}
