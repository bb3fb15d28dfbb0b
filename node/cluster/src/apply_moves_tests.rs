//! Tests of moves: examples, and properties over random histories.

use proptest::prelude::*;
use wire::meta_command::Command;

use super::*;
use crate::{apply, image::NodeInfo, plan};

fn run(image: &mut Image, command: Command) -> Result<Reply, Refusal> {
    apply::apply(image, command, &mut Touched::default())
}

/// A cluster of `nodes` nodes and a topic.
fn cluster(nodes: u64, partitions: u32, replicas: u32) -> Image {
    let mut image = Image {
        cluster_id: "c".to_owned(),
        next_group: 1,
        next_replica: nodes + 1,
        ..Image::default()
    };
    for id in (1..=nodes).map(NodeId) {
        let info = NodeInfo {
            id,
            feature_level: 3,
            controller_replica: ReplicaId(id.0),
            incarnation: "a".to_owned(),
            voter: id.0 <= 3,
            ..NodeInfo::default()
        };
        let _none = image.nodes.insert(id, Arc::new(info));
    }
    let intent = wire::CreateTopicIntent {
        name: "t".to_owned(),
        partitions,
        replication_factor: replicas,
        ..wire::CreateTopicIntent::default()
    };
    let create = apply::plan_topic(&image, &intent, "id".to_owned()).unwrap();
    let _created = run(&mut image, Command::CreateTopic(create)).unwrap();
    image
}

fn partition(image: &Image, number: i32) -> &PartitionInfo {
    image.topics["t"].partition(PartitionId(number)).unwrap()
}

fn begin_move(image: &mut Image, number: i32, nodes: &[u64]) -> Result<Reply, Refusal> {
    let nodes: Vec<NodeId> = nodes.iter().copied().map(NodeId).collect();
    let planned = plan::reassign(image, "t", PartitionId(number), &nodes)?;
    let moves: Vec<plan::Move> = planned.into_iter().collect();
    run(image, Command::MovePartitions(plan::command(&moves)))
}

fn ids(replicas: &[Replica]) -> Vec<u64> {
    replicas.iter().map(|replica| replica.id.0).collect()
}

fn finish(image: &mut Image, number: i32, replica_ids: Vec<u64>) -> Result<Reply, Refusal> {
    let moves = partition(image, number).moves;
    finish_that(image, number, replica_ids, moves)
}

fn finish_that(
    image: &mut Image,
    number: i32,
    replica_ids: Vec<u64>,
    moves: u64,
) -> Result<Reply, Refusal> {
    let finish = wire::FinishMove {
        group_id: partition(image, number).group.0,
        replica_ids,
        moves,
    };
    run(image, Command::FinishMove(finish))
}

fn cancel(image: &mut Image, number: i32) -> Result<Reply, Refusal> {
    let group_id = partition(image, number).group.0;
    run(image, Command::CancelMove(wire::CancelMove { group_id }))
}

#[test]
fn a_move_keeps_both_ends_until_it_is_finished() {
    let mut image = cluster(4, 1, 3);
    let before = partition(&image, 0).replicas.clone();
    let new: Vec<u64> = before.iter().skip(1).map(|r| r.node.0).chain([4]).collect();
    let fresh = image.next_replica;
    let _begun = begin_move(&mut image, 0, &new).unwrap();
    let moving = partition(&image, 0).clone();
    assert_eq!(moving.replicas, before, "what there is has not changed");
    assert_eq!(moving.hosted().count(), 4);
    assert_eq!(moving.replica_on(NodeId(4)).unwrap().id, ReplicaId(fresh));
    assert_eq!(
        image.feature_level, 2,
        "older software may not join any more"
    );

    let refused = begin_move(&mut image, 0, &[1]).unwrap_err();
    assert!(matches!(refused, Refusal::Moving { .. }), "{refused}");
    let old = ids(&before);
    assert_eq!(finish(&mut image, 0, old), Err(Refusal::Outdated));

    let target = ids(moving.goal());
    let _finished = finish(&mut image, 0, target.clone()).unwrap();
    let done = partition(&image, 0).clone();
    assert_eq!(
        (ids(&done.replicas), done.is_moving()),
        (target.clone(), false)
    );
    assert_eq!(
        done.founders(),
        before,
        "only they may initialize the group"
    );
    let after = image.clone();
    let _again = finish(&mut image, 0, target).unwrap();
    assert_eq!(image, after, "a repeated command changes nothing");
}

#[test]
fn a_cancelled_move_turns_round_once() {
    let mut image = cluster(4, 1, 3);
    let before = partition(&image, 0).replicas.clone();
    let nodes: Vec<u64> = before.iter().skip(1).map(|r| r.node.0).chain([4]).collect();
    let _begun = begin_move(&mut image, 0, &nodes).unwrap();
    let _turned = cancel(&mut image, 0).unwrap();
    let back = partition(&image, 0).clone();
    assert_eq!((back.goal(), back.hosted().count()), (&before[..], 4));
    let _again = cancel(&mut image, 0).unwrap();
    assert_eq!(*partition(&image, 0), back, "it does not turn back again");
    let _done = finish(&mut image, 0, ids(&before)).unwrap();
    let done = partition(&image, 0);
    assert_eq!((&done.replicas, done.is_moving()), (&before, false));
    assert_eq!(done.founders(), before);
    let still = image.clone();
    let _nothing = cancel(&mut image, 0).unwrap();
    assert_eq!(image, still, "there is nothing to cancel");
}

/// Found by simulator seed 183: a leader whose disk was full saw a move and, much later, the next one, which
/// was turned round and wanted the same replicas.
#[test]
fn moves_to_the_same_replicas_are_told_apart() {
    let mut image = cluster(4, 1, 3);
    image.feature_level = MOVES_COUNTED_LEVEL;
    let first: Vec<u64> = partition(&image, 0)
        .replicas
        .iter()
        .map(|r| r.node.0)
        .collect();
    let others: Vec<u64> = first.iter().copied().skip(1).chain([4]).collect();
    let _begun = begin_move(&mut image, 0, &others).unwrap();
    let there = partition(&image, 0).clone();
    let _finished = finish(&mut image, 0, ids(there.goal())).unwrap();
    let _begun = begin_move(&mut image, 0, &first).unwrap();
    let _turned = cancel(&mut image, 0).unwrap();
    let back = partition(&image, 0).clone();
    assert_eq!(back.goal(), there.goal(), "the same replicas");
    assert_ne!(back.moves, there.moves, "another move");
    let late = finish_that(&mut image, 0, ids(there.goal()), there.moves);
    assert_eq!(late, Err(Refusal::Outdated));
    assert_eq!(*partition(&image, 0), back);
    let _done = finish(&mut image, 0, ids(back.goal())).unwrap();
    assert!(!partition(&image, 0).is_moving());
}

/// Software of before may still run, and would not count.
#[test]
fn moves_are_counted_once_every_node_can() {
    let mut image = cluster(4, 1, 3);
    image.feature_level = MOVES_COUNTED_LEVEL - 1;
    let _begun = begin_move(&mut image, 0, &[4]).unwrap();
    let _turned = cancel(&mut image, 0).unwrap();
    assert_eq!(partition(&image, 0).moves, 0);
}

#[test]
fn another_order_is_no_move() {
    let mut image = cluster(3, 1, 3);
    let before = partition(&image, 0).clone();
    let nodes: Vec<u64> = before.replicas.iter().rev().map(|r| r.node.0).collect();
    let _done = begin_move(&mut image, 0, &nodes).unwrap();
    let after = partition(&image, 0);
    assert!(!after.is_moving());
    let mut reversed = before.replicas.clone();
    reversed.reverse();
    assert_eq!(after.replicas, reversed);
    assert_eq!(after.founders(), before.replicas);
}

#[test]
fn a_damaged_replica_is_replaced_at_both_ends() {
    let mut image = cluster(4, 1, 3);
    let kept = partition(&image, 0).replicas[1];
    let nodes: Vec<u64> = [kept.node.0].into_iter().chain([4]).collect();
    let _begun = begin_move(&mut image, 0, &nodes).unwrap();
    let replace = wire::ReplaceReplica {
        group_id: partition(&image, 0).group.0,
        replica_id: kept.id.0,
    };
    let _fresh = run(&mut image, Command::ReplaceReplica(replace)).unwrap();
    let moving = partition(&image, 0);
    let fresh = moving.replica_on(kept.node).unwrap();
    assert_ne!(fresh.id, kept.id);
    assert!(moving.replicas.contains(&fresh) && moving.goal().contains(&fresh));
}

#[test]
fn partitions_are_added_once() {
    let mut image = cluster(3, 2, 2);
    let intent = wire::AddPartitionsIntent {
        topic: "t".to_owned(),
        partitions: 5,
    };
    let add = plan::add_partitions(&image, &intent).unwrap().unwrap();
    let _added = run(&mut image, Command::AddPartitions(add.clone())).unwrap();
    assert_eq!(image.topics["t"].partitions.len(), 5);
    let again = run(&mut image, Command::AddPartitions(add));
    assert_eq!(again, Err(Refusal::Outdated));
    assert_eq!(plan::add_partitions(&image, &intent), Ok(None));
    let fewer = wire::AddPartitionsIntent {
        partitions: 4,
        ..intent
    };
    let refused = plan::add_partitions(&image, &fewer).unwrap_err();
    assert!(matches!(refused, Refusal::FewerPartitions { have: 5, .. }));
}

/// What may happen to a partition.
#[derive(Debug, Clone)]
enum Act {
    Move(usize, Vec<u64>),
    Finish(usize),
    Cancel(usize),
    Replace(usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    let nodes = proptest::sample::subsequence(vec![1, 2, 3, 4, 5], 1..=5).prop_shuffle();
    prop_oneof![
        3 => (0_usize..3, nodes).prop_map(|(partition, nodes)| Act::Move(partition, nodes)),
        2 => (0_usize..3).prop_map(Act::Finish),
        1 => (0_usize..3).prop_map(Act::Cancel),
        1 => (0_usize..3, 0_usize..6).prop_map(|(partition, at)| Act::Replace(partition, at)),
    ]
}

proptest! {
    /// Whatever happens: no replica id is given out twice, no node holds a partition twice, and a
    /// replica that is given up is never one of the goal's.
    #[test]
    fn replicas_come_and_go_in_order(acts in proptest::collection::vec(act(), 0..40)) {
        let mut image = cluster(5, 3, 3);
        let mut gone: BTreeSet<ReplicaId> = BTreeSet::new();
        for act in acts {
            let before = image.clone();
            let number = |at: usize| i32::try_from(at).unwrap();
            let outcome = match act {
                Act::Move(at, nodes) => begin_move(&mut image, number(at), &nodes),
                Act::Finish(at) => {
                    let goal = ids(partition(&image, number(at)).goal());
                    finish(&mut image, number(at), goal)
                }
                Act::Cancel(at) => cancel(&mut image, number(at)),
                Act::Replace(at, which) => {
                    let info = partition(&image, number(at));
                    let hosted: Vec<Replica> = info.hosted().collect();
                    let replace = wire::ReplaceReplica {
                        group_id: info.group.0,
                        replica_id: hosted[which % hosted.len()].id.0,
                    };
                    run(&mut image, Command::ReplaceReplica(replace))
                }
            };
            if outcome.is_err() {
                prop_assert_eq!(&image, &before, "a refused command changes nothing");
                continue;
            }
            for (at, info) in before.topics["t"].partitions.iter().enumerate() {
                let now = partition(&image, number(at));
                let held: BTreeSet<ReplicaId> = now.hosted().map(|r| r.id).collect();
                gone.extend(info.hosted().map(|r| r.id).filter(|id| !held.contains(id)));
            }
            let mut seen = BTreeSet::new();
            for (_, _, info) in image.partitions() {
                let nodes: BTreeSet<NodeId> = info.hosted().map(|r| r.node).collect();
                prop_assert_eq!(nodes.len(), info.hosted().count(), "{:?}", info);
                for replica in info.hosted() {
                    prop_assert!(replica.id.0 < image.next_replica);
                    prop_assert!(seen.insert(replica.id), "{:?} is held twice", replica);
                    prop_assert!(!gone.contains(&replica.id), "{:?} is back", replica);
                }
            }
            let copy = Image::from_record(image.to_record());
            prop_assert_eq!(&copy, &image, "the stored form says the same");
        }
    }
}
