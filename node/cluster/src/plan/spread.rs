//! An even spread of replicas and preferred leaders, with as few moves as that takes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use seriatim_proto::ids::NodeId;

use super::Move;
use crate::{image::Image, placement};

/// Moves after which no two nodes that stay differ by more than one replica, as far as racks allow,
/// and by as little as possible in what they lead by preference. A partition never loses a rack.
///
/// Only what has to be copied costs much: replicas go one by one from the node that holds most to the
/// one that holds least; who is preferred is changed by order alone.
pub fn spread(image: &Image) -> Vec<Move> {
    let mut plan = Plan::new(image);
    plan.spread_replicas();
    plan.spread_leaders();
    plan.moves(image)
}

/// The nodes of every partition as they would be.
struct Plan {
    nodes: Vec<NodeId>,
    racks: BTreeMap<NodeId, String>,
    partitions: Vec<Planned>,
    held: BTreeMap<NodeId, usize>,
    led: BTreeMap<NodeId, usize>,
    /// Replicas of each topic on each node: of equal choices, the topic that is crowded moves.
    by_topic: BTreeMap<(NodeId, usize), usize>,
}

struct Planned {
    topic: usize,
    nodes: Vec<NodeId>,
    /// Is moving: counted, and left alone.
    fixed: bool,
}

impl Plan {
    fn new(image: &Image) -> Self {
        let nodes: Vec<NodeId> = image.staying().map(|node| node.id).collect();
        let mut plan = Self {
            racks: placement::racks(image),
            partitions: Vec::new(),
            held: nodes.iter().map(|&node| (node, 0)).collect(),
            led: nodes.iter().map(|&node| (node, 0)).collect(),
            by_topic: BTreeMap::new(),
            nodes,
        };
        for (number, topic) in image.topics.values().enumerate() {
            for info in &topic.partitions {
                let nodes = info.goal_nodes();
                for node in &nodes {
                    *plan.held.entry(*node).or_default() += 1;
                    *plan.by_topic.entry((*node, number)).or_default() += 1;
                }
                if let Some(first) = nodes.first() {
                    *plan.led.entry(*first).or_default() += 1;
                }
                plan.partitions.push(Planned {
                    topic: number,
                    nodes,
                    fixed: info.is_moving(),
                });
            }
        }
        plan
    }

    fn held(&self, node: NodeId) -> usize {
        self.held.get(&node).copied().unwrap_or(0)
    }

    fn led(&self, node: NodeId) -> usize {
        self.led.get(&node).copied().unwrap_or(0)
    }

    fn spread_replicas(&mut self) {
        while let Some((partition, from, to)) = self.next_move() {
            self.replace(partition, from, to);
        }
    }

    /// The next replica to move, from a node that holds at least two more than another.
    fn next_move(&self) -> Option<(usize, NodeId, NodeId)> {
        let mut by_load = self.nodes.clone();
        by_load.sort_by_key(|node| (self.held(*node), *node));
        for &from in by_load.iter().rev() {
            for &to in &by_load {
                if self.held(from) < self.held(to) + 2 {
                    break;
                }
                if let Some(partition) = self.movable(from, to) {
                    return Some((partition, from, to));
                }
            }
        }
        None
    }

    /// The partition that had best go from one node to the other: of the topic that is most crowded
    /// there, and rather one that the node does not lead.
    fn movable(&self, from: NodeId, to: NodeId) -> Option<usize> {
        let crowd = |node, topic| self.by_topic.get(&(node, topic)).copied().unwrap_or(0);
        let candidates = self.partitions.iter().enumerate().filter(|(_, planned)| {
            !planned.fixed
                && planned.nodes.contains(&from)
                && !planned.nodes.contains(&to)
                && self.keeps_racks(&planned.nodes, from, to)
        });
        let best = candidates.max_by_key(|(number, planned)| {
            let crowd =
                (crowd(from, planned.topic) + 1_000_000).saturating_sub(crowd(to, planned.topic));
            let follows = planned.nodes.first() != Some(&from);
            (crowd, follows, std::cmp::Reverse(*number))
        });
        best.map(|(number, _)| number)
    }

    fn keeps_racks(&self, nodes: &[NodeId], from: NodeId, to: NodeId) -> bool {
        let rack = |node: &NodeId| self.racks.get(node);
        let before: BTreeSet<_> = nodes.iter().map(rack).collect();
        let others = nodes.iter().filter(|node| **node != from);
        let after: BTreeSet<_> = others.map(rack).chain([rack(&to)]).collect();
        after.len() >= before.len()
    }

    fn replace(&mut self, partition: usize, from: NodeId, to: NodeId) {
        let Some(planned) = self.partitions.get_mut(partition) else {
            return;
        };
        let leads = planned.nodes.first() == Some(&from);
        for node in &mut planned.nodes {
            if *node == from {
                *node = to;
            }
        }
        let topic = planned.topic;
        less(&mut self.held, from);
        *self.held.entry(to).or_default() += 1;
        less(&mut self.by_topic, (from, topic));
        *self.by_topic.entry((to, topic)).or_default() += 1;
        if leads {
            less(&mut self.led, from);
            *self.led.entry(to).or_default() += 1;
        }
    }

    /// Shifts preferences along chains of nodes that share partitions until no chain from a node to
    /// one that leads at least two less is left: then no order of the replicas is more even.
    fn spread_leaders(&mut self) {
        let mut shared = self.shared();
        loop {
            let mut by_load = self.nodes.clone();
            by_load.sort_by_key(|node| (self.led(*node), *node));
            let chains = by_load.iter().rev().filter_map(|&from| {
                let lower = |to: NodeId| self.led(to) + 2 <= self.led(from);
                chain(from, &shared, lower)
            });
            let Some(found) = chains.into_iter().next() else {
                return;
            };
            for pair in found.windows(2) {
                if let [from, to] = *pair {
                    self.prefer(from, to, &mut shared);
                }
            }
        }
    }

    /// Partitions by who is preferred and who could be.
    fn shared(&self) -> Shared {
        let mut shared = Shared::new();
        for (number, planned) in self.partitions.iter().enumerate() {
            let Some((first, others)) = planned.nodes.split_first() else {
                continue;
            };
            if planned.fixed {
                continue;
            }
            for other in others.iter().filter(|node| self.nodes.contains(node)) {
                let _ = shared.entry((*first, *other)).or_default().insert(number);
            }
        }
        shared
    }

    /// Makes `to` the preferred leader of a partition of which `from` is.
    fn prefer(&mut self, from: NodeId, to: NodeId, shared: &mut Shared) {
        let number = shared.get(&(from, to)).and_then(|set| set.first().copied());
        let Some((number, planned)) =
            number.and_then(|number| Some((number, self.partitions.get_mut(number)?)))
        else {
            return;
        };
        let Some(at) = planned.nodes.iter().position(|node| *node == to) else {
            return;
        };
        for other in planned.nodes.iter().skip(1) {
            if let Some(set) = shared.get_mut(&(from, *other)) {
                let _ = set.remove(&number);
            }
        }
        planned.nodes.swap(0, at);
        for other in planned.nodes.iter().skip(1) {
            let staying = self.nodes.contains(other);
            if staying {
                let _ = shared.entry((to, *other)).or_default().insert(number);
            }
        }
        less(&mut self.led, from);
        *self.led.entry(to).or_default() += 1;
    }

    fn moves(self, image: &Image) -> Vec<Move> {
        let planned = image.partitions().zip(self.partitions);
        planned
            .filter(|((_, _, info), planned)| !planned.fixed && info.goal_nodes() != planned.nodes)
            .map(|((topic, number, info), planned)| Move::new(topic, number, info, planned.nodes))
            .collect()
    }
}

type Shared = BTreeMap<(NodeId, NodeId), BTreeSet<usize>>;

/// The shortest chain from a node to one that `ends` it, each sharing a partition with the next.
fn chain(from: NodeId, shared: &Shared, ends: impl Fn(NodeId) -> bool) -> Option<Vec<NodeId>> {
    let mut came_from: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        if node != from && ends(node) {
            let mut path = vec![node];
            let mut at = node;
            while let Some(&before) = came_from.get(&at) {
                path.push(before);
                at = before;
            }
            path.reverse();
            return Some(path);
        }
        let all = shared.range((node, NodeId(0))..=(node, NodeId(u64::MAX)));
        for ((_, next), _) in all.filter(|(_, partitions)| !partitions.is_empty()) {
            if *next != from && !came_from.contains_key(next) {
                let _ = came_from.insert(*next, node);
                queue.push_back(*next);
            }
        }
    }
    None
}

fn less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_sub(1);
}
