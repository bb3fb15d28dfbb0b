//! Applies a command to the image: a pure function, so that every node comes to the same image.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use seriatim_proto::{
    ids::{GroupId, NodeId, ReplicaId},
    internal::v1 as wire,
    topic_name,
};
use seriatim_runtime::mutant::{self, Mutant};
use wire::{meta_command::Command, meta_reply::Reply};

use crate::{
    apply_moves, apply_nodes,
    command::{self, DELETED_REQUESTS_LEVEL, MAX_PRODUCER_BLOCK, Refusal},
    image::{DELETED_REQUESTS, Image, NodeInfo, PartitionInfo, Replica, Topic, effective_settings},
    placement,
};

/// What a batch of commands touched: only this is written to disk. The header is always written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) nodes: BTreeSet<NodeId>,
    pub(crate) topics: BTreeSet<String>,
}

/// Applies one command. A refused command leaves the image as it was.
pub(crate) fn apply(
    image: &mut Image,
    command: Command,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    if image.cluster_id.is_empty() && !matches!(command, Command::FoundCluster(_)) {
        return Err(Refusal::NotFounded);
    }
    let version = command::version(&command);
    let reply = match command {
        Command::FoundCluster(found) => found_cluster(image, found, touched),
        Command::RegisterNode(register) => register_node(image, register, touched),
        Command::CreateTopic(create) => create_topic(image, create, touched),
        Command::DeleteTopic(delete) => delete_topic(image, &delete, touched),
        Command::AlterTopic(alter) => alter_topic(image, alter, touched),
        Command::AllocateProducerIds(ids) => allocate_producer_ids(image, &ids),
        Command::ReplaceReplica(replace) => replace_replica(image, &replace, touched),
        Command::MovePartitions(moves) => apply_moves::move_partitions(image, moves, touched),
        Command::FinishMove(finish) => apply_moves::finish_move(image, &finish, touched),
        Command::CancelMove(cancel) => apply_moves::cancel_move(image, &cancel, touched),
        Command::AddPartitions(add) => apply_moves::add_partitions(image, add, touched),
        Command::SetLeaving(set) => apply_nodes::set_leaving(image, &set, touched),
        Command::RemoveNode(remove) => apply_nodes::remove_node(image, &remove, touched),
        Command::SetControllers(set) => apply_nodes::set_controllers(image, &set, touched),
    }?;
    if version > 1 {
        // Whoever proposed it knew that every node understands it; from now on every node must.
        image.feature_level = image.feature_level.max(version);
    }
    Ok(reply)
}

pub(crate) fn malformed(what: &str) -> Refusal {
    Refusal::Malformed {
        what: what.to_owned(),
    }
}

pub(crate) fn next_replica(image: &mut Image) -> ReplicaId {
    let id = ReplicaId(image.next_replica);
    image.next_replica += 1;
    id
}

fn found_cluster(
    image: &mut Image,
    found: wire::FoundCluster,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    if !image.cluster_id.is_empty() {
        return Err(Refusal::AlreadyFounded {
            cluster_id: image.cluster_id.clone(),
        });
    }
    if found.cluster_id.is_empty() || found.founders.is_empty() {
        return Err(malformed("a cluster needs an identity and a founder"));
    }
    image.cluster_id = found.cluster_id;
    image.next_group = GroupId::METADATA.0 + 1;
    let highest = found
        .founders
        .iter()
        .map(|founder| founder.replica_id)
        .max();
    image.next_replica = highest.unwrap_or_default() + 1;
    for founder in found.founders.into_iter().map(Replica::from) {
        let node = NodeInfo {
            id: founder.node,
            controller_replica: founder.id,
            voter: true,
            ..NodeInfo::default()
        };
        let _ = touched.nodes.insert(node.id);
        let _ = image.nodes.insert(node.id, Arc::new(node));
    }
    Ok(Reply::Done(wire::Done {}))
}

fn register_node(
    image: &mut Image,
    register: wire::RegisterNode,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    let mut node = NodeInfo::from(register.node.ok_or_else(|| malformed("no node"))?);
    if node.id.0 == 0 || node.incarnation.is_empty() {
        return Err(malformed("a node needs an id and an incarnation"));
    }
    if node.feature_level < image.feature_level {
        return Err(Refusal::TooOld {
            node: node.id,
            level: node.feature_level,
            needed: image.feature_level,
        });
    }
    let known = image.nodes.get(&node.id).cloned();
    let claimed = node.controller_replica;
    // What it says is the time now.
    let now_ms = std::mem::take(&mut node.data_lost_ms);
    node.leaving = known.as_ref().is_some_and(|known| known.leaving);
    match known {
        // It was a part of the cluster and was removed since. At an older level nobody is.
        None if claimed.0 != 0 && image.feature_level > 1 => {
            return Err(Refusal::UnknownReplica {
                group: GroupId::METADATA,
                replica: claimed,
            });
        }
        None => {
            node.voter = false;
            node.controller_replica = next_replica(image);
        }
        Some(known) => {
            // A founder's record has no incarnation until its first registration.
            let same = if known.incarnation.is_empty() {
                claimed == known.controller_replica
            } else {
                known.incarnation == node.incarnation
            };
            node.voter = known.voter;
            node.controller_replica = known.controller_replica;
            node.data_lost_ms = known.data_lost_ms;
            if !same {
                let here = known.replication_addr.as_str();
                if !here.is_empty() && here != node.replication_addr {
                    return Err(Refusal::NodeIdTaken {
                        node: node.id,
                        address: here.to_owned(),
                    });
                }
                // The data folder is gone and with it the votes of every replica: none of their
                // ids may be used again.
                node.controller_replica = next_replica(image);
                node.data_lost_ms = now_ms;
                replace_all(image, node.id, touched);
            }
        }
    }
    let replica = node.controller_replica.0;
    let _ = touched.nodes.insert(node.id);
    let _ = image.nodes.insert(node.id, Arc::new(node));
    raise_feature_level(image);
    Ok(Reply::ReplicaId(replica))
}

/// Lets everybody use what every node knows; from then on no node that knows less may register. Level
/// 1 knew no levels and left the image's at 0, so it is not recorded.
fn raise_feature_level(image: &mut Image) {
    let known = image.nodes.values().map(|node| node.feature_level).min();
    let known = known.filter(|level| *level > 1).unwrap_or_default();
    image.feature_level = image.feature_level.max(known);
}

fn replace_all(image: &mut Image, node: NodeId, touched: &mut Touched) {
    let here: Vec<(GroupId, ReplicaId)> = image
        .partitions()
        .filter_map(|(_, _, partition)| Some((partition.group, partition.replica_on(node)?.id)))
        .collect();
    for (group, replica) in here {
        // Cannot be refused: both were read from this image.
        let replace = wire::ReplaceReplica {
            group_id: group.0,
            replica_id: replica.0,
        };
        let replaced = replace_replica(image, &replace, touched);
        debug_assert!(replaced.is_ok());
    }
}

fn create_topic(
    image: &mut Image,
    create: wire::CreateTopic,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    if let Some(topic) = image.topics.get(&create.name)
        && !create.request_id.is_empty()
        && topic.request_id == create.request_id
    {
        return Ok(Reply::Topic((&**topic).into()));
    }
    check_not_deleted(image, &create.name, &create.request_id)?;
    check_create(image, &create)?;
    let overrides: BTreeMap<String, String> = create
        .settings
        .into_iter()
        .map(|setting| (setting.name, setting.value))
        .collect();
    let replication_factor = create
        .partitions
        .first()
        .map_or(0, |placed| placed.nodes.len());
    let mut partitions = Vec::with_capacity(create.partitions.len());
    for placed in create.partitions {
        let group = GroupId(image.next_group);
        image.next_group += 1;
        let replicas = placed
            .nodes
            .into_iter()
            .map(|node| Replica {
                id: next_replica(image),
                node: NodeId(node),
            })
            .collect();
        partitions.push(PartitionInfo {
            group,
            replicas,
            ..PartitionInfo::default()
        });
    }
    let topic = Topic {
        name: create.name,
        id: create.topic_id,
        replication_factor: u32::try_from(replication_factor).unwrap_or(u32::MAX),
        settings: effective_settings(&overrides),
        overrides,
        partitions,
        request_id: create.request_id,
    };
    let record = (&topic).into();
    let _ = touched.topics.insert(topic.name.clone());
    let _ = image.topics.insert(topic.name.clone(), Arc::new(topic));
    Ok(Reply::Topic(record))
}

/// Whether the name is free; for the one who is about to place a topic, too.
pub(crate) fn check_name(image: &Image, name: &str) -> Result<(), Refusal> {
    if image.topics.contains_key(name) {
        return Err(Refusal::TopicExists {
            name: name.to_owned(),
        });
    }
    match image
        .topics
        .keys()
        .find(|other| topic_name::collide(other, name))
    {
        Some(other) => Err(Refusal::NameCollision {
            name: other.clone(),
        }),
        None => Ok(()),
    }
}

fn check_create(image: &Image, create: &wire::CreateTopic) -> Result<(), Refusal> {
    if topic_name::validate(&create.name).is_err() {
        return Err(malformed("not a topic name"));
    }
    check_name(image, &create.name)?;
    if create.partitions.is_empty() || create.topic_id.is_empty() {
        return Err(malformed("a topic needs an identity and a partition"));
    }
    for placed in &create.partitions {
        let mut nodes = BTreeSet::new();
        if placed.nodes.is_empty() || !placed.nodes.iter().all(|node| nodes.insert(*node)) {
            return Err(malformed("a partition needs replicas on different nodes"));
        }
        if let Some(node) = nodes
            .into_iter()
            .map(NodeId)
            .find(|n| !image.nodes.contains_key(n))
        {
            return Err(Refusal::UnknownNode { node });
        }
    }
    Ok(())
}

fn delete_topic(
    image: &mut Image,
    delete: &wire::DeleteTopic,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    match image.topics.get(&delete.name) {
        Some(topic) if delete.topic_id.is_empty() || topic.id == delete.topic_id => {
            let deleted = image.topics.remove(&delete.name);
            let _ = touched.topics.insert(delete.name.clone());
            remember_deleted(image, deleted.map(|topic| topic.request_id.clone()));
            Ok(Reply::Done(wire::Done {}))
        }
        Some(other) => Err(Refusal::OtherTopic {
            name: delete.name.clone(),
            topic_id: other.id.clone(),
        }),
        None => Err(Refusal::UnknownTopic {
            name: delete.name.clone(),
        }),
    }
}

/// Remembers which request had created a topic. Older software does not, and every node must have the same
/// image.
fn remember_deleted(image: &mut Image, request_id: Option<String>) {
    let request_id = request_id.filter(|id| !id.is_empty());
    if image.feature_level < DELETED_REQUESTS_LEVEL {
        return;
    }
    image.deleted_requests.extend(request_id);
    while image.deleted_requests.len() > DELETED_REQUESTS {
        let _oldest = image.deleted_requests.pop_front();
    }
}

/// A request may arrive once more when its topic was created and deleted again: a node that was asked
/// first may still be trying.
fn check_not_deleted(image: &Image, name: &str, request_id: &str) -> Result<(), Refusal> {
    if image.deleted_requests.iter().any(|id| id == request_id) {
        return Err(Refusal::CreatedAndDeleted {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn alter_topic(
    image: &mut Image,
    alter: wire::AlterTopic,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    let Some(topic) = image.topics.get_mut(&alter.name) else {
        return Err(Refusal::UnknownTopic { name: alter.name });
    };
    let topic = Arc::make_mut(topic);
    for setting in alter.settings {
        if setting.value.is_empty() {
            let _ = topic.overrides.remove(&setting.name);
        } else {
            let _ = topic.overrides.insert(setting.name, setting.value);
        }
    }
    topic.settings = effective_settings(&topic.overrides);
    let _ = touched.topics.insert(alter.name);
    // Without its partitions: who altered it wants the settings.
    Ok(Reply::Topic(wire::TopicRecord {
        partitions: Vec::new(),
        ..(&*topic).into()
    }))
}

fn allocate_producer_ids(
    image: &mut Image,
    ids: &wire::AllocateProducerIds,
) -> Result<Reply, Refusal> {
    if !(1..=MAX_PRODUCER_BLOCK).contains(&ids.count) {
        return Err(malformed("producer ids come in blocks of 1 to 100000"));
    }
    let first = image.next_producer_id;
    if !mutant::on(Mutant::ProducerIdsReused) {
        image.next_producer_id += u64::from(ids.count);
    }
    Ok(Reply::ProducerIds(wire::ProducerIds {
        first,
        count: ids.count,
    }))
}

fn replace_replica(
    image: &mut Image,
    replace: &wire::ReplaceReplica,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    let unknown = Refusal::UnknownReplica {
        group: GroupId(replace.group_id),
        replica: ReplicaId(replace.replica_id),
    };
    let new = ReplicaId(image.next_replica);
    if GroupId(replace.group_id) == GroupId::METADATA {
        let mut nodes = image.nodes.values_mut();
        let node = nodes.find(|node| node.controller_replica.0 == replace.replica_id);
        let node = Arc::make_mut(node.ok_or(unknown)?);
        node.controller_replica = new;
        let _ = touched.nodes.insert(node.id);
    } else {
        let holds = |partition: &PartitionInfo| partition.group.0 == replace.group_id;
        let mut topics = image.topics.values_mut();
        let topic = topics
            .find(|topic| topic.partitions.iter().any(holds))
            .ok_or(unknown.clone())?;
        // Checked before the topic is copied or changed.
        let partition = topic
            .partitions
            .iter()
            .position(holds)
            .ok_or(unknown.clone())?;
        let known = |partition: &PartitionInfo| {
            let mut hosted = partition.hosted();
            hosted.any(|replica| replica.id.0 == replace.replica_id)
        };
        if !topic.partitions.get(partition).is_some_and(known) {
            return Err(unknown);
        }
        let topic = Arc::make_mut(topic);
        let partition = topic.partitions.get_mut(partition).ok_or(unknown)?;
        let _ = partition
            .founders
            .get_or_insert_with(|| partition.replicas.clone());
        let ends = partition.replicas.iter_mut();
        for replica in ends.chain(partition.target.iter_mut().flatten()) {
            if replica.id.0 == replace.replica_id {
                replica.id = new;
            }
        }
        let _ = touched.topics.insert(topic.name.clone());
    }
    image.next_replica += 1;
    Ok(Reply::ReplicaId(new.0))
}

/// The command that creates a topic: places it on the nodes of this image.
pub(crate) fn plan_topic(
    image: &Image,
    intent: &wire::CreateTopicIntent,
    topic_id: String,
) -> Result<wire::CreateTopic, Refusal> {
    let replay = image.topics.get(&intent.name).is_some_and(|topic| {
        !intent.request_id.is_empty() && topic.request_id == intent.request_id
    });
    if !replay {
        check_name(image, &intent.name)?;
    }
    let replicas = match intent.replication_factor {
        0 => image.staying().count().clamp(1, 3),
        wanted => usize::try_from(wanted).unwrap_or(usize::MAX),
    };
    let partitions = usize::try_from(intent.partitions.max(1)).unwrap_or(usize::MAX);
    let placed = placement::place(image, partitions, replicas).map_err(|lacking| {
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Refusal::NotEnoughNodes {
            wanted: number(lacking.wanted),
            have: number(lacking.have),
        }
    })?;
    Ok(wire::CreateTopic {
        name: intent.name.clone(),
        topic_id,
        request_id: intent.request_id.clone(),
        settings: intent.settings.clone(),
        partitions: placed
            .into_iter()
            .map(|nodes| wire::PlacedPartition {
                nodes: nodes.into_iter().map(|node| node.0).collect(),
            })
            .collect(),
    })
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
