//! What operators change about where replicas are.

use seriatim_proto::{
    ids::{NodeId, PartitionId},
    internal::v1 as wire,
    limits::MAX_TOPIC_PARTITIONS,
};
use tokio::time::Instant;
use wire::{control_request::Request, meta_reply::Reply, move_intent::Intent};

use crate::{
    cluster::{Cluster, MAX_REPLICATION_FACTOR},
    control,
    error::ClusterError,
    validate,
};

/// A move that was planned, or begun.
pub use wire::PlannedMove;

impl Cluster {
    /// Puts a partition on these nodes, the preferred leader first. Answers with the move, none where
    /// the partition is there or on its way there.
    pub async fn reassign(
        &self,
        topic: &str,
        partition: PartitionId,
        nodes: &[NodeId],
        deadline: Instant,
    ) -> Result<Vec<PlannedMove>, ClusterError> {
        let assign = wire::AssignReplicas {
            topic: topic.to_owned(),
            partition: partition.0,
            nodes: nodes.iter().map(|node| node.0).collect(),
        };
        self.moves(Intent::Assign(assign), false, deadline).await
    }

    /// Turns the move of a partition round, if it is moving.
    pub async fn cancel_move(
        &self,
        topic: &str,
        partition: PartitionId,
        deadline: Instant,
    ) -> Result<Vec<PlannedMove>, ClusterError> {
        let cancel = wire::CancelPartition {
            topic: topic.to_owned(),
            partition: partition.0,
        };
        self.moves(Intent::Cancel(cancel), false, deadline).await
    }

    /// Gives every partition of a topic so many replicas.
    pub async fn set_replication_factor(
        &self,
        topic: &str,
        factor: u32,
        deadline: Instant,
    ) -> Result<Vec<PlannedMove>, ClusterError> {
        validate::range("the replication factor", factor, MAX_REPLICATION_FACTOR)?;
        let factor = wire::ReplicationFactor {
            topic: topic.to_owned(),
            replication_factor: factor,
        };
        let intent = Intent::ReplicationFactor(factor);
        self.moves(intent, false, deadline).await
    }

    /// Spreads replicas and preferred leaders evenly, or only says which moves that takes.
    pub async fn rebalance(
        &self,
        dry_run: bool,
        deadline: Instant,
    ) -> Result<Vec<PlannedMove>, ClusterError> {
        let intent = Intent::Spread(wire::Spread {});
        self.moves(intent, dry_run, deadline).await
    }

    async fn moves(
        &self,
        intent: Intent,
        validate_only: bool,
        deadline: Instant,
    ) -> Result<Vec<PlannedMove>, ClusterError> {
        let request = Request::Move(wire::MoveIntent {
            intent: Some(intent),
            validate_only,
        });
        match control::ask(&self.inner, request, deadline).await?.reply? {
            Reply::Plan(plan) => Ok(plan.moves),
            _ => Err(control::unexpected()),
        }
    }

    /// Lets a topic have so many partitions; it cannot have fewer than before.
    pub async fn set_partitions(
        &self,
        topic: &str,
        partitions: u32,
        deadline: Instant,
    ) -> Result<(), ClusterError> {
        validate::not_internal(topic)?;
        let most = u32::try_from(MAX_TOPIC_PARTITIONS).unwrap_or(u32::MAX);
        validate::range("the number of partitions", partitions, most)?;
        let intent = Request::AddPartitions(wire::AddPartitionsIntent {
            topic: topic.to_owned(),
            partitions,
        });
        let _done = control::ask(&self.inner, intent, deadline).await?.reply?;
        Ok(())
    }

    /// Begins to move everything away from a node, or takes that back. A node that has left and has
    /// stopped is forgotten.
    pub async fn decommission(
        &self,
        node: NodeId,
        cancel: bool,
        deadline: Instant,
    ) -> Result<(), ClusterError> {
        let intent = Request::Leave(wire::LeaveIntent {
            node_id: node.0,
            cancel,
        });
        let _done = control::ask(&self.inner, intent, deadline).await?.reply?;
        Ok(())
    }

    /// How far the move of a partition is that this node leads.
    pub fn move_stage(&self, group: seriatim_proto::ids::GroupId) -> Option<crate::Stage> {
        self.inner.moves.stage(group)
    }
}
