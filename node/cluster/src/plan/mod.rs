//! Plans of moves: pure functions of the image.
//!
//! A plan names, for each partition that changes, the nodes that shall hold it, the preferred leader
//! first. Partitions that are moving already are left alone: where a plan cannot do without one of
//! them, it is refused.

mod spread;

use std::collections::{BTreeMap, BTreeSet};

use seriatim_proto::{
    ids::{GroupId, NodeId, PartitionId},
    internal::v1 as wire,
};

pub use self::spread::spread;
use crate::{
    command::Refusal,
    image::{Image, Load, PartitionInfo, Topic},
    placement,
};

/// What happens to one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: PartitionId,
    /// Its group.
    pub group: GroupId,
    /// The nodes that hold it.
    pub from: Vec<NodeId>,
    /// The nodes that shall hold it.
    pub to: Vec<NodeId>,
}

impl Move {
    fn new(topic: &Topic, partition: PartitionId, info: &PartitionInfo, to: Vec<NodeId>) -> Self {
        Self {
            topic: topic.name.clone(),
            partition,
            group: info.group,
            from: info.replicas.iter().map(|replica| replica.node).collect(),
            to,
        }
    }

    /// Whether records have to be copied.
    pub fn copies(&self) -> bool {
        self.to.iter().any(|node| !self.from.contains(node))
    }
}

/// The command that begins these moves.
pub(crate) fn command(moves: &[Move]) -> wire::MovePartitions {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let moves = moves.iter().map(|planned| wire::PartitionMove {
        group_id: planned.group.0,
        nodes: numbers(&planned.to),
        from_nodes: numbers(&planned.from),
    });
    wire::MovePartitions {
        moves: moves.collect(),
        ..Default::default()
    }
}

/// Puts one partition on these nodes; `None` where it is there already, or on its way.
pub fn reassign(
    image: &Image,
    topic: &str,
    partition: PartitionId,
    nodes: &[NodeId],
) -> Result<Option<Move>, Refusal> {
    let (topic, info) = find(image, topic, partition)?;
    let distinct: BTreeSet<NodeId> = nodes.iter().copied().collect();
    if distinct.is_empty() || distinct.len() != nodes.len() {
        return Err(Refusal::Malformed {
            what: "name at least one node, and each only once".to_owned(),
        });
    }
    for &node in nodes {
        let Some(known) = image.node(node) else {
            return Err(Refusal::UnknownNode { node });
        };
        if known.leaving {
            return Err(Refusal::NodeLeaving { node });
        }
    }
    if info.goal_nodes() == nodes {
        return Ok(None);
    }
    still(topic, partition, info)?;
    Ok(Some(Move::new(topic, partition, info, nodes.to_vec())))
}

/// Gives every partition of a topic so many replicas. New ones go where least is held; those are
/// taken away of which a node or rack has most, the preferred leader last.
pub fn replication_factor(image: &Image, topic: &str, factor: u32) -> Result<Vec<Move>, Refusal> {
    let topic = image
        .topics
        .get(topic)
        .ok_or_else(|| Refusal::UnknownTopic {
            name: topic.to_owned(),
        })?;
    let mut planner = Planner::new(image);
    let wanted = usize::try_from(factor).unwrap_or(usize::MAX);
    let have = planner.load.len();
    if wanted == 0 || have < wanted {
        return Err(not_enough(wanted, have));
    }
    let mut moves = Vec::new();
    for (number, info) in (0..).map(PartitionId).zip(&topic.partitions) {
        let mut nodes = info.goal_nodes();
        if nodes.len() == wanted {
            continue;
        }
        still(topic, number, info)?;
        while nodes.len() > wanted {
            let Some(gone) = planner.dispensable(image, &nodes) else {
                break;
            };
            nodes.retain(|node| *node != gone);
            planner.count(gone, -1);
        }
        while nodes.len() < wanted {
            let Some(new) = planner.best(&nodes) else {
                return Err(not_enough(wanted, have));
            };
            nodes.push(new);
            planner.count(new, 1);
        }
        moves.push(Move::new(topic, number, info, nodes));
    }
    Ok(moves)
}

/// Moves the replicas of nodes that leave to others. Partitions that are moving follow later; those
/// for which there is no other node stay.
pub fn evacuate(image: &Image) -> Vec<Move> {
    let leaving = |node: &NodeId| image.node(*node).is_none_or(|node| node.leaving);
    let mut planner = Planner::new(image);
    let mut moves = Vec::new();
    for (topic, number, info) in image.partitions() {
        let mut nodes = info.goal_nodes();
        if info.is_moving() || !nodes.iter().any(leaving) {
            continue;
        }
        let leader_leaves = nodes.first().is_some_and(leaving);
        for position in 0..nodes.len() {
            let Some(slot) = nodes.get(position).copied().filter(leaving) else {
                continue;
            };
            let staying: Vec<NodeId> = nodes.iter().copied().filter(|n| *n != slot).collect();
            let Some(new) = planner.best(&staying) else {
                break;
            };
            if let Some(slot) = nodes.get_mut(position) {
                *slot = new;
            }
            planner.count(new, 1);
        }
        if nodes.iter().any(leaving) {
            continue;
        }
        if leader_leaves {
            placement::lead_with_least(&mut nodes, &planner.load);
            if let Some(load) = nodes.first().and_then(|n| planner.load.get_mut(n)) {
                load.leaders += 1;
            }
        }
        moves.push(Move::new(topic, number, info, nodes));
    }
    moves
}

/// Partitions on their way to a node that leaves: they had better turn round than arrive, if nothing
/// leaves where they come from.
pub(crate) fn arriving_at_leaving(image: &Image) -> Vec<GroupId> {
    let leaving = |node: NodeId| image.node(node).is_none_or(|node| node.leaving);
    let wrong = image.partitions().filter(|(_, _, info)| {
        let target = info.target.iter().flatten();
        let mut new = target.filter(|replica| !info.replicas.contains(replica));
        let stays = !info.replicas.iter().any(|replica| leaving(replica.node));
        !info.returning && stays && new.any(|replica| leaving(replica.node))
    });
    wrong.map(|(_, _, info)| info.group).collect()
}

/// Whether a node may leave: the others must be able to hold all replicas that there are.
pub(crate) fn check_leave(image: &Image, node: NodeId) -> Result<(), Refusal> {
    let left = image.staying().filter(|other| other.id != node).count();
    let needed = image
        .partitions()
        .map(|(_, _, info)| info.goal().len())
        .max()
        .unwrap_or(0)
        .max(1);
    if left < needed {
        return Err(not_enough(needed, left));
    }
    Ok(())
}

/// The nodes for the partitions that a topic gets beyond those that it has; `None` where it has that
/// many already.
pub(crate) fn add_partitions(
    image: &Image,
    intent: &wire::AddPartitionsIntent,
) -> Result<Option<wire::AddPartitions>, Refusal> {
    let topic = image
        .topics
        .get(&intent.topic)
        .ok_or_else(|| Refusal::UnknownTopic {
            name: intent.topic.clone(),
        })?;
    let have = topic.partitions.len();
    let wanted = usize::try_from(intent.partitions).unwrap_or(usize::MAX);
    let Some(new) = wanted.checked_sub(have) else {
        return Err(Refusal::FewerPartitions {
            topic: topic.name.clone(),
            have: u64::try_from(have).unwrap_or(u64::MAX),
        });
    };
    if new == 0 {
        return Ok(None);
    }
    let replicas = usize::try_from(topic.replication_factor).unwrap_or(usize::MAX);
    let placed = placement::place(image, new, replicas)
        .map_err(|lacking| not_enough(lacking.wanted, lacking.have))?;
    let placed = placed.into_iter().map(|nodes| wire::PlacedPartition {
        nodes: nodes.into_iter().map(|node| node.0).collect(),
    });
    Ok(Some(wire::AddPartitions {
        topic: topic.name.clone(),
        topic_id: topic.id.clone(),
        first: u32::try_from(have).unwrap_or(u32::MAX),
        partitions: placed.collect(),
    }))
}

/// The nodes that should vote in the metadata group, where that is not as it is: one, two, three or
/// five of those that stay. Who votes goes on voting; `ready` are those that could begin to.
pub fn controllers(image: &Image, ready: &BTreeSet<NodeId>) -> Option<BTreeSet<NodeId>> {
    let staying: BTreeSet<NodeId> = image.staying().map(|node| node.id).collect();
    let before: BTreeSet<NodeId> = image
        .nodes
        .values()
        .filter(|node| node.voter)
        .map(|node| node.id)
        .collect();
    let mut voters: BTreeSet<NodeId> = before.intersection(&staying).copied().collect();
    let wanted = match staying.len() {
        0 => return None,
        1 => 1,
        // Two voters need each other: a second one is no gain where there was one.
        2 => voters.len().clamp(1, 2),
        3 | 4 => 3,
        _ => 5,
    };
    // New ones come before old ones go, so that there are never fewer than need be.
    let mut new = ready
        .iter()
        .filter(|node| staying.contains(node) && !before.contains(node));
    while voters.len() < wanted {
        match new.next() {
            Some(&node) => drop(voters.insert(node)),
            None => break,
        }
    }
    while voters.len() > wanted {
        let _ = voters.pop_last();
    }
    let lacking = wanted.saturating_sub(voters.len());
    let leaving = before.difference(&staying).copied();
    // A voter that leaves stays until there is another in its place.
    voters.extend(leaving.take(lacking));
    (voters != before).then_some(voters)
}

fn find<'a>(
    image: &'a Image,
    topic: &str,
    partition: PartitionId,
) -> Result<(&'a Topic, &'a PartitionInfo), Refusal> {
    let Some(known) = image.topics.get(topic) else {
        return Err(Refusal::UnknownTopic {
            name: topic.to_owned(),
        });
    };
    let info = known.partition(partition);
    let info = info.ok_or_else(|| Refusal::UnknownPartition {
        topic: topic.to_owned(),
        partition: u64::try_from(partition.0).unwrap_or_default(),
    })?;
    Ok((known, info))
}

/// The group of a partition, for those who act on it by name.
pub(crate) fn partition<'a>(
    image: &'a Image,
    topic: &str,
    partition: PartitionId,
) -> Result<&'a PartitionInfo, Refusal> {
    find(image, topic, partition).map(|(_, info)| info)
}

fn still(topic: &Topic, partition: PartitionId, info: &PartitionInfo) -> Result<(), Refusal> {
    if info.is_moving() {
        return Err(Refusal::Moving {
            topic: topic.name.clone(),
            partition: u64::try_from(partition.0).unwrap_or_default(),
        });
    }
    Ok(())
}

fn not_enough(wanted: usize, have: usize) -> Refusal {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Refusal::NotEnoughNodes {
        wanted: number(wanted),
        have: number(have),
    }
}

/// Chooses nodes one by one and keeps count of what they hold.
struct Planner {
    load: BTreeMap<NodeId, Load>,
    racks: BTreeMap<NodeId, String>,
}

impl Planner {
    fn new(image: &Image) -> Self {
        Self {
            load: placement::load_of_staying(image),
            racks: placement::racks(image),
        }
    }

    fn count(&mut self, node: NodeId, change: i64) {
        if let Some(load) = self.load.get_mut(&node) {
            load.replicas = load.replicas.saturating_add_signed(change);
        }
    }

    fn in_rack(&self, node: NodeId, nodes: &[NodeId]) -> usize {
        let rack = self.racks.get(&node);
        nodes.iter().filter(|n| self.racks.get(n) == rack).count()
    }

    /// The best node for one more replica beside `nodes`: in a rack that has fewest of them, then the
    /// one that holds least.
    fn best(&self, nodes: &[NodeId]) -> Option<NodeId> {
        let free = self.load.iter().filter(|(node, _)| !nodes.contains(node));
        free.min_by_key(|(node, load)| (self.in_rack(**node, nodes), load.replicas, **node))
            .map(|(node, _)| *node)
    }

    /// The one of `nodes` that is missed least, never the first: one that leaves, then one in a rack
    /// that has most of them, then one that holds most.
    fn dispensable(&self, image: &Image, nodes: &[NodeId]) -> Option<NodeId> {
        nodes.iter().skip(1).copied().max_by_key(|node| {
            let leaving = image.node(*node).is_none_or(|known| known.leaving);
            let held = self.load.get(node).map_or(0, |load| load.replicas);
            (leaving, self.in_rack(*node, nodes), held, *node)
        })
    }
}

#[cfg(test)]
mod tests;
