//! What the leader of the metadata group does by itself: it founds the cluster, keeps the group's
//! members as the image says, replaces voters that leave, moves replicas away from nodes that leave,
//! and forgets nodes that have left and stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use seriatim_consensus::{Group, GroupStatus, Member};
use seriatim_proto::{
    ids::{NodeId, ReplicaId},
    internal::v1 as wire,
};
use seriatim_runtime::clock::{self, Instant};
use wire::{control_reply::Reply as Answer, meta_command::Command};

use crate::{
    cluster::Inner,
    command::{self, MOVES_LEVEL},
    control,
    image::{Image, NodeInfo, Replica},
    intents::MOVES_PER_COMMAND,
    plan,
};

/// A node that left and has been silent for so long has stopped.
const STOPPED: Duration = Duration::from_secs(5);

/// Members by replica id.
type Members = BTreeMap<ReplicaId, NodeId>;

/// What the leader remembers from one step to the next.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    /// Since when nodes that leave are silent.
    silent: BTreeMap<NodeId, Instant>,
}

impl Steering {
    /// One step; `true` if nothing is left to do.
    pub(crate) async fn step(&mut self, inner: &Arc<Inner>, group: &Group) -> bool {
        // Everything decided before this leader must be in its image.
        if group.read_barrier().await.is_err() {
            return false;
        }
        let image = inner.machine.image();
        let status = group.status();
        if image.cluster_id.is_empty() {
            return found(inner, group, &status).await;
        }
        let (voters, learners) = wanted(&image);
        if !settle(inner, group, &status, (&voters, &learners)).await {
            return false;
        }
        let commands = self.decide(&image, &status);
        if commands.is_empty() || command::allowed(&image, MOVES_LEVEL).is_err() {
            // Nodes that leave are watched until they are gone.
            return image.nodes.values().all(|node| !node.leaving);
        }
        let _one_at_a_time = inner.placing.lock().await;
        for command in commands {
            let answer = control::submit(group, command::encode(command)).await;
            if let Answer::Done(reply) = answer
                && let Err(refusal) = command::decode_reply(reply)
            {
                tracing::debug!(%refusal, "the controller's own command was refused");
            }
        }
        false
    }

    /// What the image calls for next.
    fn decide(&mut self, image: &Image, status: &GroupStatus) -> Vec<Command> {
        let could_vote = status
            .membership
            .iter()
            .filter(|m| has_caught_up(status, m));
        let ready: BTreeSet<NodeId> = could_vote.map(|member| member.node).collect();
        if let Some(voters) = plan::controllers(image, &ready) {
            tracing::info!(?voters, "other nodes are to vote in the metadata group");
            return vec![Command::SetControllers(wire::SetControllers {
                node_ids: voters.into_iter().map(|node| node.0).collect(),
            })];
        }
        if image.nodes.values().all(|node| !node.leaving) {
            self.silent.clear();
            return Vec::new();
        }
        let wrong = plan::arriving_at_leaving(image).into_iter();
        let turned: Vec<Command> = wrong
            .take(MOVES_PER_COMMAND)
            .map(|group| Command::CancelMove(wire::CancelMove { group_id: group.0 }))
            .collect();
        if !turned.is_empty() {
            return turned;
        }
        let mut moves = plan::evacuate(image);
        moves.truncate(MOVES_PER_COMMAND);
        if !moves.is_empty() {
            tracing::info!(
                partitions = moves.len(),
                "moving replicas away from nodes that leave"
            );
            return vec![Command::MovePartitions(plan::command(&moves))];
        }
        let Some(gone) = self.stopped(image, status) else {
            return Vec::new();
        };
        tracing::info!(node = %gone, "a node that was decommissioned has stopped: removing it");
        vec![Command::RemoveNode(wire::RemoveNode { node_id: gone.0 })]
    }

    /// A node that leaves, holds nothing, and has been silent for a while.
    fn stopped(&mut self, image: &Image, status: &GroupStatus) -> Option<NodeId> {
        let now = clock::now();
        let answers = |node: NodeId| {
            status
                .membership
                .iter()
                .any(|m| m.node == node && m.answers)
        };
        let silent = |node: &&Arc<NodeInfo>| node.leaving && !answers(node.id);
        let nodes: BTreeSet<NodeId> = image.nodes.values().filter(silent).map(|n| n.id).collect();
        self.silent.retain(|node, _| nodes.contains(node));
        for node in nodes {
            let _ = self.silent.entry(node).or_insert(now);
        }
        let votes = |node: NodeId| status.membership.iter().any(|m| m.node == node && m.voter);
        let gone = self.silent.iter().find(|(node, since)| {
            now.saturating_duration_since(**since) >= STOPPED
                && !votes(**node)
                && !image.holds_replicas(**node)
        });
        gone.map(|(node, _)| *node)
    }
}

async fn found(inner: &Arc<Inner>, group: &Group, status: &GroupStatus) -> bool {
    let founders = voters(status)
        .into_iter()
        .map(|(id, node)| Replica { id, node }.into());
    let found = Command::FoundCluster(wire::FoundCluster {
        cluster_id: inner.founding.cluster_id(),
        founders: founders.collect(),
    });
    matches!(
        control::submit(group, command::encode(found)).await,
        Answer::Done(_)
    )
}

/// Who is to vote in the metadata group and who is to learn.
fn wanted(image: &Image) -> (Members, Members) {
    let (voters, learners): (Vec<_>, Vec<_>) = image.nodes.values().partition(|node| node.voter);
    let members = |nodes: Vec<&Arc<NodeInfo>>| {
        nodes
            .into_iter()
            .map(|node| (node.controller_replica, node.id))
            .collect()
    };
    (members(voters), members(learners))
}

fn has_caught_up(status: &GroupStatus, member: &Member) -> bool {
    // The same that is asked of a next leader, but for the vote.
    status.can_lead(&Member {
        voter: true,
        ..member.clone()
    })
}

/// Makes the members of the metadata group those of the image, new voters learners first; `true` if
/// they are.
async fn settle(
    inner: &Inner,
    group: &Group,
    status: &GroupStatus,
    (wanted, learners): (&Members, &Members),
) -> bool {
    let known = |replica: &ReplicaId| status.membership.iter().find(|m| m.replica == *replica);
    let mut settled = true;
    for (replica, node) in wanted.iter().chain(learners) {
        if known(replica).is_none() {
            tracing::info!(%replica, %node, "adding a learner to the metadata group");
            if let Err(error) = group.add_learner(*replica, *node).await {
                tracing::warn!(%error, %node, "adding a learner to the metadata group");
            }
            settled = false;
        }
    }
    if !settled {
        return false;
    }
    if status.joint || voters(status) != *wanted {
        let behind = |replica: &&ReplicaId| {
            known(replica).is_none_or(|m| !m.voter && !has_caught_up(status, m))
        };
        if wanted.keys().any(|replica| behind(&replica)) {
            return false;
        }
        change_voters(inner, group, status, wanted).await;
        return false;
    }
    for member in &status.membership {
        let stays = wanted.contains_key(&member.replica) || learners.contains_key(&member.replica);
        if !stays && let Err(error) = group.remove(member.replica).await {
            tracing::warn!(%error, replica = %member.replica, "removing a learner");
            settled = false;
        }
    }
    settled
}

async fn change_voters(inner: &Inner, group: &Group, status: &GroupStatus, wanted: &Members) {
    let me = group.key().replica;
    let stopping = inner.gossip.stopping();
    let mut next: BTreeSet<ReplicaId> = wanted.keys().copied().collect();
    if !next.contains(&me) {
        let heir = status.membership.iter().find(|member| {
            next.contains(&member.replica)
                && status.can_lead(member)
                && !stopping.contains(&member.node)
        });
        if let Some(heir) = heir {
            tracing::info!(node = %heir.node, "handing the metadata group over");
            if let Err(error) = group.hand_over(heir.replica).await {
                tracing::warn!(%error, "handing the metadata group over");
            }
            return;
        }
        let _ = next.insert(me);
    }
    if !status.joint && voters(status).into_keys().eq(next.iter().copied()) {
        return;
    }
    tracing::info!(voters = ?next, "changing the voters of the metadata group");
    // Who does not vote any more learns.
    let changed = group.change_voters(next, status.membership_id, true).await;
    if let Err(error) = changed {
        tracing::warn!(%error, "changing the voters of the metadata group");
    }
}

fn voters(status: &GroupStatus) -> Members {
    let voters = status.membership.iter().filter(|member| member.voter);
    voters.map(|member| (member.replica, member.node)).collect()
}
