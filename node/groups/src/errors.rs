//! Errors of the groups as clients see them.

use seriatim_cluster::{Cluster, GROUPS_TOPIC};
use seriatim_consensus::ProposeError;
use seriatim_proto::{
    error::ErrorCode,
    ids::{NodeId, PartitionId, TopicPartition},
    v1,
};
use seriatim_runtime::mutant::{self, Mutant};

use crate::propose::Failure;

/// The internal partition of a shard.
pub(crate) fn partition(shard: u32) -> TopicPartition {
    let number = i32::try_from(shard).unwrap_or(i32::MAX);
    TopicPartition::new(GROUPS_TOPIC, PartitionId(number))
}

/// "Ask the coordinator", with where it is; or that there is none at the moment.
pub(crate) fn not_coordinator(cluster: &Cluster, shard: u32) -> v1::Error {
    let me = cluster.node_id();
    let leader = cluster.leader(&partition(shard));
    let Some(leader) = leader.filter(|leader| leader.node != me) else {
        return no_leader(cluster, shard);
    };
    let image = cluster.image();
    let address = image.grpc_addr(leader.node);
    let text = match address {
        Some(address) => format!(
            "the group is coordinated by node {} at {address}; ask it",
            leader.node
        ),
        None => format!("the group is coordinated by {}", unknown(leader.node)),
    };
    let mut error = v1::Error::new(ErrorCode::NotCoordinator, text);
    error.leader = Some(v1::LeaderHint {
        node_id: leader.node.0,
        grpc_address: address.unwrap_or_default().to_owned(),
        leader_epoch: leader.epoch.0,
        ..v1::LeaderHint::default()
    });
    error
}

/// The shard has no leader, or its leader no majority.
pub(crate) fn no_leader(cluster: &Cluster, shard: u32) -> v1::Error {
    let text = if cluster.image().topics.contains_key(GROUPS_TOPIC) {
        format!(
            "the group's partition {} has no leader at the moment; try again shortly",
            partition(shard)
        )
    } else {
        "there are no groups yet; ask for the coordinator first, which makes their partitions"
            .to_owned()
    };
    v1::Error::new(ErrorCode::LeaderNotAvailable, text)
}

fn unknown(node: NodeId) -> String {
    format!("node {node}, whose address this node has not heard of yet; ask another node")
}

/// Who coordinates a group, or that this node cannot tell.
pub(crate) fn coordinator(cluster: &Cluster, group: &str, shard: u32) -> v1::Coordinator {
    let image = cluster.image();
    let found = match cluster.leader(&partition(shard)) {
        None => Err(no_leader(cluster, shard)),
        Some(leader) => match image.grpc_addr(leader.node) {
            Some(address) => Ok((leader.node, address)),
            None if mutant::on(Mutant::CoordinatorWithoutAddress) => Ok((leader.node, "")),
            None => {
                let text = format!("the group is coordinated by {}", unknown(leader.node));
                Err(v1::Error::new(ErrorCode::LeaderNotAvailable, text))
            }
        },
    };
    let group = group.to_owned();
    match found {
        Ok((node, address)) => v1::Coordinator {
            group,
            error: None,
            node_id: node.0,
            grpc_address: address.to_owned(),
        },
        Err(error) => v1::Coordinator {
            group,
            error: Some(error),
            ..v1::Coordinator::default()
        },
    }
}

/// The request cannot be carried out as it is.
pub(crate) fn invalid(text: impl Into<String>) -> v1::Error {
    v1::Error::new(ErrorCode::InvalidRequest, text)
}

pub(crate) fn starting() -> v1::Error {
    v1::Error::new(
        ErrorCode::LeaderNotAvailable,
        "this node is starting; try again shortly",
    )
}

pub(crate) fn overloaded() -> v1::Error {
    v1::Error::new(
        ErrorCode::Overloaded,
        "more members join this group than the node can hold in memory; try again shortly",
    )
}

/// A command's failure.
pub(crate) fn failed(cluster: &Cluster, shard: u32, group: &str, failure: &Failure) -> v1::Error {
    match failure {
        Failure::Refused(refusal) => refusal.to_error(group),
        Failure::Proposal(ProposeError::NotLeader { maybe_applied, .. }) => {
            let mut error = not_coordinator(cluster, shard);
            error.maybe_applied = *maybe_applied;
            error
        }
        Failure::Proposal(ProposeError::LeaseExpired) => no_leader(cluster, shard),
        Failure::Proposal(error @ ProposeError::Stopped(_)) => {
            let text = format!("{error}; another replica takes over");
            v1::Error::new(ErrorCode::ReplicaUnavailable, text).maybe_applied()
        }
    }
}
