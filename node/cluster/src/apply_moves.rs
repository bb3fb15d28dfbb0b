//! Commands that move replicas: which partitions are where, and where they go.

use std::{collections::BTreeSet, sync::Arc};

use seriatim_proto::{
    ids::{GroupId, NodeId, PartitionId, ReplicaId},
    internal::v1 as wire,
};
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
};
use wire::meta_reply::Reply;

use crate::{
    apply::{Touched, malformed, next_replica},
    command::{MOVES_COUNTED_LEVEL, Refusal},
    image::{Image, PartitionInfo, Replica, Topic},
};

/// Begins moves, all or none. A partition that only gets another order of its replicas does not move:
/// its preferred leader changes at once.
pub(crate) fn move_partitions(
    image: &mut Image,
    moves: wire::MovePartitions,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    for planned in &moves.moves {
        check_move(image, planned)?;
    }
    if !moves.topic.is_empty() && !image.topics.contains_key(&moves.topic) {
        return Err(Refusal::UnknownTopic { name: moves.topic });
    }
    for planned in moves.moves {
        begin(image, &planned, touched);
    }
    if let Some(topic) = image.topics.get_mut(&moves.topic) {
        Arc::make_mut(topic).replication_factor = moves.replication_factor;
        let _ = touched.topics.insert(moves.topic);
    }
    Ok(Reply::Done(wire::Done {}))
}

fn check_move(image: &Image, planned: &wire::PartitionMove) -> Result<(), Refusal> {
    let Some((topic, number, partition)) = find(image, planned.group_id) else {
        return Err(Refusal::Outdated);
    };
    if partition.is_moving() {
        return Err(Refusal::Moving {
            topic: topic.name.clone(),
            partition: u64::try_from(number.0).unwrap_or_default(),
        });
    }
    if !partition
        .replicas
        .iter()
        .map(|replica| replica.node.0)
        .eq(planned.from_nodes.iter().copied())
    {
        return Err(Refusal::Outdated);
    }
    let distinct: BTreeSet<u64> = planned.nodes.iter().copied().collect();
    if distinct.is_empty() || distinct.len() != planned.nodes.len() {
        return Err(malformed("a partition needs replicas on different nodes"));
    }
    for node in distinct.into_iter().map(NodeId) {
        let Some(info) = image.node(node) else {
            return Err(Refusal::UnknownNode { node });
        };
        if info.leaving && partition.replica_on(node).is_none() {
            return Err(Refusal::NodeLeaving { node });
        }
    }
    Ok(())
}

/// Begins a move that was checked.
fn begin(image: &mut Image, planned: &wire::PartitionMove, touched: &mut Touched) {
    let Some((_, _, partition)) = find(image, planned.group_id) else {
        return;
    };
    let before = partition.replicas.clone();
    let founders = partition.founders.clone().unwrap_or_default();
    let target: Vec<Replica> = planned
        .nodes
        .iter()
        .map(|&node| {
            let mut there = before.iter().find(|replica| replica.node.0 == node);
            if mutant::on(Mutant::ReplicaIdReused) {
                let was = founders.iter().find(|replica| replica.node.0 == node);
                there = there.or(was);
            }
            there.copied().unwrap_or_else(|| Replica {
                id: next_replica(image),
                node: NodeId(node),
            })
        })
        .collect();
    let same = same_replicas(&before, target.iter().map(|replica| replica.id));
    let counted = counted(image);
    change(image, planned.group_id, touched, |partition| {
        if same {
            keep_founders(partition);
            partition.replicas = target;
        } else {
            partition.target = Some(target);
            partition.moves += counted;
        }
    });
}

/// The members of the group are those of the target: the other end of the move is given up.
///
/// The command says which move it means. It may come late, when this move was finished and the next one
/// turned round: its target is the same, and the members may still be others.
pub(crate) fn finish_move(
    image: &mut Image,
    finish: &wire::FinishMove,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    let members: Vec<ReplicaId> = finish.replica_ids.iter().copied().map(ReplicaId).collect();
    let Some((_, _, partition)) = find(image, finish.group_id) else {
        return Err(Refusal::Outdated);
    };
    if finish.moves != partition.moves {
        hit!("cluster.move.other");
        return Err(Refusal::Outdated);
    }
    match &partition.target {
        Some(target) if same_replicas(target, members.iter().copied()) => {}
        // A repeated command.
        None if same_replicas(&partition.replicas, members.iter().copied()) => {
            return Ok(Reply::Done(wire::Done {}));
        }
        _ => return Err(Refusal::Outdated),
    }
    hit!("cluster.move.finished");
    change(image, finish.group_id, touched, |partition| {
        keep_founders(partition);
        if let Some(target) = partition.target.take() {
            partition.replicas = target;
        }
        partition.returning = false;
    });
    Ok(Reply::Done(wire::Done {}))
}

/// Turns a move round. Nothing is given up by that: both ends keep their logs until the members of
/// the group are those of the first end again.
pub(crate) fn cancel_move(
    image: &mut Image,
    cancel: &wire::CancelMove,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    let Some((_, _, partition)) = find(image, cancel.group_id) else {
        return Err(Refusal::Outdated);
    };
    if partition.is_moving() && !partition.returning {
        hit!("cluster.move.cancelled");
        let counted = counted(image);
        change(image, cancel.group_id, touched, |partition| {
            keep_founders(partition);
            if let Some(target) = partition.target.take() {
                partition.target = Some(std::mem::replace(&mut partition.replicas, target));
            }
            partition.returning = true;
            partition.moves += counted;
        });
    }
    Ok(Reply::Done(wire::Done {}))
}

/// Adds partitions to a topic.
pub(crate) fn add_partitions(
    image: &mut Image,
    add: wire::AddPartitions,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    let Some(topic) = image.topics.get(&add.topic) else {
        return Err(Refusal::UnknownTopic { name: add.topic });
    };
    let have = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
    if topic.id != add.topic_id || have != add.first {
        return Err(Refusal::Outdated);
    }
    for placed in &add.partitions {
        let nodes: BTreeSet<u64> = placed.nodes.iter().copied().collect();
        if nodes.is_empty() || nodes.len() != placed.nodes.len() {
            return Err(malformed("a partition needs replicas on different nodes"));
        }
        let unknown = nodes.into_iter().map(NodeId);
        if let Some(node) = unknown.into_iter().find(|n| !image.nodes.contains_key(n)) {
            return Err(Refusal::UnknownNode { node });
        }
    }
    let mut new = Vec::with_capacity(add.partitions.len());
    for placed in add.partitions {
        let group = GroupId(image.next_group);
        image.next_group += 1;
        let nodes = placed.nodes.into_iter().map(NodeId);
        let replicas = nodes.map(|node| Replica {
            id: next_replica(image),
            node,
        });
        new.push(PartitionInfo {
            group,
            replicas: replicas.collect(),
            ..PartitionInfo::default()
        });
    }
    if let Some(topic) = image.topics.get_mut(&add.topic) {
        Arc::make_mut(topic).partitions.extend(new);
    }
    let _ = touched.topics.insert(add.topic);
    Ok(Reply::Done(wire::Done {}))
}

/// What a move adds to the count of them. Older software does not count, and every node must have the same
/// image.
fn counted(image: &Image) -> u64 {
    u64::from(image.feature_level >= MOVES_COUNTED_LEVEL)
}

fn same_replicas(replicas: &[Replica], ids: impl Iterator<Item = ReplicaId>) -> bool {
    let one: BTreeSet<ReplicaId> = replicas.iter().map(|replica| replica.id).collect();
    one == ids.collect()
}

/// Only founders may initialize a group, so they are remembered before the replicas change.
fn keep_founders(partition: &mut PartitionInfo) {
    let replicas = &partition.replicas;
    let _ = partition.founders.get_or_insert_with(|| replicas.clone());
}

fn find(image: &Image, group: u64) -> Option<(&Arc<Topic>, PartitionId, &PartitionInfo)> {
    image.partitions().find(|(_, _, p)| p.group.0 == group)
}

fn change(
    image: &mut Image,
    group: u64,
    touched: &mut Touched,
    change: impl FnOnce(&mut PartitionInfo),
) {
    let holds = |partition: &PartitionInfo| partition.group.0 == group;
    let mut topics = image.topics.values_mut();
    let Some(topic) = topics.find(|topic| topic.partitions.iter().any(holds)) else {
        return;
    };
    let topic = Arc::make_mut(topic);
    if let Some(partition) = topic.partitions.iter_mut().find(|p| holds(p)) {
        change(partition);
        let _ = touched.topics.insert(topic.name.clone());
    }
}

#[cfg(test)]
#[path = "apply_moves_tests.rs"]
mod tests;
