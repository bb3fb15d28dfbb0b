//! Internal topics: their partitions are placed, replaced and led like any other, but what their logs
//! mean is known to a layer above, the host.

use std::fmt::Debug;

use async_trait::async_trait;
use seriatim_consensus::{Consensus, ConsensusError, Group};
use seriatim_proto::ids::TopicPartition;
use seriatim_storage::LogKey;

/// The topic whose partitions hold the consumer groups.
pub const GROUPS_TOPIC: &str = "__groups";

/// Partitions of [`GROUPS_TOPIC`] that nodes create. A group belongs to the partition that its id hashes to, so this
/// number is part of the format: it can never change for a cluster that has groups.
pub const GROUPS_PARTITIONS: u32 = 8;

/// Whether clients may neither write to the topic nor create it: names that begin with `__`.
pub fn is_internal(topic: &str) -> bool {
    topic.starts_with("__")
}

/// Runs the replicas of internal partitions.
#[async_trait]
pub trait InternalHost: Debug + Send + Sync {
    /// Opens this node's replica of an internal partition, created if absent, and lets it take part
    /// in its group.
    async fn open(
        &self,
        consensus: &Consensus,
        tp: &TopicPartition,
        key: LogKey,
    ) -> Result<Box<dyn Hosted>, ConsensusError>;

    /// Removes what the host keeps of a replica besides its log. Called for every replica whose log
    /// is about to be removed, of internal partitions or not, after it was closed.
    async fn remove(&self, key: LogKey);

    /// How many partitions [`GROUPS_TOPIC`] is created with; the same on every node.
    fn partitions(&self) -> u32 {
        GROUPS_PARTITIONS
    }
}

/// An open replica of an internal partition.
#[async_trait]
pub trait Hosted: Debug + Send + Sync {
    /// Its Raft group.
    fn group(&self) -> &Group;

    /// Stops it; the group is closed on return.
    async fn close(&self);
}

/// The host of a node without internal partitions: it refuses to open any.
#[derive(Debug, Clone, Copy)]
pub struct NoHost;

#[async_trait]
impl InternalHost for NoHost {
    async fn open(
        &self,
        _consensus: &Consensus,
        tp: &TopicPartition,
        _key: LogKey,
    ) -> Result<Box<dyn Hosted>, ConsensusError> {
        let why = format!("nothing on this node runs the internal partition {tp}");
        Err(ConsensusError::Refused(why))
    }

    async fn remove(&self, _key: LogKey) {}
}
