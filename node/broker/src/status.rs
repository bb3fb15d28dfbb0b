//! What this node knows of its own replicas.

use seriatim_cluster::{LocalReplica, LocalState};
use seriatim_consensus::Role;
use seriatim_proto::v1;

use crate::Broker;

impl Broker {
    /// This node's part of `cluster status`.
    pub fn node_status(&self) -> v1::NodeStatusResponse {
        let image = self.cluster.image();
        let me = self.cluster.node_id();
        let mine = |info: &seriatim_cluster::PartitionInfo| info.replica_on(me).is_some();
        let assigned = image
            .partitions()
            .filter(|(_t, _p, info)| mine(info))
            .count();
        let stats = self.storage.stats();
        v1::NodeStatusResponse {
            node_id: me.0,
            cluster_id: image.cluster_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            replicas: self.replica_status(),
            fsyncs: stats.fsyncs,
            disk_full: stats.disk_full,
            assigned_replicas: u32::try_from(assigned).unwrap_or(u32::MAX),
            stopping: self.cluster.is_stopping(),
        }
    }

    fn replica_status(&self) -> Vec<v1::ReplicaStatus> {
        let local = self.cluster.local_replicas();
        let status = local.iter().map(|local| {
            let stage = self.cluster.move_stage(local.key.group);
            v1::ReplicaStatus {
                move_state: stage.map_or("", |stage| stage.text()).to_owned(),
                ..replica(local)
            }
        });
        status.collect()
    }
}

fn replica(local: &LocalReplica) -> v1::ReplicaStatus {
    let (state, reason) = match &local.state {
        LocalState::Opening => (v1::ReplicaState::Opening, String::new()),
        LocalState::Running => (v1::ReplicaState::Running, String::new()),
        LocalState::Damaged(why) => (v1::ReplicaState::Damaged, why.clone()),
        LocalState::Failed(why) => (v1::ReplicaState::Failed, why.clone()),
        LocalState::Rebuilding => (v1::ReplicaState::Rebuilding, String::new()),
    };
    let mut status = v1::ReplicaStatus {
        topic: local.tp.topic.clone(),
        partition: local.tp.partition.0,
        replica_id: local.key.replica.0,
        state: state.into(),
        reason,
        ..Default::default()
    };
    let Some(group) = &local.group else {
        return status;
    };
    let log = group.log();
    let group = group.status();
    status.log_bytes = log.size_bytes();
    status.first_index = log.first_index();
    let role = match group.state.role {
        Role::Leader => v1::ReplicaRole::Leader,
        Role::Follower => v1::ReplicaRole::Follower,
        Role::Candidate => v1::ReplicaRole::Candidate,
        Role::Learner => v1::ReplicaRole::Learner,
    };
    status.role = role.into();
    status.leader_node = group.state.leader.map_or(0, |(_replica, node)| node.0);
    status.term = i64::try_from(group.state.term).unwrap_or(i64::MAX);
    if let Some(partition) = &local.partition {
        status.log_start_offset = log.log_start_offset().0;
        status.high_watermark = partition.high_watermark().borrow().0;
        status.log_end_offset = log.next_offset().0;
    }
    status.last_index = group.last_index;
    status.committed_index = group.applied.map_or(0, |id| id.index);
    if group.state.role == Role::Leader {
        let peers = group.membership.iter().map(|member| {
            let own = member.replica == local.key.replica;
            let matched = if own {
                log.flushed_index()
            } else {
                member.matched
            };
            let needs_boundary = matched.map_or(0, |at| at + 1) < log.first_index();
            let lag_bytes = matched.map_or(status.log_bytes, |at| log.bytes_behind(at));
            let matched = matched.unwrap_or_default();
            v1::PeerProgress {
                lag_bytes,
                needs_boundary,
                node_id: member.node.0,
                replica_id: member.replica.0,
                matched_index: matched,
                lag_entries: group.last_index.saturating_sub(matched),
                voter: member.voter,
            }
        });
        status.peers = peers.collect();
    }
    status
}
