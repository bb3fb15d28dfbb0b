//! Shapes of partitions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::live::net::Rule;

/// Who does not hear whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// One node hears nobody, and nobody hears it.
    Isolate(u64),
    /// These on one side, the rest on the other.
    Halves(Vec<u64>),
    /// Two sides that hear each other only where both hear this one.
    Bridge {
        /// Heard by all.
        middle: u64,
        /// One side.
        side: Vec<u64>,
    },
    /// Nodes in this order; each hears only its two neighbours. Of three nodes, each does not hear
    /// the one behind it.
    Ring(Vec<u64>),
    /// What the first sends does not arrive at the second.
    OneWay {
        /// Who sends.
        from: u64,
        /// Who hears nothing.
        to: u64,
    },
    /// One node hears nobody; all hear it.
    Deaf(u64),
}

impl Shape {
    /// What is lost, of all nodes.
    pub fn rules(&self, nodes: &[u64]) -> Vec<Rule> {
        let mut rules = Vec::new();
        for &from in nodes {
            for &to in nodes {
                if from != to && self.cuts(from, to) {
                    rules.push(Rule::Cut { from, to });
                }
            }
        }
        rules
    }

    fn cuts(&self, from: u64, to: u64) -> bool {
        match self {
            Self::Isolate(node) => from == *node || to == *node,
            Self::Halves(left) => left.contains(&from) != left.contains(&to),
            Self::Bridge { middle, side } => {
                from != *middle && to != *middle && side.contains(&from) != side.contains(&to)
            }
            Self::Ring(order) => {
                let at = |node| order.iter().position(|&one| one == node);
                let (Some(from), Some(to)) = (at(from), at(to)) else {
                    return false;
                };
                let count = order.len();
                let ahead = (to + count - from) % count;
                if count <= 3 {
                    ahead == 1
                } else {
                    ahead != 1 && ahead != count - 1
                }
            }
            Self::OneWay { from: a, to: b } => (from, to) == (*a, *b),
            Self::Deaf(node) => to == *node,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isolate(node) => write!(f, "node {node} is alone"),
            Self::Halves(left) => write!(f, "{left:?} and the others do not hear each other"),
            Self::Bridge { middle, side } => {
                write!(
                    f,
                    "{side:?} and the others hear only node {middle} in common"
                )
            }
            Self::Ring(order) => write!(f, "a ring of {order:?}"),
            Self::OneWay { from, to } => write!(f, "node {to} does not hear node {from}"),
            Self::Deaf(node) => write!(f, "node {node} hears nobody"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(shape: &Shape, nodes: &[u64]) -> Vec<(u64, u64)> {
        let rules = shape.rules(nodes).into_iter();
        let cut = |rule| match rule {
            Rule::Cut { from, to } => (from, to),
            Rule::Loss { .. } => panic!("{rule:?}"),
        };
        rules.map(cut).collect()
    }

    #[test]
    fn each_shape_cuts_what_it_says() {
        let three = [1, 2, 3];
        let isolated = [(1, 2), (2, 1), (2, 3), (3, 2)];
        assert_eq!(cuts(&Shape::Isolate(2), &three), isolated);
        let halves = [(1, 3), (2, 3), (3, 1), (3, 2)];
        assert_eq!(cuts(&Shape::Halves(vec![1, 2]), &three), halves);
        let bridge = Shape::Bridge {
            middle: 2,
            side: vec![1],
        };
        assert_eq!(cuts(&bridge, &three), [(1, 3), (3, 1)]);
        assert_eq!(cuts(&Shape::Deaf(1), &three), [(2, 1), (3, 1)]);
        assert_eq!(cuts(&Shape::OneWay { from: 3, to: 1 }, &three), [(3, 1)]);
        let ring = Shape::Ring(vec![3, 1, 2]);
        assert_eq!(cuts(&ring, &three), [(1, 2), (2, 3), (3, 1)]);
        let five = [1, 2, 3, 4, 5];
        let ring = cuts(&Shape::Ring(five.to_vec()), &five);
        assert_eq!(ring.len(), 10);
        assert!(ring.contains(&(1, 3)) && !ring.contains(&(1, 5)));
    }
}
