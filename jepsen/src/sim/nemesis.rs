//! The faults: which, when and for how long follows from the seed.

use std::{fmt, time::Duration};

use seriatim_runtime::rng;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is gone; what it wrote stays.
    Kill(u64),
    /// All processes are gone at once.
    KillAll,
    /// The machine is gone; what was not synced may be lost.
    PowerLoss(u64),
    /// All machines lose power at once.
    PowerLossAll,
    /// A node talks to no other.
    Isolate(u64),
    /// Two nodes do not talk to each other.
    Cut(u64, u64),
    /// The first does not reach the second.
    OneWay(u64, u64),
    /// Connections between two nodes break.
    Reset(u64, u64),
    /// Syncs take long.
    SlowDisk(u64),
    /// Nothing can be written.
    FullDisk(u64),
    /// A bit of a log flips.
    BitRot(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(node) => write!(f, "kill n{node}"),
            Self::KillAll => f.write_str("kill all nodes"),
            Self::PowerLoss(node) => write!(f, "power loss of n{node}"),
            Self::PowerLossAll => f.write_str("power loss of all nodes"),
            Self::Isolate(node) => write!(f, "isolate n{node}"),
            Self::Cut(a, b) => write!(f, "cut n{a} from n{b}"),
            Self::OneWay(a, b) => write!(f, "cut n{a} to n{b} one way"),
            Self::Reset(a, b) => write!(f, "reset connections of n{a} and n{b}"),
            Self::SlowDisk(node) => write!(f, "slow disk of n{node}"),
            Self::FullDisk(node) => write!(f, "full disk of n{node}"),
            Self::BitRot(node) => write!(f, "bit rot at n{node}"),
        }
    }
}

/// A fault, how long it lasts, and how long nothing new happens after it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// The fault.
    pub fault: Fault,
    /// From its begin to its end.
    pub lasts: Duration,
    /// From its begin to the next fault.
    pub then: Duration,
}

/// Draws the faults of one run.
#[derive(Debug, Clone)]
pub struct Nemesis {
    nodes: u64,
    /// The one node whose log may rot: with more, the cluster may hold no whole copy.
    rots: Option<u64>,
}

impl Nemesis {
    /// Faults among nodes 1 to `nodes`.
    pub fn new(nodes: u64) -> Self {
        Self {
            nodes,
            rots: Some(1 + rng::below(nodes)),
        }
    }

    /// The next fault.
    pub fn strike(&mut self) -> Strike {
        let a = 1 + rng::below(self.nodes);
        let b = 1 + (a + rng::below(self.nodes - 1)) % self.nodes;
        let fault = match rng::below(20) {
            0..4 => Fault::Kill(a),
            4 => Fault::KillAll,
            5..8 => Fault::PowerLoss(a),
            8..10 => Fault::PowerLossAll,
            10..12 => Fault::Isolate(a),
            12 => Fault::Cut(a, b),
            13 => Fault::OneWay(a, b),
            14..16 => Fault::Reset(a, b),
            16 => Fault::SlowDisk(a),
            17 => Fault::FullDisk(a),
            _ => self.rots.take().map_or(Fault::Reset(a, b), Fault::BitRot),
        };
        Strike {
            fault,
            lasts: Duration::from_millis(20) + rng::duration_below(Duration::from_secs(4)),
            then: Duration::from_millis(100) + rng::duration_below(Duration::from_secs(4)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn sim_every_fault_is_drawn_and_pairs_differ() {
        rng::seed(1);
        let mut names = BTreeSet::new();
        for _ in 0..200 {
            let mut nemesis = Nemesis::new(3);
            let faults: Vec<Fault> = (0..10).map(|_| nemesis.strike().fault).collect();
            let rotten = faults.iter().filter(|f| matches!(f, Fault::BitRot(_)));
            assert!(rotten.count() <= 1);
            for fault in faults {
                if let Fault::Cut(a, b) | Fault::OneWay(a, b) | Fault::Reset(a, b) = fault {
                    assert!(a != b && (1..=3).contains(&a) && (1..=3).contains(&b));
                }
                let name = format!("{fault:?}");
                let _new = names.insert(name.split('(').next().unwrap().to_owned());
            }
        }
        assert_eq!(names.len(), 11, "{names:?}");
    }
}
