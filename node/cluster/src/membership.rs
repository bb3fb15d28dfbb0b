//! Makes the members of Raft groups agree with the image: of the metadata group on the node that
//! leads it, of each partition on the node that leads that.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use seriatim_consensus::{Group, GroupStatus, Role};
use seriatim_proto::{
    ids::{GroupId, NodeId, ReplicaId},
    internal::v1 as wire,
};
use seriatim_runtime::clock;
use seriatim_storage::StorageError;
use wire::{control_reply::Reply as Answer, meta_command::Command};

use crate::{
    cluster::Inner,
    command, control,
    error::ClusterError,
    image::{Image, PartitionInfo, Replica},
    own_replica,
};

/// Pause before members that do not yet agree are looked at again.
const AGAIN: Duration = Duration::from_millis(300);

/// Members by replica id.
pub(crate) type Members = BTreeMap<ReplicaId, NodeId>;

/// Tries to get a leader for a group that may have none: after a start nobody has heard of a leader,
/// and waiting for the election timeout costs more than asking. Where there is a leader, its
/// followers refuse the pre-vote and nothing happens.
///
/// `rank` is this replica's position among those who may try: the first tries first.
pub(crate) async fn elect(group: &Group, rank: usize) {
    let mut pause = Duration::from_millis(60);
    let wait = Duration::from_millis(400) * u32::try_from(rank).unwrap_or(u32::MAX);
    if group.led(wait).await {
        return;
    }
    for _ in 0..7 {
        if group.elect(pause).await {
            return;
        }
        // An election that takes longer than this is only begun anew by another attempt.
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Starts what the metadata group needs: a first leader, and on the leader the members and the
/// founding command.
pub(crate) fn start_controller(inner: &Arc<Inner>) {
    let task = Arc::clone(inner);
    inner.spawn("controller", async move {
        loop {
            let Some(group) = task.control.borrow().clone() else {
                return;
            };
            let why = controller(&task, &group).await;
            tracing::error!(why, "this node's replica of the metadata group stopped");
            if let Err(error) = reopen(&task, &group, &why).await {
                return task.fail(error);
            }
        }
    });
}

/// Puts a new replica in the place of one that was found damaged while it ran. Any other failure of
/// the disk ends this node: it is for a person to look at.
async fn reopen(inner: &Arc<Inner>, group: &Group, why: &str) -> Result<(), ClusterError> {
    let poison = group.log().poisoned();
    let _ = inner.control.send_replace(None);
    inner.consensus.close(GroupId::METADATA).await;
    match poison {
        Some(poison) if matches!(*poison, StorageError::Damaged { .. }) => {
            let fresh = own_replica::rebuild(inner, group.key(), &poison.to_string()).await?;
            let _ = own_replica::open(inner, fresh).await?;
            Ok(())
        }
        Some(poison) => Err(ClusterError::Storage(poison)),
        None => Err(ClusterError::Configuration {
            what: format!("the metadata group stopped: {why}; restart this node"),
        }),
    }
}

/// Runs until the group fails; tells why.
async fn controller(inner: &Arc<Inner>, group: &Group) -> String {
    let mut state = group.state();
    let mut image = inner.machine.watch();
    let rank = {
        let members = group.status().membership;
        members
            .iter()
            .position(|member| member.node == inner.me())
            .unwrap_or(members.len())
    };
    elect(group, rank).await;
    loop {
        let (leads, failed) = {
            let state = state.borrow_and_update();
            (state.role == Role::Leader, state.failed.clone())
        };
        if let Some(why) = failed {
            return why;
        }
        let _ = image.borrow_and_update();
        let settled = !leads || steer(inner, group).await;
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() {
                return "the group was closed".to_owned();
            },
            changed = image.changed() => if changed.is_err() {
                return "the image was closed".to_owned();
            },
            () = clock::sleep(AGAIN), if !settled => {}
        }
    }
}

/// One step of the controller; `true` if nothing is left to do.
async fn steer(inner: &Arc<Inner>, group: &Group) -> bool {
    // Everything decided before this leader must be in its image.
    if group.read_barrier().await.is_err() {
        return false;
    }
    let image = inner.machine.image();
    let status = group.status();
    if image.cluster_id.is_empty() {
        let founders = voters(&status)
            .into_iter()
            .map(|(id, node)| Replica { id, node }.into());
        let found = Command::FoundCluster(wire::FoundCluster {
            cluster_id: inner.founding.cluster_id(),
            founders: founders.collect(),
        });
        return matches!(
            control::submit(group, command::encode(found)).await,
            Answer::Done(_)
        );
    }
    let (wanted, learners) = controllers(&image);
    settle_controllers(group, &status, &wanted, &learners).await
}

/// Who is to vote in the metadata group and who is to learn.
fn controllers(image: &Image) -> (Members, Members) {
    let (voters, learners): (Vec<_>, Vec<_>) = image.nodes.values().partition(|node| node.voter);
    let members = |nodes: Vec<&Arc<crate::image::NodeInfo>>| {
        nodes
            .into_iter()
            .map(|node| (node.controller_replica, node.id))
            .collect()
    };
    (members(voters), members(learners))
}

async fn settle_controllers(
    group: &Group,
    status: &GroupStatus,
    wanted: &Members,
    learners: &Members,
) -> bool {
    if voters(status) != *wanted {
        tracing::info!(?wanted, "changing the voters of the metadata group");
        if let Err(error) = group.change_members(wanted.clone()).await {
            tracing::warn!(%error, "changing the voters of the metadata group");
        }
        return false;
    }
    let mut settled = true;
    for (replica, node) in learners {
        if status
            .membership
            .iter()
            .any(|member| member.replica == *replica)
        {
            continue;
        }
        tracing::info!(%replica, %node, "adding a learner to the metadata group");
        if let Err(error) = group.add_learner(*replica, *node).await {
            tracing::warn!(%error, %node, "adding a learner to the metadata group");
            settled = false;
        }
    }
    for member in &status.membership {
        let wanted = wanted.contains_key(&member.replica) || learners.contains_key(&member.replica);
        if !wanted && let Err(error) = group.remove(member.replica).await {
            tracing::warn!(%error, replica = %member.replica, "removing a learner");
            settled = false;
        }
    }
    settled
}

fn voters(status: &GroupStatus) -> Members {
    let voters = status.membership.iter().filter(|member| member.voter);
    voters.map(|member| (member.replica, member.node)).collect()
}

/// One step towards these replicas of a partition that this node leads; `true` if nothing is left
/// to do.
///
/// The image of this node may be older than the group's members. A replacement always brings the
/// highest replica id so far, so members with a higher id than all wanted ones are newer: wait.
pub(crate) async fn settle_partition(group: &Group, replicas: &[Replica]) -> bool {
    let wanted = PartitionInfo::members(replicas);
    let status = group.status();
    let present = voters(&status);
    let all: Members = status
        .membership
        .iter()
        .map(|m| (m.replica, m.node))
        .collect();
    if present == wanted && all.len() == wanted.len() {
        return true;
    }
    if all.last_key_value().map(|last| last.0) > wanted.last_key_value().map(|last| last.0) {
        return true;
    }
    tracing::info!(group = %group.key().group, ?wanted, "changing the replicas of a partition");
    if let Err(error) = group.change_members(wanted).await {
        tracing::warn!(%error, group = %group.key().group, "changing the replicas of a partition");
    }
    false
}
