//! Properties of plans over random clusters.

use std::sync::Arc;

use proptest::prelude::*;
use seriatim_proto::ids::ReplicaId;

use super::*;
use crate::image::{NodeInfo, Replica};

/// Nodes with their racks; partitions with the nodes that hold them.
fn image(racks: &[u8], partitions: &[Vec<u64>]) -> Image {
    let mut image = Image {
        cluster_id: "c".to_owned(),
        ..Image::default()
    };
    for (id, rack) in (1..).map(NodeId).zip(racks) {
        let info = NodeInfo {
            id,
            rack: match rack {
                0 => String::new(),
                rack => format!("r{rack}"),
            },
            ..NodeInfo::default()
        };
        let _none = image.nodes.insert(id, Arc::new(info));
    }
    let mut next = 1;
    let partitions = (1..).map(GroupId).zip(partitions).map(|(group, nodes)| {
        let replicas = nodes.iter().map(|&node| {
            next += 1;
            Replica {
                id: ReplicaId(next),
                node: NodeId(node),
            }
        });
        PartitionInfo {
            group,
            replicas: replicas.collect(),
            ..PartitionInfo::default()
        }
    });
    let topic = Topic {
        name: "t".to_owned(),
        replication_factor: 3,
        partitions: partitions.collect(),
        ..Topic::default()
    };
    let _none = image.topics.insert("t".to_owned(), Arc::new(topic));
    image
}

fn leave(image: &mut Image, node: u64) {
    let info = image.nodes.get_mut(&NodeId(node)).unwrap();
    Arc::make_mut(info).leaving = true;
}

fn perform(image: &mut Image, moves: &[Move]) {
    let topic = Arc::make_mut(image.topics.get_mut("t").unwrap());
    for planned in moves {
        let at = usize::try_from(planned.partition.0).unwrap();
        let info = &mut topic.partitions[at];
        let held: Vec<NodeId> = info.replicas.iter().map(|r| r.node).collect();
        assert_eq!(held, planned.from);
        let replicas = planned.to.iter().map(|&node| Replica {
            id: ReplicaId(0),
            node,
        });
        info.replicas = replicas.collect();
    }
}

fn spread_of(counts: impl Iterator<Item = u64> + Clone) -> u64 {
    counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0)
}

fn racks_used(image: &Image, nodes: &[NodeId]) -> usize {
    let racks = placement::racks(image);
    nodes
        .iter()
        .map(|node| &racks[node])
        .collect::<BTreeSet<_>>()
        .len()
}

/// Racks of 3 to 7 nodes and partitions on any of the first three.
fn crowded() -> impl Strategy<Value = (Vec<u8>, Vec<Vec<u64>>)> {
    let racks = proptest::collection::vec(Just(0_u8), 3..8);
    let nodes = proptest::sample::subsequence(vec![1_u64, 2, 3], 1..=3).prop_shuffle();
    (racks, proptest::collection::vec(nodes, 0..40))
}

#[test]
fn growing_from_three_to_five_moves_two_fifths() {
    let partitions = vec![vec![1, 2, 3]; 10];
    let mut grown = image(&[0; 5], &partitions);
    let moves = spread(&grown);
    let copied: usize = moves
        .iter()
        .map(|planned| {
            planned
                .to
                .iter()
                .filter(|n| !planned.from.contains(n))
                .count()
        })
        .sum();
    assert_eq!(copied, 12, "30 replicas, 6 for each node");
    perform(&mut grown, &moves);
    let load = grown.load();
    assert!(load.values().all(|load| load.replicas == 6), "{load:?}");
    assert!(load.values().all(|load| load.leaders == 2), "{load:?}");
    assert_eq!(spread(&grown), [], "nothing is left to do");
}

#[test]
fn a_node_may_not_leave_where_its_replicas_find_no_place() {
    let three = image(&[0; 3], &[vec![1, 2, 3]]);
    let refused = check_leave(&three, NodeId(2)).unwrap_err();
    assert_eq!(refused, Refusal::NotEnoughNodes { wanted: 3, have: 2 });
    let four = image(&[0; 4], &[vec![1, 2, 3]]);
    assert_eq!(check_leave(&four, NodeId(2)), Ok(()));
}

#[test]
fn voters_are_one_two_three_or_five() {
    let everyone: BTreeSet<NodeId> = (1..=7).map(NodeId).collect();
    let mut image = image(&[0; 5], &[]);
    let vote = |image: &mut Image, voters: &BTreeSet<NodeId>| {
        for (id, node) in &mut image.nodes {
            Arc::make_mut(node).voter = voters.contains(id);
        }
    };
    let five = controllers(&image, &everyone).unwrap();
    assert_eq!(five.len(), 5);
    vote(&mut image, &five);
    assert_eq!(controllers(&image, &everyone), None);
    leave(&mut image, 2);
    let three = controllers(&image, &everyone).unwrap();
    assert_eq!(three.len(), 3);
    assert!(!three.contains(&NodeId(2)), "{three:?}");
    vote(&mut image, &three);
    // A voter leaves and nobody is ready: it goes on voting.
    leave(&mut image, three.first().unwrap().0);
    assert_eq!(controllers(&image, &BTreeSet::new()), None);
    let replaced = controllers(&image, &everyone).unwrap();
    assert_eq!(replaced.len(), 3);
}

proptest! {
    #[test]
    fn spreads_are_even_and_final((racks, partitions) in crowded()) {
        let mut image = image(&racks, &partitions);
        let moves = spread(&image);
        // No replica moves that need not: each that is copied leaves a node that held too many.
        let before = image.load();
        let total: u64 = before.values().map(|load| load.replicas).sum();
        let low = total / u64::try_from(racks.len()).unwrap();
        let excess: u64 = before.values().map(|load| load.replicas.saturating_sub(low)).sum();
        let copied: usize = moves
            .iter()
            .map(|planned| planned.to.iter().filter(|n| !planned.from.contains(n)).count())
            .sum();
        prop_assert!(u64::try_from(copied).unwrap() <= excess);
        perform(&mut image, &moves);
        let load = image.load();
        prop_assert!(spread_of(load.values().map(|load| load.replicas)) <= 1, "{:?}", load);
        prop_assert_eq!(spread(&image), [], "nothing is left to do");
    }

    #[test]
    fn spreads_keep_racks_apart(
        racks in proptest::collection::vec(1_u8..4, 3..8),
        partitions in proptest::collection::vec(
            proptest::sample::subsequence(vec![1_u64, 2, 3], 1..=3).prop_shuffle(), 0..20),
    ) {
        let image = image(&racks, &partitions);
        for planned in spread(&image) {
            let distinct: BTreeSet<_> = planned.to.iter().collect();
            prop_assert_eq!(distinct.len(), planned.from.len());
            prop_assert!(racks_used(&image, &planned.to) >= racks_used(&image, &planned.from));
        }
    }

    #[test]
    fn nothing_stays_on_a_node_that_leaves((racks, partitions) in crowded(), gone in 1_u64..4) {
        let mut image = image(&racks, &partitions);
        prop_assume!(check_leave(&image, NodeId(gone)).is_ok());
        leave(&mut image, gone);
        let moves = evacuate(&image);
        for planned in &moves {
            prop_assert!(planned.from.contains(&NodeId(gone)), "{:?} need not move", planned);
            let kept = planned.to.iter().filter(|n| planned.from.contains(n)).count();
            prop_assert_eq!(kept, planned.from.len() - 1);
        }
        perform(&mut image, &moves);
        prop_assert!(!image.holds_replicas(NodeId(gone)));
        prop_assert_eq!(evacuate(&image), []);
    }

    #[test]
    fn every_partition_gets_its_replicas((racks, partitions) in crowded(), factor in 1_u32..6) {
        let mut image = image(&racks, &partitions);
        match replication_factor(&image, "t", factor) {
            Ok(moves) => {
                for planned in &moves {
                    prop_assert_eq!(planned.to.first(), planned.from.first());
                }
                perform(&mut image, &moves);
                let wanted = usize::try_from(factor).unwrap();
                for (_, _, info) in image.partitions() {
                    let nodes: BTreeSet<NodeId> = info.replicas.iter().map(|r| r.node).collect();
                    prop_assert_eq!((nodes.len(), info.replicas.len()), (wanted, wanted));
                }
            }
            Err(_) => prop_assert!(usize::try_from(factor).unwrap() > racks.len()),
        }
    }
}
