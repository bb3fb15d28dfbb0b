//! Leaderships go back to the preferred replicas, the first of each partition, so that the spread of
//! leaders is the one that was planned. Each node looks at what it leads itself.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use futures::StreamExt as _;
use seriatim_consensus::{Group, Role};
use seriatim_proto::ids::{GroupId, NodeId, ReplicaId};
use seriatim_runtime::clock;

use crate::{cluster::Inner, image::Image};

/// Leaderships that a node hands over at the same time.
pub(crate) const AT_ONCE: usize = 4;

/// Starts to look, if this node is to.
pub(crate) fn start(inner: &Arc<Inner>) {
    let interval = inner.options.leader_balance_interval;
    if interval.is_zero() {
        return;
    }
    let task = Arc::clone(inner);
    inner.spawn("leader-balance", async move {
        // Seen at the look before: a node that comes and goes gets nothing.
        let mut before = HashSet::new();
        loop {
            clock::sleep(interval).await;
            if task.gossip.stops() {
                return;
            }
            let found = misplaced(&task);
            let lasting = found
                .iter()
                .filter(|(group, to)| before.contains(&(group.key().group, *to)));
            let lasting: Vec<(Group, ReplicaId)> = lasting.cloned().collect();
            before = found
                .iter()
                .map(|(group, to)| (group.key().group, *to))
                .collect();
            hand_back(lasting).await;
        }
    });
}

/// Groups that this node leads although the preferred replica could.
fn misplaced(inner: &Inner) -> Vec<(Group, ReplicaId)> {
    let image = inner.machine.image();
    let preferred = preferred(&image, inner.me());
    let stopping = inner.gossip.stopping();
    let groups = inner
        .replicas
        .list()
        .into_iter()
        .filter_map(|local| local.group);
    groups
        .filter_map(|group| {
            let to = *preferred.get(&group.key().group)?;
            could_lead(&group, to, &stopping).then_some((group, to))
        })
        .collect()
}

/// The preferred replicas of partitions that stay where they are and should be led by another node.
fn preferred(image: &Image, me: NodeId) -> std::collections::BTreeMap<GroupId, ReplicaId> {
    let partitions = image.partitions().filter(|(_, _, info)| {
        let first = info.replicas.first();
        !info.is_moving() && first.is_some_and(|replica| replica.node != me)
    });
    partitions
        .filter_map(|(_, _, info)| Some((info.group, info.replicas.first()?.id)))
        .collect()
}

fn could_lead(group: &Group, to: ReplicaId, stopping: &BTreeSet<NodeId>) -> bool {
    let status = group.status();
    status.state.role == Role::Leader
        && status.membership.iter().any(|member| {
            member.replica == to && status.can_lead(member) && !stopping.contains(&member.node)
        })
}

async fn hand_back(groups: Vec<(Group, ReplicaId)>) {
    if groups.is_empty() {
        return;
    }
    tracing::info!(
        groups = groups.len(),
        "handing leadership back to preferred replicas"
    );
    futures::stream::iter(groups)
        .for_each_concurrent(AT_ONCE, |(group, to)| async move {
            if let Err(error) = group.hand_over(to).await {
                tracing::info!(group = group.name(), %error, "handing leadership back");
            }
        })
        .await;
}
