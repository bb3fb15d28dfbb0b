//! Where replicas are: moves, more partitions and replicas, nodes that leave.

use seriatim_cluster::PlannedMove;
use seriatim_proto::{
    error::ErrorCode,
    ids::{NodeId, PartitionId},
    v1,
};

use crate::{Broker, broker};

const TIMEOUT_MS: u32 = 30_000;

impl Broker {
    /// Changes the number of partitions or of replicas of a topic.
    pub async fn resize_topic(
        &self,
        request: v1::ResizeTopicRequest,
    ) -> Result<v1::ResizeTopicResponse, v1::Error> {
        let deadline = broker::deadline(0, TIMEOUT_MS);
        let partitions = u32::try_from(request.partitions)
            .map_err(|_negative| invalid("the number of partitions must be 1 or more"))?;
        if partitions == 0 && request.replication_factor == 0 {
            return Err(invalid("name a number of partitions or of replicas"));
        }
        let mut moves = Vec::new();
        if request.replication_factor > 0 {
            let factor = request.replication_factor;
            let changed = self
                .cluster
                .set_replication_factor(&request.name, factor, deadline);
            moves = changed.await.map_err(|error| error.to_error())?;
        }
        if partitions > 0 {
            let added = self
                .cluster
                .set_partitions(&request.name, partitions, deadline);
            added.await.map_err(|error| error.to_error())?;
        }
        Ok(v1::ResizeTopicResponse {
            moves: to_wire(moves),
        })
    }

    /// Moves one partition, or turns its move round.
    pub async fn reassign(
        &self,
        request: v1::ReassignRequest,
    ) -> Result<v1::ReassignResponse, v1::Error> {
        let deadline = broker::deadline(0, TIMEOUT_MS);
        let (topic, number) = (&request.topic, PartitionId(request.partition));
        let moves = if request.cancel {
            if !request.nodes.is_empty() {
                return Err(invalid("name nodes, or cancel a move: not both"));
            }
            self.cluster.cancel_move(topic, number, deadline).await
        } else {
            let nodes: Vec<NodeId> = request.nodes.iter().copied().map(NodeId).collect();
            self.cluster.reassign(topic, number, &nodes, deadline).await
        };
        let moves = moves.map_err(|error| error.to_error())?;
        Ok(v1::ReassignResponse {
            moves: to_wire(moves),
        })
    }

    /// Spreads replicas and leaders evenly.
    pub async fn rebalance(
        &self,
        request: v1::RebalanceRequest,
    ) -> Result<v1::RebalanceResponse, v1::Error> {
        let deadline = broker::deadline(0, TIMEOUT_MS);
        let moves = self.cluster.rebalance(request.dry_run, deadline).await;
        let moves = moves.map_err(|error| error.to_error())?;
        Ok(v1::RebalanceResponse {
            moves: to_wire(moves),
        })
    }

    /// Begins to move everything away from a node, or takes that back.
    pub async fn decommission(
        &self,
        request: v1::DecommissionRequest,
    ) -> Result<v1::DecommissionResponse, v1::Error> {
        let deadline = broker::deadline(0, TIMEOUT_MS);
        let node = NodeId(request.node_id);
        let begun = self.cluster.decommission(node, request.cancel, deadline);
        begun.await.map_err(|error| error.to_error())?;
        Ok(v1::DecommissionResponse {})
    }
}

fn invalid(what: &str) -> v1::Error {
    v1::Error::new(ErrorCode::InvalidRequest, what)
}

fn to_wire(moves: Vec<PlannedMove>) -> Vec<v1::PartitionMove> {
    let moves = moves.into_iter().map(|planned| v1::PartitionMove {
        topic: planned.topic,
        partition: planned.partition,
        from_nodes: planned.from_nodes,
        to_nodes: planned.to_nodes,
    });
    moves.collect()
}
