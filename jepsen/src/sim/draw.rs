//! Draws the schedule of a seed.
//!
//! Seeds differ in kind, not only in luck: each draws a *theme* (which faults), a pace (how often and how
//! long), and now and then that the faults begin before the cluster has formed. A seed of few kinds
//! meets what one of all kinds together hardly does, and the other way round.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::{
    fault::{DiskOp, Fault, Rot, Who},
    schedule::{Schedule, Strike},
};

/// Keeps what is drawn here apart from all else that is drawn from a seed.
const SALT: u64 = 0x5eed_fa17;

/// What a schedule is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Nodes, from 1.
    pub nodes: u64,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Time in which faults begin and end.
    pub lasts: Duration,
}

/// The schedule of a seed.
pub fn draw(seed: u64, setting: Setting) -> Schedule {
    let mut rng = SmallRng::seed_from_u64(seed ^ SALT);
    let victim = rng.random_range(1..=setting.nodes);
    let from_birth = rng.random_range(0..8) == 0;
    let (theme, kinds) = theme(&mut rng);
    let pace = pick(&mut rng, &PACES);
    let mut draw = Draw {
        rng,
        setting,
        victim,
    };
    let end = u64::try_from(setting.lasts.as_millis()).unwrap_or(u64::MAX);
    let mut strikes = Vec::new();
    let mut at_ms = if from_birth { 20 } else { 500 };
    while at_ms < end {
        let Some(kind) = draw.kind(&kinds, from_birth) else {
            break;
        };
        let fault = (kind.draw)(&mut draw);
        let lasts_ms = draw.between(pace.lasts_ms).min(end - at_ms);
        let lasts_ms = if fault.is_instant() { 0 } else { lasts_ms };
        strikes.push(Strike {
            at_ms,
            lasts_ms,
            fault,
        });
        at_ms += draw.between(pace.gap_ms);
    }
    Schedule {
        theme: format!("{theme}, {}", pace.name),
        from_birth,
        strikes,
    }
}

/// How often, and how long.
#[derive(Debug, Clone, Copy)]
struct Pace {
    name: &'static str,
    gap_ms: (u64, u64),
    lasts_ms: (u64, u64),
}

const PACES: [Pace; 4] = [
    Pace {
        name: "calm",
        gap_ms: (2000, 6000),
        lasts_ms: (500, 4000),
    },
    Pace {
        name: "lively",
        gap_ms: (100, 4000),
        lasts_ms: (20, 4000),
    },
    Pace {
        name: "hectic",
        gap_ms: (50, 900),
        lasts_ms: (20, 1500),
    },
    Pace {
        name: "slow",
        gap_ms: (3000, 8000),
        lasts_ms: (3000, 9000),
    },
];

/// One kind of fault.
#[derive(Clone, Copy)]
struct Kind {
    /// The name of what it draws.
    name: &'static str,
    /// How often it is drawn, compared with others.
    weight: u32,
    draw: fn(&mut Draw) -> Fault,
}

const KINDS: [Kind; 29] = [
    kind("kill", 8, Draw::kill),
    kind("stop", 4, Draw::stop),
    kind("crash-loop", 2, Draw::crash_loop),
    kind("rolling-kill", 1, Draw::rolling_kill),
    kind("power-loss", 8, Draw::power_loss),
    kind("pause", 5, Draw::pause),
    kind("lose-disk", 2, Draw::lose_disk),
    kind("split", 4, Draw::split),
    kind("isolate", 4, Draw::isolate),
    kind("one-way", 3, Draw::one_way),
    kind("flap", 2, Draw::flap),
    kind("reset", 3, Draw::reset),
    kind("half-open", 3, Draw::half_open),
    kind("late", 3, Draw::late),
    kind("slow-link", 3, Draw::slow_link),
    kind("loss", 3, Draw::loss),
    kind("ghosts", 2, Draw::ghosts),
    kind("cut-clients", 2, Draw::cut_clients),
    kind("lose-calls", 3, Draw::lose_calls),
    kind("slow-calls", 2, Draw::slow_calls),
    kind("repeat-calls", 3, Draw::repeat_calls),
    kind("slow-sync", 4, Draw::slow_sync),
    kind("slow-read", 2, Draw::slow_read),
    kind("full-disk", 3, Draw::full_disk),
    kind("full-once", 2, Draw::full_once),
    kind("bad-disk", 3, Draw::bad_disk),
    kind("bit-rot", 3, Draw::bit_rot),
    kind("clock-jump", 3, Draw::clock_jump),
    kind("clock-drift", 3, Draw::clock_drift),
];

const fn kind(name: &'static str, weight: u32, draw: fn(&mut Draw) -> Fault) -> Kind {
    Kind { name, weight, draw }
}

/// Themes by name, each with the kinds that it is made of.
const THEMES: [(&str, &[&str]); 8] = [
    (
        "crashes",
        &["kill", "stop", "crash-loop", "rolling-kill", "pause"],
    ),
    ("power", &["power-loss", "slow-sync", "kill"]),
    (
        "partitions",
        &["split", "isolate", "one-way", "flap", "cut-clients"],
    ),
    (
        "connections",
        &["reset", "half-open", "late", "slow-link", "loss", "ghosts"],
    ),
    (
        "calls",
        &[
            "lose-calls",
            "slow-calls",
            "repeat-calls",
            "kill",
            "isolate",
        ],
    ),
    (
        "disks",
        &[
            "slow-sync",
            "slow-read",
            "full-disk",
            "full-once",
            "bad-disk",
            "power-loss",
        ],
    ),
    (
        "damage",
        &["bit-rot", "lose-disk", "kill", "power-loss", "isolate"],
    ),
    (
        "clocks",
        &["clock-jump", "clock-drift", "pause", "kill", "isolate"],
    ),
];

fn pick<T: Copy>(rng: &mut SmallRng, all: &[T]) -> T {
    let at = rng.random_range(0..all.len());
    *all.get(at).expect("a place in a list that is not empty")
}

/// A name, and the kinds to draw from.
fn theme(rng: &mut SmallRng) -> (String, Vec<Kind>) {
    match rng.random_range(0..10) {
        0..4 => ("all kinds".to_owned(), KINDS.to_vec()),
        4..8 => {
            let (name, kinds) = pick(rng, &THEMES);
            let kinds = KINDS.iter().filter(|kind| kinds.contains(&kind.name));
            (name.to_owned(), kinds.copied().collect())
        }
        _ => {
            let mut all = KINDS.to_vec();
            let few = rng.random_range(2..=4);
            let mut kinds: Vec<Kind> = (0..few)
                .map(|_| all.swap_remove(rng.random_range(0..all.len())))
                .collect();
            // Each as often as the others: rare ones shall have their day.
            for kind in &mut kinds {
                kind.weight = 1;
            }
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
            (names.join(" and "), kinds)
        }
    }
}

struct Draw {
    rng: SmallRng,
    setting: Setting,
    /// The one node that may lose data ([`Schedule::check`]).
    victim: u64,
}

impl Draw {
    fn kind(&mut self, kinds: &[Kind], from_birth: bool) -> Option<Kind> {
        let harmless = |kind: &&Kind| !from_birth || !["lose-disk", "bit-rot"].contains(&kind.name);
        let weights: u32 = kinds.iter().filter(harmless).map(|kind| kind.weight).sum();
        if weights == 0 {
            return None;
        }
        let mut left = self.rng.random_range(0..weights);
        kinds.iter().filter(harmless).copied().find(|kind| {
            let chosen = left < kind.weight;
            left = left.saturating_sub(kind.weight);
            chosen
        })
    }

    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        self.rng.random_range(least..=most)
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_range(0..n) == 0
    }

    fn percent(&mut self, most: u8) -> u8 {
        self.rng.random_range(1..=most)
    }

    fn node(&mut self) -> u64 {
        self.rng.random_range(1..=self.setting.nodes)
    }

    fn other(&mut self, node: u64) -> u64 {
        let nodes = self.setting.nodes;
        1 + (node - 1 + self.rng.random_range(1..nodes.max(2))) % nodes
    }

    /// One node; every third time one that matters.
    fn one(&mut self) -> Who {
        match self.rng.random_range(0..12) {
            0 | 1 => Who::Leader(self.rng.random_range(0..self.setting.partitions.max(1))),
            2 => Who::Controller,
            3 => Who::Coordinator,
            _ => Who::Node(self.node()),
        }
    }

    /// One node, or now and then all of them.
    fn one_or_all(&mut self) -> Who {
        if self.one_in(5) { Who::All } else { self.one() }
    }

    fn kill(&mut self) -> Fault {
        Fault::Kill {
            who: self.one_or_all(),
        }
    }

    fn stop(&mut self) -> Fault {
        Fault::Stop {
            who: self.one_or_all(),
        }
    }

    fn crash_loop(&mut self) -> Fault {
        Fault::CrashLoop {
            who: self.one_or_all(),
            lives_ms: self.between((20, 400)),
        }
    }

    fn rolling_kill(&mut self) -> Fault {
        Fault::RollingKill {
            down_ms: self.between((100, 1000)),
        }
    }

    fn power_loss(&mut self) -> Fault {
        let who = self.one_or_all();
        let after_ops = if self.one_in(2) {
            self.between((1, 60))
        } else {
            0
        };
        Fault::PowerLoss { who, after_ops }
    }

    fn pause(&mut self) -> Fault {
        Fault::Pause {
            who: if self.one_in(8) { Who::All } else { self.one() },
        }
    }

    fn lose_disk(&mut self) -> Fault {
        Fault::LoseDisk { node: self.victim }
    }

    fn split(&mut self) -> Fault {
        let nodes = self.setting.nodes;
        let mut all: Vec<u64> = (1..=nodes).collect();
        for at in (1..all.len()).rev() {
            all.swap(at, self.rng.random_range(0..=at));
        }
        let sides = match self.rng.random_range(0..3) {
            // Two parts of any size.
            0 => {
                let at = self.rng.random_range(1..all.len().max(2));
                let (left, right) = all.split_at(at.min(all.len()));
                vec![left.to_vec(), right.to_vec()]
            }
            // Two halves that share one node.
            1 => {
                let half = all.len() / 2;
                let (left, right) = (all.iter().take(half + 1), all.iter().skip(half));
                vec![left.copied().collect(), right.copied().collect()]
            }
            // A ring: each talks to its neighbours.
            _ => {
                let next = all.iter().cycle().skip(1);
                let pairs = all.iter().zip(next).map(|(a, b)| vec![*a, *b]);
                // A ring of three would be whole.
                let open = if all.len() > 3 { 0 } else { 1 };
                pairs.skip(open).collect()
            }
        };
        Fault::Split { sides }
    }

    fn isolate(&mut self) -> Fault {
        Fault::Isolate {
            who: self.one_or_all(),
            clients: self.one_in(3),
        }
    }

    fn one_way(&mut self) -> Fault {
        let from = self.one();
        let to = match from {
            Who::Node(node) => Who::Node(self.other(node)),
            _ => Who::Node(self.node()),
        };
        if self.one_in(2) {
            Fault::OneWay { from, to }
        } else {
            Fault::OneWay { from: to, to: from }
        }
    }

    fn flap(&mut self) -> Fault {
        Fault::Flap {
            who: self.one(),
            every_ms: self.between((10, 800)),
        }
    }

    fn reset(&mut self) -> Fault {
        let a = self.node();
        Fault::Reset {
            a,
            b: self.other(a),
        }
    }

    fn half_open(&mut self) -> Fault {
        let from = self.node();
        Fault::HalfOpen {
            from,
            to: self.other(from),
        }
    }

    fn late(&mut self) -> Fault {
        let from = self.node();
        Fault::Late {
            from,
            to: self.other(from),
            late_ms: self.between((1, 3000)),
        }
    }

    fn slow_link(&mut self) -> Fault {
        Fault::SlowLink {
            who: self.one_or_all(),
            delay_ms: self.between((1, 300)),
            bytes_per_s: 1 << self.between((12, 22)),
        }
    }

    fn loss(&mut self) -> Fault {
        Fault::Loss {
            who: self.one_or_all(),
            percent: self.percent(40),
        }
    }

    fn ghosts(&mut self) -> Fault {
        Fault::Ghosts {
            who: self.one_or_all(),
            percent: self.percent(100),
        }
    }

    fn cut_clients(&mut self) -> Fault {
        Fault::CutClients { who: self.one() }
    }

    fn lose_calls(&mut self) -> Fault {
        Fault::LoseCalls {
            requests: self.percent(30),
            answers: self.percent(50),
        }
    }

    fn slow_calls(&mut self) -> Fault {
        Fault::SlowCalls {
            most_ms: self.between((5, 2500)),
        }
    }

    fn repeat_calls(&mut self) -> Fault {
        Fault::RepeatCalls {
            percent: self.percent(80),
            most_ms: self.between((1, 4000)),
        }
    }

    fn slow_sync(&mut self) -> Fault {
        let sync_ms = if self.one_in(3) {
            // Stuck.
            self.between((1000, 8000))
        } else {
            self.between((1, 400))
        };
        Fault::SlowSync {
            who: self.one_or_all(),
            sync_ms,
        }
    }

    fn slow_read(&mut self) -> Fault {
        Fault::SlowRead {
            who: self.one_or_all(),
            read_ms: self.between((1, 500)),
        }
    }

    fn full_disk(&mut self) -> Fault {
        let who = self.one_or_all();
        let after_writes = if self.one_in(2) {
            self.between((1, 40))
        } else {
            0
        };
        Fault::FullDisk { who, after_writes }
    }

    fn full_once(&mut self) -> Fault {
        Fault::FullOnce {
            who: self.one_or_all(),
            after_writes: self.between((1, 40)),
        }
    }

    fn bad_disk(&mut self) -> Fault {
        let who = self.one();
        let op = pick(&mut self.rng, &[DiskOp::Write, DiskOp::Sync, DiskOp::Read]);
        Fault::BadDisk {
            who,
            op,
            after: self.between((0, 40)),
            count: self.between((1, 3)),
        }
    }

    fn bit_rot(&mut self) -> Fault {
        let file = match self.rng.random_range(0..6) {
            0 => Rot::Votes,
            1 => Rot::Index,
            2 => Rot::Small,
            _ => Rot::Segment,
        };
        Fault::BitRot {
            node: self.victim,
            file,
        }
    }

    fn clock_jump(&mut self) -> Fault {
        let most = if self.one_in(2) { 5_000 } else { 600_000 };
        let by_ms = self.rng.random_range(-most..=most);
        Fault::ClockJump {
            who: self.one_or_all(),
            by_ms,
        }
    }

    fn clock_drift(&mut self) -> Fault {
        Fault::ClockDrift {
            who: self.one_or_all(),
            // What groups promise about who is handed a record holds while no clock runs more than a quarter
            // faster than another. More than one strike may be on.
            percent: self.rng.random_range(90..=112),
        }
    }
}
#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
