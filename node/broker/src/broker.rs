//! The broker of one node.

use std::sync::Arc;

use seriatim_cluster::{Cluster, is_internal};
use seriatim_groups::Groups;
use seriatim_partition::Partition;
use seriatim_proto::{
    error::ErrorCode,
    ids::{GroupId, LeaderEpoch, NodeId, PartitionId, TopicPartition},
    v1,
};
use seriatim_runtime::{
    clock::{self, Instant},
    hit,
};
use seriatim_storage::Storage;
use tokio_util::sync::CancellationToken;

use crate::{budget::Budget, metrics::Metrics};

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
    pub(crate) groups: Groups,
    pub(crate) storage: Storage,
    /// Bytes of batches that are being appended.
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: Arc<Metrics>,
    stopping: CancellationToken,
}

impl Broker {
    /// A broker on this node's part of the cluster.
    pub fn new(cluster: Cluster, groups: Groups, storage: Storage, limits: &BrokerLimits) -> Self {
        Self {
            cluster,
            groups,
            storage,
            budget: Arc::new(Budget::new(limits.append_bytes)),
            metrics: Arc::new(Metrics::new()),
            stopping: CancellationToken::new(),
        }
    }

    /// The node is about to stop: streams that clients hold end, once what is under way is answered.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Returns once the node is about to stop.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
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
        self.partition_of(topic, partition, ANY_LOG)
    }

    /// The same, only if the partition's log is the one that is meant: a topic that is created under the
    /// name of one that was deleted has others.
    pub(crate) fn partition_of(
        &self,
        topic: &str,
        partition: i32,
        log_id: u64,
    ) -> Result<Partition, v1::Error> {
        let tp = TopicPartition::new(topic, PartitionId(partition));
        let meant = |group: GroupId| log_id == ANY_LOG || group.0 == log_id;
        // The last one may still be open where the new one is in the image, and the other way round.
        let open = self.cluster.partition(&tp);
        if let Some(open) = open.filter(|open| meant(open.group().key().group)) {
            return Ok(open);
        }
        if is_internal(topic) {
            return Err(v1::Error::new(
                ErrorCode::InvalidRequest,
                format!("topic '{topic}' is internal: it is neither read nor written by clients"),
            ));
        }
        // Looked at before the image is: that of a ready node is complete.
        let ready = self.cluster.is_ready();
        let image = self.cluster.image();
        if !image.partition(&tp).is_some_and(|info| meant(info.group)) && log_id != ANY_LOG {
            return Err(other_log(topic, log_id >= image.next_group));
        }
        let Some(known) = image.topics.get(topic) else {
            if !ready {
                return Err(v1::Error::new(
                    ErrorCode::ReplicaUnavailable,
                    format!(
                        "this node has just started and may not have heard of topic '{topic}' \
                         yet; try again shortly"
                    ),
                ));
            }
            return Err(v1::Error::new(
                ErrorCode::UnknownTopic,
                format!("there is no topic '{topic}'; create it first"),
            ));
        };
        let Some(info) = known.partition(tp.partition) else {
            return Err(v1::Error::new(
                ErrorCode::UnknownPartition,
                format!(
                    "topic '{topic}' has partitions 0 to {}, not {partition}",
                    known.partitions.len().saturating_sub(1)
                ),
            ));
        };
        let me = self.cluster.node_id();
        let led_elsewhere = self.cluster.leader(&tp).is_some_and(|it| it.node != me);
        if info.replica_on(me).is_some() && !led_elsewhere {
            return Err(v1::Error::new(
                ErrorCode::ReplicaUnavailable,
                format!(
                    "partition {tp} is being opened or rebuilt on this node; try again shortly"
                ),
            ));
        }
        Err(self.not_leader(&tp, None))
    }

    /// "Ask the leader", with where it is, if that is known: to this partition's replica or to the
    /// cluster layer, which also hears of partitions that are not on this node.
    pub(crate) fn not_leader(&self, tp: &TopicPartition, leader: Option<NodeId>) -> v1::Error {
        hit!("broker.not-leader");
        let me = self.cluster.node_id();
        let heard = self.cluster.leader(tp);
        // The replica knows first; its epoch is the one heard of only if the two agree.
        let leader = match (leader, heard) {
            (Some(node), Some(heard)) if heard.node == node => Some((node, heard.epoch)),
            (Some(node), _) => Some((node, LeaderEpoch::default())),
            (None, heard) => heard.map(|heard| (heard.node, heard.epoch)),
        };
        let Some((node, epoch)) = leader.filter(|(node, _)| *node != me) else {
            return v1::Error::new(
                ErrorCode::LeaderNotAvailable,
                format!("partition {tp} has no leader at the moment; try again shortly"),
            );
        };
        let image = self.cluster.image();
        let address = image.grpc_addr(node);
        let text = match address {
            Some(address) => format!("partition {tp} is led by node {node} at {address}; ask it"),
            None => format!(
                "partition {tp} is led by node {node}, whose address this node has not heard of yet; \
                 ask another node"
            ),
        };
        let mut error = v1::Error::new(ErrorCode::NotLeader, text);
        error.leader = Some(v1::LeaderHint {
            node_id: node.0,
            grpc_address: address.unwrap_or_default().to_owned(),
            leader_epoch: epoch.0,
            log_id: image.partition(tp).map_or(ANY_LOG, |info| info.group.0),
        });
        error
    }
}

/// What a request says that does not care which log a partition has.
const ANY_LOG: u64 = 0;

/// A node does not have the log that is meant under that name: it is `ahead` of what the node has heard,
/// or the topic was deleted, because the ids of logs are given out in order, and once.
fn other_log(topic: &str, ahead: bool) -> v1::Error {
    if ahead {
        return v1::Error::new(
            ErrorCode::ReplicaUnavailable,
            format!("this node has not heard of this topic '{topic}' yet; try again shortly"),
        );
    }
    hit!("broker.topic-deleted");
    v1::Error::new(
        ErrorCode::TopicDeleted,
        format!(
            "the topic '{topic}' that is meant was deleted; if there is another one of its name, \
             ask for its partitions"
        ),
    )
}

/// The point in time `ms` from now, at most five minutes; `default_ms` where a request names none.
pub(crate) fn deadline(ms: u32, default_ms: u32) -> Instant {
    let ms = if ms == 0 { default_ms } else { ms };
    let ms = ms.min(seriatim_proto::limits::MAX_WAIT_MS);
    clock::now() + std::time::Duration::from_millis(u64::from(ms))
}
