//! Carries out a schedule: breaks what is to be broken, and mends it when its time is over.

use std::{io, time::Duration};

use seriatim_runtime::sim::clock::Speed;

use super::{
    fault::{Fault, Rot, Who},
    machines::Machines,
    node,
    rpc::Lines,
    schedule::{Schedule, Strike},
    world::World,
};
use crate::history::{self, FaultPhase};

/// Where a run has got with its schedule.
#[derive(Debug)]
pub struct Nemesis {
    strikes: std::vec::IntoIter<Strike>,
    next: Option<Strike>,
    /// What the times of the schedule count from, once it has begun.
    base: Option<Duration>,
    open: Vec<Open>,
    began: u64,
}

/// A strike that is not over.
#[derive(Debug)]
struct Open {
    id: u64,
    fault: Fault,
    /// Whom it hits: who leads then, it is decided when it begins.
    nodes: Vec<u64>,
    /// Links that are cut.
    links: Vec<(u64, u64)>,
    until: Duration,
    /// What it does in between.
    next: Option<Step>,
}

/// Something that a strike does before its end, and may do again.
#[derive(Debug, Clone, Copy)]
struct Step {
    at: Duration,
    every: Duration,
    count: u64,
}

/// What was done, as the history tells it.
pub type Event = history::Fault;

impl Nemesis {
    /// A schedule that has not begun.
    pub fn new(schedule: Schedule) -> Self {
        let mut strikes = schedule.strikes.into_iter();
        Self {
            next: strikes.next(),
            strikes,
            base: None,
            open: Vec::new(),
            began: 0,
        }
    }

    /// The times of the schedule count from now.
    pub fn begin(&mut self, now: Duration) {
        self.base = Some(now);
    }

    /// Whether every strike is over.
    pub fn is_over(&self) -> bool {
        self.next.is_none() && self.open.is_empty()
    }

    /// How many strikes have begun.
    pub fn began(&self) -> u64 {
        self.began
    }

    /// Does what is due. To be called before each step of the world.
    pub fn act(&mut self, world: &mut World, machines: &Machines) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        let now = world.now();
        let (over, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|open: &Open| open.until <= now);
        self.open = open;
        let over: Vec<Open> = over;
        for open in over {
            events.push(self.end(&open, world, machines)?);
        }
        for open in &mut self.open {
            open.go_on(world, machines)?;
        }
        while let Some(base) = self.base
            && let Some(strike) = self.next.take_if(|s| base + at(s) <= now)
        {
            self.next = self.strikes.next();
            events.push(self.strike(strike, base, world, machines)?);
        }
        Ok(events)
    }

    /// Ends everything and begins nothing more.
    pub fn finish(&mut self, world: &mut World, machines: &Machines) -> io::Result<Vec<Event>> {
        self.next = None;
        let open = std::mem::take(&mut self.open);
        let mut events = Vec::new();
        for open in open {
            events.push(self.end(&open, world, machines)?);
        }
        machines.boot_all(world)?;
        Ok(events)
    }

    fn strike(
        &mut self,
        strike: Strike,
        base: Duration,
        world: &mut World,
        machines: &Machines,
    ) -> io::Result<Event> {
        let until = base + Duration::from_millis(strike.ends_ms());
        let nodes = targets(&strike.fault, machines);
        let mut open = Open {
            id: self.began,
            links: links(&strike.fault, &nodes, machines),
            nodes,
            until,
            next: None,
            fault: strike.fault,
        };
        self.began += 1;
        let found = open.begin(world, machines)?;
        let instant = open.fault.is_instant();
        let phase = if instant {
            FaultPhase::Once
        } else {
            FaultPhase::Begin
        };
        let event = open.event(phase, &found);
        tracing::info!(at = ?world.now(), what = event.detail, "fault");
        if !instant {
            self.open.push(open);
        }
        Ok(event)
    }

    fn end(&self, open: &Open, world: &mut World, machines: &Machines) -> io::Result<Event> {
        let found = open.mend(world, machines)?;
        // What another strike still holds down was mended with this one: it goes on being broken.
        for other in &self.open {
            Machines::cut(world, &other.links, true);
        }
        let event = open.event(FaultPhase::End, &found);
        tracing::info!(at = ?world.now(), what = event.detail, "mended");
        Ok(event)
    }
}

fn at(strike: &Strike) -> Duration {
    Duration::from_millis(strike.at_ms)
}

/// The nodes that a fault hits now.
fn targets(fault: &Fault, machines: &Machines) -> Vec<u64> {
    let mut nodes = Vec::new();
    for who in fault.names() {
        match who {
            Who::All => nodes.extend(machines.all()),
            one => nodes.extend(machines.views().leader(one)),
        }
    }
    nodes
}

/// The links that a fault cuts, each one way.
fn links(fault: &Fault, nodes: &[u64], machines: &Machines) -> Vec<(u64, u64)> {
    let all: Vec<u64> = machines.all().collect();
    let pairs = all
        .iter()
        .flat_map(|a| all.iter().map(move |b| (*a, *b)))
        .filter(|(a, b)| a != b);
    match fault {
        Fault::Split { sides } => {
            let apart = |a, b| !sides.iter().any(|s| s.contains(&a) && s.contains(&b));
            pairs.filter(|(a, b)| apart(*a, *b)).collect()
        }
        Fault::Isolate { .. } => {
            let hit = |node| nodes.contains(&node);
            pairs.filter(|(a, b)| hit(*a) || hit(*b)).collect()
        }
        Fault::OneWay { .. } => match nodes {
            [from, to] if from != to => vec![(*from, *to)],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

impl Open {
    fn event(&self, phase: FaultPhase, found: &str) -> Event {
        let mut detail = self.fault.to_string();
        let named = self
            .fault
            .names()
            .iter()
            .any(|who| !matches!(who, Who::Node(_) | Who::All));
        if named {
            let nodes: Vec<String> = self.nodes.iter().map(|n| node::host(*n)).collect();
            let nodes = if nodes.is_empty() {
                "nobody".to_owned()
            } else {
                nodes.join(", ")
            };
            detail.push_str(&format!(" ({nodes})"));
        }
        if !found.is_empty() {
            detail.push_str(&format!(": {found}"));
        }
        Event {
            id: self.id,
            what: self.fault.kind().to_owned(),
            detail,
            phase,
        }
    }

    /// Breaks; says what there was to break, where that is not plain.
    #[expect(clippy::too_many_lines, reason = "one arm for each fault")]
    fn begin(&mut self, world: &mut World, machines: &Machines) -> io::Result<String> {
        Machines::cut(world, &self.links, true);
        let millis = Duration::from_millis;
        let (until, nodes) = (self.until, self.nodes.clone());
        let each = |act: &mut dyn FnMut(u64)| nodes.iter().for_each(|node| act(*node));
        match self.fault {
            Fault::Kill { .. } => each(&mut |n| machines.kill(world, n)),
            Fault::Stop { .. } => each(&mut |n| machines.switchboard().ask_to_stop(n)),
            Fault::CrashLoop { lives_ms, .. } => {
                each(&mut |n| machines.kill(world, n));
                self.again(world.now(), millis(lives_ms));
            }
            Fault::RollingKill { down_ms } => self.again(world.now(), millis(down_ms)),
            Fault::PowerLoss { after_ops: 0, .. } => each(&mut |n| machines.power_loss(world, n)),
            Fault::PowerLoss { after_ops, .. } => {
                each(&mut |n| machines.with_disk(n, |d| d.lose_power_after(after_ops)));
                self.again(world.now(), Duration::ZERO);
            }
            Fault::Pause { .. } => each(&mut |n| world.pause(&node::host(n), true)),
            Fault::LoseDisk { node } => machines.lose_disk(world, node),
            Fault::Isolate { clients: true, .. } | Fault::CutClients { .. } => {
                each(&mut |n| machines.cut_clients(world, n, true));
            }
            Fault::Flap { every_ms, .. } => {
                self.links = links(
                    &Fault::Isolate {
                        who: Who::All,
                        clients: false,
                    },
                    &self.nodes,
                    machines,
                );
                self.again(world.now(), millis(every_ms));
            }
            Fault::Reset { a, b } => world.net().reset(&node::host(a), &node::host(b)),
            Fault::HalfOpen { from, to } => {
                world.net().forget(&node::host(from), &node::host(to));
            }
            Fault::Late { from, to, late_ms } => {
                let late = until - world.now() + millis(late_ms);
                let (from, to) = (node::host(from), node::host(to));
                world.net().delay_connections(&from, &to, late);
            }
            Fault::SlowLink {
                delay_ms,
                bytes_per_s,
                ..
            } => each(&mut |n| {
                Machines::change_quality(world, n, |quality| {
                    quality.delay = millis(delay_ms);
                    quality.bytes_per_s = Some(bytes_per_s);
                });
            }),
            Fault::Loss { percent, .. } => each(&mut |n| {
                Machines::change_quality(world, n, |quality| quality.loss_percent = percent);
            }),
            Fault::Ghosts { percent, .. } => each(&mut |n| {
                Machines::change_quality(world, n, |quality| quality.ghost_percent = percent);
            }),
            Fault::ClockJump { by_ms, .. } => {
                each(&mut |n| world.set_clock(&node::host(n), by_ms));
            }
            Fault::ClockDrift { percent, .. } => {
                let speed = Speed::percent(percent);
                each(&mut |n| world.set_speed(&node::host(n), speed));
            }
            Fault::LoseCalls { .. } | Fault::SlowCalls { .. } | Fault::RepeatCalls { .. } => {
                self.on_lines(machines, true);
            }
            Fault::Split { .. } | Fault::Isolate { .. } | Fault::OneWay { .. } => {}
            _ => return self.begin_disk(world, machines),
        }
        Ok(String::new())
    }

    /// The part of [`Open::begin`] that breaks disks.
    fn begin_disk(&self, world: &mut World, machines: &Machines) -> io::Result<String> {
        let millis = Duration::from_millis;
        let each = |act: &dyn Fn(u64)| self.nodes.iter().for_each(|node| act(*node));
        let disks = |act: &dyn Fn(&seriatim_storage::disk::sim::SimDisk)| {
            each(&|n| machines.with_disk(n, act));
        };
        match self.fault {
            Fault::SlowSync { sync_ms, .. } => {
                disks(&|disk| disk.slow_syncs(millis(sync_ms), self.until));
            }
            Fault::SlowRead { read_ms, .. } => {
                disks(&|disk| disk.slow_reads(millis(read_ms), self.until));
            }
            Fault::FullDisk {
                after_writes: 0, ..
            } => disks(&|disk| disk.set_full(true)),
            Fault::FullDisk { after_writes, .. } => disks(&|disk| disk.fill_after(after_writes)),
            Fault::FullOnce { after_writes, .. } => {
                disks(&|disk| disk.full_once_after(after_writes));
            }
            Fault::BadDisk {
                op, after, count, ..
            } => {
                each(&|n| machines.fail_disk(n, op, after, count));
            }
            Fault::BitRot { node, file } => {
                if file == Rot::Votes {
                    machines.kill(world, node);
                    let found = machines.rot(node, file);
                    machines.boot(world, node)?;
                    return Ok(found);
                }
                return Ok(machines.rot(node, file));
            }
            _ => {}
        }
        Ok(String::new())
    }

    fn again(&mut self, now: Duration, every: Duration) {
        self.next = Some(Step {
            at: now + every,
            every,
            count: 0,
        });
    }

    /// What a strike does between its beginning and its end.
    fn go_on(&mut self, world: &mut World, machines: &Machines) -> io::Result<()> {
        let Some(step) = self.next.filter(|step| step.at <= world.now()) else {
            return Ok(());
        };
        self.next = Some(Step {
            at: step.at + step.every,
            every: step.every,
            count: step.count + 1,
        });
        let odd = step.count % 2 == 1;
        match self.fault {
            Fault::CrashLoop { .. } => {
                for node in &self.nodes {
                    machines.restart(world, *node)?;
                }
            }
            Fault::RollingKill { .. } => {
                let all: Vec<u64> = machines.all().collect();
                let at = usize::try_from(step.count / 2).unwrap_or_default();
                match all.get(at % all.len().max(1)) {
                    Some(node) if odd => machines.boot(world, *node)?,
                    Some(node) => machines.kill(world, *node),
                    None => {}
                }
            }
            Fault::PowerLoss { .. } => {
                for node in &self.nodes {
                    if machines.is_powerless(*node) {
                        machines.power_loss(world, *node);
                    }
                }
            }
            Fault::Flap { .. } => Machines::cut(world, &self.links, !odd),
            _ => self.next = None,
        }
        Ok(())
    }

    /// Ends it; says what came of it, where that is not plain.
    fn mend(&self, world: &mut World, machines: &Machines) -> io::Result<String> {
        Machines::cut(world, &self.links, false);
        match self.fault {
            Fault::Kill { .. } | Fault::CrashLoop { .. } | Fault::LoseDisk { .. } => {
                for node in &self.nodes {
                    machines.boot(world, *node)?;
                }
            }
            Fault::RollingKill { .. } => machines.boot_all(world)?,
            Fault::Stop { .. } => {
                for node in &self.nodes {
                    machines.restart(world, *node)?;
                }
            }
            Fault::PowerLoss { after_ops, .. } => {
                for node in &self.nodes {
                    // If it did not come to the operation at which it was to be, or if somebody else has
                    // started the node since.
                    if after_ops > 0 {
                        machines.power_loss(world, *node);
                    }
                    machines.boot(world, *node)?;
                }
            }
            Fault::Isolate { clients: true, .. } | Fault::CutClients { .. } => {
                for node in &self.nodes {
                    machines.cut_clients(world, *node, false);
                }
            }
            Fault::Late { from, to, .. } => {
                let (from, to) = (node::host(from), node::host(to));
                world.net().abandon_delayed(&from, &to);
            }
            Fault::BitRot { node, .. } => return self.replace(node, world, machines),
            Fault::LoseCalls { .. } | Fault::SlowCalls { .. } | Fault::RepeatCalls { .. } => {
                self.on_lines(machines, false);
            }
            _ => {
                for node in &self.nodes {
                    self.mend_one(*node, world, machines)?;
                }
            }
        }
        Ok(String::new())
    }

    fn mend_one(&self, node: u64, world: &mut World, machines: &Machines) -> io::Result<()> {
        let host = node::host(node);
        let zero = Duration::ZERO;
        match self.fault {
            Fault::Pause { .. } => world.pause(&host, false),
            Fault::ClockJump { .. } => world.set_clock(&host, 0),
            Fault::ClockDrift { .. } => world.set_speed(&host, Speed::RIGHT),
            Fault::SlowLink { .. } => Machines::change_quality(world, node, |quality| {
                (quality.delay, quality.bytes_per_s) = (zero, None);
            }),
            Fault::Loss { .. } => {
                Machines::change_quality(world, node, |quality| quality.loss_percent = 0);
            }
            Fault::Ghosts { .. } => {
                Machines::change_quality(world, node, |quality| quality.ghost_percent = 0);
            }
            Fault::SlowSync { .. } => machines.with_disk(node, |d| d.slow_syncs(zero, zero)),
            Fault::SlowRead { .. } => machines.with_disk(node, |d| d.slow_reads(zero, zero)),
            Fault::FullDisk { after_writes, .. } | Fault::FullOnce { after_writes, .. } => {
                machines.with_disk(node, |disk| disk.set_full(false));
                if after_writes > 0 {
                    // It could not see it coming, and may have met it where it takes a disk that is full for
                    // one that is broken.
                    machines.restart(world, node)?;
                }
            }
            Fault::BadDisk { op, .. } => {
                machines.fail_disk(node, op, 0, 0);
                machines.restart(world, node)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A node that does not start any more, because it finds its votes damaged, gets an empty disk.
    fn replace(&self, node: u64, world: &mut World, machines: &Machines) -> io::Result<String> {
        // Whoever starts says at once if it cannot.
        machines.boot(world, node)?;
        let Some(why) = machines.views().why_down(node) else {
            return Ok("it runs".to_owned());
        };
        machines.lose_disk(world, node);
        machines.boot(world, node)?;
        Ok(format!("it got an empty disk, because: {why}"))
    }

    fn on_lines(&self, machines: &Machines, broken: bool) {
        machines
            .switchboard()
            .change(|lines: &mut Lines| match self.fault {
                Fault::LoseCalls { requests, answers } => {
                    let (requests, answers) = if broken { (requests, answers) } else { (0, 0) };
                    (lines.lost_requests, lines.lost_answers) = (requests, answers);
                }
                Fault::SlowCalls { most_ms } => {
                    lines.slow = Duration::from_millis(if broken { most_ms } else { 0 });
                }
                Fault::RepeatCalls { percent, most_ms } => {
                    lines.repeated = if broken { percent } else { 0 };
                    lines.repeated_after = Duration::from_millis(most_ms);
                }
                _ => {}
            });
    }
}
