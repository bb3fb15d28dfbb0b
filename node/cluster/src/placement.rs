//! Placement: which nodes hold which partition. A pure function of the image.

use std::collections::{BTreeMap, BTreeSet};

use seriatim_proto::ids::NodeId;

use crate::image::{Image, Load};

/// Fewer nodes than replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotEnoughNodes {
    /// Replicas asked for.
    pub wanted: usize,
    /// Registered nodes that do not leave.
    pub have: usize,
}

/// Chooses `replicas` distinct nodes for each of `partitions` new partitions, preferred leader
/// first.
///
/// Of each partition, replicas go to as many racks as there are (up to `replicas`), then to the
/// nodes that hold least; the preferred leader is, of these, the node that leads least. Where all
/// racks weigh the same, no two nodes differ by more than one replica or one leader per call.
pub fn place(
    image: &Image,
    partitions: usize,
    replicas: usize,
) -> Result<Vec<Vec<NodeId>>, NotEnoughNodes> {
    let have = image.staying().count();
    if replicas == 0 || have < replicas {
        return Err(NotEnoughNodes {
            wanted: replicas,
            have,
        });
    }
    let racks = racks(image);
    let mut load = load_of_staying(image);
    let placed = (0..partitions)
        .map(|number| {
            let mut nodes = choose(&load, &racks, replicas, number);
            lead_with_least(&mut nodes, &load);
            for (position, node) in nodes.iter().enumerate() {
                let load = load.entry(*node).or_default();
                load.replicas += 1;
                load.leaders += u64::from(position == 0);
            }
            nodes
        })
        .collect();
    Ok(placed)
}

/// What each node carries that may get replicas.
pub(crate) fn load_of_staying(image: &Image) -> BTreeMap<NodeId, Load> {
    let mut load = image.load();
    load.retain(|node, _| image.node(*node).is_some_and(|node| !node.leaving));
    load
}

/// The rack of every node; a node without one is a rack of its own.
pub(crate) fn racks(image: &Image) -> BTreeMap<NodeId, String> {
    image
        .nodes
        .values()
        .map(|node| {
            let rack = match node.rack.as_str() {
                "" => format!("\0{}", node.id),
                rack => rack.to_owned(),
            };
            (node.id, rack)
        })
        .collect()
}

fn choose(
    load: &BTreeMap<NodeId, Load>,
    racks: &BTreeMap<NodeId, String>,
    replicas: usize,
    number: usize,
) -> Vec<NodeId> {
    let mut chosen: Vec<NodeId> = Vec::with_capacity(replicas);
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    let mut free: BTreeSet<NodeId> = load.keys().copied().collect();
    while chosen.len() < replicas {
        // Equal nodes take turns, so that not every second replica follows the same leader.
        let turn = |node: &NodeId| {
            let position = load.keys().position(|other| other == node).unwrap_or(0);
            (position + number) % load.len().max(1)
        };
        let next = free.iter().copied().min_by_key(|node| {
            let in_rack = racks.get(node).and_then(|rack| used.get(rack.as_str()));
            let held = load.get(node).map_or(0, |load| load.replicas);
            (in_rack.copied().unwrap_or(0), held, turn(node))
        });
        let Some(node) = next else { break };
        let _ = free.remove(&node);
        if let Some(rack) = racks.get(&node) {
            *used.entry(rack).or_default() += 1;
        }
        chosen.push(node);
    }
    chosen
}

/// Puts the node first that leads least.
pub(crate) fn lead_with_least(nodes: &mut [NodeId], load: &BTreeMap<NodeId, Load>) {
    let least = nodes
        .iter()
        .enumerate()
        .min_by_key(|(position, node)| (load.get(node).map_or(0, |load| load.leaders), *position))
        .map(|(position, _)| position);
    if let Some(least) = least {
        nodes.swap(0, least);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::image::NodeInfo;

    fn image(racks: &[&str]) -> Image {
        let mut image = Image::default();
        for (id, rack) in (1..).map(NodeId).zip(racks) {
            let node = NodeInfo {
                id,
                rack: (*rack).to_owned(),
                ..NodeInfo::default()
            };
            let _ = image.nodes.insert(id, Arc::new(node));
        }
        image
    }

    #[test]
    fn needs_enough_nodes() {
        assert_eq!(
            place(&image(&["", ""]), 1, 3),
            Err(NotEnoughNodes { wanted: 3, have: 2 })
        );
    }

    #[test]
    fn spreads_over_racks() {
        let image = image(&["a", "a", "b", "b", "c", "c"]);
        for nodes in place(&image, 60, 3).unwrap() {
            let racks: BTreeSet<&str> = nodes
                .iter()
                .map(|node| image.node(*node).unwrap().rack.as_str())
                .collect();
            assert_eq!(racks.len(), 3, "{nodes:?}");
        }
    }

    proptest! {
        #[test]
        fn even_and_distinct(nodes in 1_usize..9, partitions in 0_usize..80, replicas in 1_usize..5) {
            let image = image(&vec![""; nodes]);
            let Ok(placed) = place(&image, partitions, replicas) else {
                prop_assert!(nodes < replicas);
                return Ok(());
            };
            prop_assert_eq!(placed.len(), partitions);
            let mut held = vec![0_usize; nodes];
            let mut led = vec![0_usize; nodes];
            for partition in &placed {
                let distinct: BTreeSet<_> = partition.iter().collect();
                prop_assert_eq!(distinct.len(), replicas);
                for (position, node) in partition.iter().enumerate() {
                    let at = usize::try_from(node.0).unwrap() - 1;
                    held[at] += 1;
                    led[at] += usize::from(position == 0);
                }
            }
            let spread = |counts: &[usize]| {
                counts.iter().max().unwrap() - counts.iter().min().unwrap()
            };
            prop_assert!(spread(&held) <= 1, "{held:?}");
            prop_assert!(spread(&led) <= 2, "{led:?}");
        }

        #[test]
        fn as_many_racks_as_possible(
            racks in proptest::collection::vec(0_u8..4, 3..10),
            replicas in 1_usize..4,
        ) {
            let names: Vec<String> = racks.iter().map(|rack| format!("r{rack}")).collect();
            let image = image(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let there = racks.iter().collect::<BTreeSet<_>>().len();
            for nodes in place(&image, 10, replicas).unwrap() {
                let used: BTreeSet<_> =
                    nodes.iter().map(|node| &image.node(*node).unwrap().rack).collect();
                prop_assert_eq!(used.len(), there.min(replicas));
            }
        }
    }
}
