//! Where replicas are: moves, more partitions and replicas, nodes that leave.

use std::time::Duration;

use seriatim_proto::v1;

use crate::{admin::Admin, error::ClientError};

/// How long a request is repeated where the cluster is not ready for it.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a request moves. Moves go on by themselves; [`Admin::cluster_status`] shows how far they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMove {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// The nodes that hold it, the preferred leader first.
    pub from: Vec<u64>,
    /// The nodes that shall hold it.
    pub to: Vec<u64>,
}

impl PlannedMove {
    /// Whether records have to be copied; otherwise only another node is preferred as the leader, or
    /// a replica is given up.
    pub fn copies(&self) -> bool {
        self.to.iter().any(|node| !self.from.contains(node))
    }
}

/// Calls a method of the `Admin` service at whichever node answers. All of these may be repeated.
macro_rules! call {
    ($admin:expr, $what:literal, $method:ident, $request:expr) => {{
        let request = $request;
        let client = $admin.client();
        let called = client.any_node($what, (DEADLINE, false), |address| {
            let request = request.clone();
            async move {
                let mut admin = client.metadata().channels.admin(&address)?;
                let answer = admin.$method(request).await;
                answer.map_err(|status| ClientError::from_status(&address, status))
            }
        });
        called.await?.into_inner()
    }};
}

impl Admin {
    /// Puts the replicas of a partition on these nodes, the preferred leader first. The move is begun
    /// on return; nothing where the partition is there already, or on its way.
    ///
    /// # Errors
    /// The server's, such as `INVALID_REQUEST` where the partition is moving elsewhere.
    pub async fn reassign(
        &self,
        topic: &str,
        partition: i32,
        nodes: &[u64],
    ) -> Result<Option<PlannedMove>, ClientError> {
        let request = v1::ReassignRequest {
            topic: topic.to_owned(),
            partition,
            nodes: nodes.to_vec(),
            cancel: false,
        };
        let answer = call!(self, "reassign", reassign, request);
        Ok(planned(answer.moves).pop())
    }

    /// Turns the move of a partition round: it goes back to the nodes from which it came. Nothing
    /// where it does not move.
    ///
    /// # Errors
    /// The server's, such as `UNKNOWN_PARTITION`.
    pub async fn cancel_reassign(
        &self,
        topic: &str,
        partition: i32,
    ) -> Result<Option<PlannedMove>, ClientError> {
        let request = v1::ReassignRequest {
            topic: topic.to_owned(),
            partition,
            nodes: Vec::new(),
            cancel: true,
        };
        let answer = call!(self, "cancel reassign", reassign, request);
        Ok(planned(answer.moves).pop())
    }

    /// Gives every partition of a topic so many replicas. The moves are begun on return.
    ///
    /// # Errors
    /// The server's, such as `NOT_ENOUGH_NODES`.
    pub async fn set_replication_factor(
        &self,
        topic: &str,
        replication_factor: u32,
    ) -> Result<Vec<PlannedMove>, ClientError> {
        let request = v1::ResizeTopicRequest {
            name: topic.to_owned(),
            partitions: 0,
            replication_factor,
        };
        Ok(planned(
            call!(self, "resize topic", resize_topic, request).moves,
        ))
    }

    /// Lets a topic have so many partitions; never fewer than it has. Keys go to other partitions
    /// than before.
    ///
    /// # Errors
    /// The server's, such as `INVALID_REQUEST` where it would have fewer.
    pub async fn set_partitions(&self, topic: &str, partitions: i32) -> Result<(), ClientError> {
        let request = v1::ResizeTopicRequest {
            name: topic.to_owned(),
            partitions,
            replication_factor: 0,
        };
        let _no_moves = call!(self, "resize topic", resize_topic, request);
        self.client().metadata().want_refresh();
        Ok(())
    }

    /// Spreads replicas and preferred leaders evenly with as few moves as that takes, or only says
    /// which moves those are.
    ///
    /// # Errors
    /// Any that does not go away within 30 s of trying again.
    pub async fn rebalance(&self, dry_run: bool) -> Result<Vec<PlannedMove>, ClientError> {
        let request = v1::RebalanceRequest { dry_run };
        Ok(planned(call!(self, "rebalance", rebalance, request).moves))
    }

    /// Begins to move everything away from a node, so that it can be stopped for good; with `cancel`
    /// the node stays after all. When [`NodeStatus::is_safe_to_stop`](crate::NodeStatus::is_safe_to_stop)
    /// says so and it is stopped, the cluster forgets it.
    ///
    /// # Errors
    /// The server's, such as `NOT_ENOUGH_NODES` where the others cannot hold all replicas.
    pub async fn decommission(&self, node: u64, cancel: bool) -> Result<(), ClientError> {
        let request = v1::DecommissionRequest {
            node_id: node,
            cancel,
        };
        let _empty = call!(self, "decommission", decommission, request);
        Ok(())
    }
}

fn planned(moves: Vec<v1::PartitionMove>) -> Vec<PlannedMove> {
    let moves = moves.into_iter().map(|planned| PlannedMove {
        topic: planned.topic,
        partition: planned.partition,
        from: planned.from_nodes,
        to: planned.to_nodes,
    });
    moves.collect()
}
