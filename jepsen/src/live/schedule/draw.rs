//! Draws a schedule.

use std::time::Duration;

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};

use super::{Fault, Kind, Schedule, Shape, Strike, Weather};

/// The first fault comes after this.
const QUIET_MS: u64 = 3_000;
/// From one fault to the next, at most twice this.
const GAP_MS: u64 = 3_000;
/// What an operator does comes at intervals of at least this.
const OPERATOR_GAP_MS: u64 = 15_000;
/// A fault lasts at least this long.
const LASTS_MIN_MS: u64 = 800;
/// At most.
const LASTS_MAX_MS: u64 = 9_000;
/// A node is left alone so long before the next fault has it.
const REST_MS: u64 = 2_500;

/// What to draw a schedule for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: u64,
    /// How long faults are made.
    pub time: Duration,
    /// Which kinds.
    pub kinds: Vec<Kind>,
}

/// Draws a schedule: each kind comes once before any comes again. No node is in the hands of two
/// faults at a time, and only one node ever loses what it had synced.
pub fn draw(plan: &Plan) -> Schedule {
    let mut dice = Dice {
        rng: SmallRng::seed_from_u64(plan.seed),
        nodes: (1..=plan.nodes).collect(),
        busy: Vec::new(),
        unlucky: 0,
        extra: false,
    };
    dice.unlucky = dice.node();
    let end = u64::try_from(plan.time.as_millis()).unwrap_or(u64::MAX);
    let (operator, faults): (Vec<Kind>, Vec<Kind>) =
        plan.kinds.iter().partition(|kind| kind.is_operator());
    let mut strikes = dice.lane(&faults, end, (0, 2 * GAP_MS));
    strikes.extend(dice.lane(&operator, end, (OPERATOR_GAP_MS, OPERATOR_GAP_MS)));
    strikes.sort_by_key(|strike| strike.at_ms);
    Schedule {
        seed: plan.seed,
        nodes: plan.nodes,
        strikes,
    }
}

struct Dice {
    rng: SmallRng,
    nodes: Vec<u64>,
    /// A node, and from when to when a fault has it.
    busy: Vec<(u64, u64, u64)>,
    /// The one whose disk may rot or be lost.
    unlucky: u64,
    /// Whether there is a node more than in the beginning.
    extra: bool,
}

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.rng.random_range(0..n.max(1))
    }

    fn node(&mut self) -> u64 {
        let count = u64::try_from(self.nodes.len()).unwrap_or(1);
        1 + self.below(count)
    }

    fn one_of<T: Clone>(&mut self, of: &[T], otherwise: T) -> T {
        let at = self.below(u64::try_from(of.len()).unwrap_or(1));
        let found = usize::try_from(at).ok().and_then(|at| of.get(at));
        found.cloned().unwrap_or(otherwise)
    }

    /// So many different nodes, in any order.
    fn some(&mut self, count: usize) -> Vec<u64> {
        let mut nodes = self.nodes.clone();
        nodes.shuffle(&mut self.rng);
        nodes.truncate(count);
        nodes
    }

    /// Faults of these kinds, one after the other; they may overlap.
    fn lane(&mut self, kinds: &[Kind], end: u64, (gap_min, gap_more): (u64, u64)) -> Vec<Strike> {
        let mut strikes = Vec::new();
        let mut at_ms = QUIET_MS;
        let mut bag: Vec<Kind> = Vec::new();
        while !kinds.is_empty() && at_ms + LASTS_MIN_MS < end {
            if bag.is_empty() {
                bag = kinds.to_vec();
                bag.shuffle(&mut self.rng);
            }
            // Those that are not over in the end are ended then.
            let lasts_ms = LASTS_MIN_MS + self.below(LASTS_MAX_MS - LASTS_MIN_MS);
            if let Some(kind) = bag.pop() {
                match self.fault(kind, at_ms, at_ms + lasts_ms) {
                    Some(fault) => strikes.push(Strike {
                        at_ms,
                        lasts_ms,
                        fault,
                    }),
                    // All nodes are taken; its turn comes later.
                    None => bag.insert(0, kind),
                }
            }
            at_ms += 500 + gap_min + self.below(gap_more);
        }
        strikes
    }

    /// A fault of this kind whose nodes no other fault has meanwhile.
    fn fault(&mut self, kind: Kind, from: u64, until: u64) -> Option<Fault> {
        for _ in 0..20 {
            let fault = self.any(kind);
            let nodes = fault.nodes();
            let taken = self.busy.iter().any(|&(node, begin, end)| {
                nodes.contains(&node) && begin < until + REST_MS && from < end + REST_MS
            });
            if !taken || kind.is_operator() {
                let busy = nodes.iter().map(|&node| (node, from, until));
                if !kind.is_operator() {
                    self.busy.extend(busy);
                }
                return Some(fault);
            }
        }
        None
    }

    fn any(&mut self, kind: Kind) -> Fault {
        let node = self.node();
        match kind {
            Kind::Kill => Fault::Kill { nodes: self.few() },
            Kind::KillAll => Fault::Kill {
                nodes: self.nodes.clone(),
            },
            Kind::Pause => Fault::Pause { nodes: self.few() },
            Kind::Restart => Fault::Restart { node },
            Kind::Partition => Fault::Partition {
                shape: self.shape(),
            },
            Kind::Loss => Fault::Loss {
                node,
                percent: self.one_of(&[1, 5, 20, 40], 5),
            },
            Kind::Proxy => Fault::Proxy {
                node,
                weather: self.weather(),
            },
            Kind::Clock => Fault::Clock {
                node,
                offset_ms: self.one_of(&[-3_600_000, -5_000, -300, 200, 4_000, 7_200_000], 1_000),
            },
            Kind::FullDisk => Fault::FullDisk {
                node,
                room_bytes: self.one_of(&[0, 0, 100_000, 3 << 20, 32 << 20], 0),
            },
            Kind::PowerLoss => {
                let all = self.below(3) == 0;
                let nodes = if all { self.nodes.clone() } else { self.few() };
                Fault::PowerLoss { nodes }
            }
            Kind::Rot => Fault::Rot {
                node: self.unlucky,
                flips: 1 + u32::try_from(self.below(20)).unwrap_or_default(),
            },
            Kind::SlowDisk => Fault::SlowDisk {
                node,
                sync_ms: self.one_of(&[20, 100, 500, 2_000], 100),
            },
            Kind::StuckDisk => Fault::StuckDisk { node },
            Kind::FailingDisk => Fault::FailingDisk { node },
            Kind::Membership => self.membership(),
            Kind::Upgrade => Fault::Upgrade,
        }
    }

    /// One node mostly, sometimes two.
    fn few(&mut self) -> Vec<u64> {
        let two = self.below(4) == 0;
        self.some(if two { 2 } else { 1 })
    }

    fn shape(&mut self) -> Shape {
        let order = self.some(self.nodes.len());
        let first = order.first().copied().unwrap_or(1);
        let second = order.get(1).copied().unwrap_or(first);
        let half = order.len() / 2;
        match self.below(6) {
            0 => Shape::Isolate(first),
            1 => Shape::Halves(order.into_iter().take(half).collect()),
            2 => Shape::Bridge {
                middle: first,
                side: order.into_iter().skip(1).take(half).collect(),
            },
            3 => Shape::Ring(order),
            4 => Shape::OneWay {
                from: first,
                to: second,
            },
            _ => Shape::Deaf(first),
        }
    }

    fn weather(&mut self) -> Weather {
        match self.rng.next_u32() % 5 {
            0 => Weather::Slow(self.one_of(&[20, 100, 700], 100)),
            1 => Weather::Thin(self.one_of(&[4_000, 50_000, 500_000], 50_000)),
            2 => Weather::DropAnswers(self.one_of(&[3, 20, 100], 20)),
            3 => Weather::Reset(self.one_of(&[50, 300, 1_500], 300)),
            _ => Weather::Closed,
        }
    }

    /// A node more, that node less again, or a node that loses its disk.
    fn membership(&mut self) -> Fault {
        if self.below(3) == 0 {
            return Fault::Replace { node: self.unlucky };
        }
        let node = u64::try_from(self.nodes.len()).unwrap_or_default() + 1;
        self.extra = !self.extra;
        if self.extra {
            Fault::Grow { node }
        } else {
            Fault::Shrink { node }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum as _;

    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan {
            seed,
            nodes: 3,
            time: Duration::from_secs(300),
            kinds: Kind::value_variants().to_vec(),
        }
    }

    #[test]
    fn a_schedule_follows_from_its_seed_and_reads_back() {
        let schedule = draw(&plan(7));
        assert_eq!(schedule, draw(&plan(7)));
        assert_ne!(schedule, draw(&plan(8)));
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    }

    #[test]
    fn faults_share_no_node_and_destroy_one_disk_only() {
        for seed in 0..200 {
            let Schedule { strikes, .. } = draw(&plan(seed));
            let kinds: BTreeSet<Kind> = strikes.iter().map(|strike| strike.fault.kind()).collect();
            // Killing all is a kill with all nodes.
            assert_eq!(kinds.len(), Kind::value_variants().len() - 1, "seed {seed}");
            let mut destroyed = BTreeSet::new();
            let mut size = 3;
            for (at, strike) in strikes.iter().enumerate() {
                match strike.fault {
                    Fault::Rot { node, .. } | Fault::Replace { node } => {
                        let _new = destroyed.insert(node);
                    }
                    Fault::Grow { node } => {
                        size += 1;
                        assert_eq!(node, size);
                    }
                    Fault::Shrink { node } => {
                        assert_eq!(node, size);
                        size -= 1;
                    }
                    _ => {}
                }
                let end = strike.at_ms + strike.lasts_ms;
                assert!(strike.at_ms < 300_000);
                let lanes = |s: &&Strike| !s.fault.kind().is_operator();
                let later = strikes[at + 1..].iter().filter(lanes);
                for other in later.filter(|_| lanes(&strike)) {
                    let nodes = strike.fault.nodes();
                    let shared = other.fault.nodes().iter().any(|n| nodes.contains(n));
                    assert!(!shared || end < other.at_ms, "{strike:?} {other:?}");
                }
            }
            assert!(destroyed.len() <= 1, "seed {seed}: {destroyed:?}");
        }
    }
}
