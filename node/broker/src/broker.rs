//! The broker of one node.

use std::sync::Arc;

use seriatim_cluster::Cluster;
use seriatim_partition::Partition;
use seriatim_proto::{
    error::ErrorCode,
    ids::{PartitionId, TopicPartition},
    v1,
};
use seriatim_runtime::clock::{self, Instant};
use seriatim_storage::Storage;

use crate::budget::Budget;

/// Limits of one node's broker.
#[derive(Debug, Clone)]
pub struct BrokerLimits {
    /// Most bytes of batches between admission and acknowledgement; default 256 MiB.
    pub append_bytes: usize,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            append_bytes: 256 << 20,
        }
    }
}

/// Serves what clients ask of this node. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Broker {
    pub(crate) cluster: Cluster,
    pub(crate) storage: Storage,
    /// Bytes of batches that are being appended.
    pub(crate) budget: Arc<Budget>,
}

impl Broker {
    /// A broker on this node's part of the cluster.
    pub fn new(cluster: Cluster, storage: Storage, limits: &BrokerLimits) -> Self {
        Self {
            cluster,
            storage,
            budget: Arc::new(Budget::new(limits.append_bytes)),
        }
    }

    /// The cluster as this node sees it.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The node's storage, for figures.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The open partition of that name, or why there is none here.
    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Result<Partition, v1::Error> {
        let tp = TopicPartition::new(topic, PartitionId(partition));
        if let Some(open) = self.cluster.partition(&tp) {
            return Ok(open);
        }
        let image = self.cluster.image();
        let Some(known) = image.topics.get(topic) else {
            return Err(v1::Error::new(
                ErrorCode::UnknownTopic,
                format!("there is no topic '{topic}'; create it first"),
            ));
        };
        if known.partition(tp.partition).is_none() {
            return Err(v1::Error::new(
                ErrorCode::UnknownPartition,
                format!(
                    "topic '{topic}' has partitions 0 to {}, not {partition}",
                    known.partitions.len().saturating_sub(1)
                ),
            ));
        }
        Err(self.not_leader(&tp))
    }

    /// "Ask the leader", with where it is, if that is known.
    pub(crate) fn not_leader(&self, tp: &TopicPartition) -> v1::Error {
        let me = self.cluster.node_id();
        let leader = self.cluster.leader(tp).filter(|leader| leader.node != me);
        let Some(leader) = leader else {
            return v1::Error::new(
                ErrorCode::LeaderNotAvailable,
                format!("partition {tp} has no leader at the moment; try again shortly"),
            );
        };
        let address = self
            .cluster
            .image()
            .node(leader.node)
            .map(|node| node.grpc_addr.clone())
            .unwrap_or_default();
        let mut error = v1::Error::new(
            ErrorCode::NotLeader,
            format!(
                "partition {tp} is led by node {} at {address}; ask it",
                leader.node
            ),
        );
        error.leader = Some(v1::LeaderHint {
            node_id: leader.node.0,
            grpc_address: address,
            leader_epoch: leader.epoch.0,
        });
        error
    }
}

/// The point in time `ms` from now, at most five minutes; `default_ms` where a request names none.
pub(crate) fn deadline(ms: u32, default_ms: u32) -> Instant {
    let ms = if ms == 0 { default_ms } else { ms };
    let ms = ms.min(seriatim_proto::limits::MAX_WAIT_MS);
    clock::now() + std::time::Duration::from_millis(u64::from(ms))
}
