//! Correct histories at random: logs, a group and a register in one place, and processes that use them at
//! once. An operation takes effect at some time between its begin and its end; some never hear of it.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::story::{KEY, Open, Story, commit, given, register, send};
use crate::history::{
    Action, Committed, Key, Kind, Poll, Read, RegisterOp, Send, Trim, Value, Workload,
};

/// A key to which everybody appends on condition.
pub(super) const LEDGER: Key = 1;

/// A register.
pub(super) const CELL: Key = 2;

/// Members of the group are the processes from here on.
const MEMBERS: usize = 8;

/// Processes in all.
const PROCESSES: usize = 12;

/// What a process is at.
#[derive(Debug)]
enum Stage {
    /// It takes effect later.
    Begun(Open, Action),
    /// It took effect, with this for an end.
    Done(Open, Kind, Action),
}

/// What is told about.
struct World {
    rng: StdRng,
    story: Story,
    logs: BTreeMap<Key, Vec<Value>>,
    start: i64,
    register: Option<Value>,
    next: Value,
    /// The current name of each process.
    names: Vec<u64>,
    stages: Vec<Option<Stage>>,
    /// What was never answered, and may yet take effect.
    late: Vec<Action>,
    /// Where each reader stands.
    positions: BTreeMap<u64, i64>,
    /// Readers that were set elsewhere and have read nothing since.
    sought: BTreeSet<u64>,
    generation: u64,
    owner: usize,
    committed: Option<i64>,
    processed: i64,
}

/// A history of about `entries` entries.
pub(super) fn history(seed: u64, entries: usize) -> Story {
    let mut world = World {
        rng: StdRng::seed_from_u64(seed),
        story: Story::new(),
        logs: BTreeMap::new(),
        start: 0,
        register: None,
        next: 0,
        names: (0..).take(PROCESSES).collect(),
        stages: (0..PROCESSES).map(|_| None).collect(),
        late: Vec::new(),
        positions: BTreeMap::new(),
        sought: BTreeSet::new(),
        generation: 1,
        owner: MEMBERS,
        committed: None,
        processed: 0,
    };
    while world.story.0.ops.len() < entries {
        world.turn();
    }
    world.finish()
}

fn int(n: usize) -> i64 {
    i64::try_from(n).unwrap()
}

/// Whether nobody cares what came of it.
fn only_asks(action: &Action) -> bool {
    matches!(action, Action::Poll(_) | Action::Committed(_))
}

impl World {
    fn end(&self, key: Key) -> i64 {
        int(self.logs.get(&key).map_or(0, Vec::len))
    }

    fn hand_over(&mut self, owner: usize) {
        self.generation += 1;
        self.owner = owner;
        self.processed = self.committed.unwrap_or(0);
    }

    fn turn(&mut self) {
        if self.rng.random_bool(0.02) {
            let owner = self.rng.random_range(MEMBERS..PROCESSES);
            self.hand_over(owner);
        }
        if self.rng.random_bool(0.1) && !self.late.is_empty() {
            let action = self.late.remove(0);
            let _unheard = self.take_effect(None, action);
        }
        let who = self.rng.random_range(0..PROCESSES);
        match self.stages[who].take() {
            None => {
                let action = self.begin(who);
                let name = self.names[who];
                let asked = match &action {
                    Action::Poll(_) => Action::Poll(Poll::default()),
                    other => other.clone(),
                };
                let open = self.story.begin(name, Some(1 + name % 3), asked);
                self.stages[who] = Some(Stage::Begun(open, action));
            }
            Some(Stage::Begun(open, action)) => {
                if self.rng.random_bool(0.04) && !only_asks(&action) {
                    self.unheard(who, open, &action);
                    self.late.push(action);
                    return;
                }
                let (kind, done) = self.take_effect(Some(who), action);
                self.stages[who] = Some(Stage::Done(open, kind, done));
            }
            Some(Stage::Done(open, Kind::Ok, action))
                if self.rng.random_bool(0.04) && !only_asks(&action) =>
            {
                self.unheard(who, open, &action);
            }
            Some(Stage::Done(open, kind, action)) => self.story.end(open, kind, action),
        }
    }

    /// Nobody hears what came of it, and its process goes on under another name.
    fn unheard(&mut self, who: usize, open: Open, action: &Action) {
        let asked = match action {
            Action::Send(sent) => Action::Send(Send {
                offset: None,
                ..sent.clone()
            }),
            Action::Poll(_) => Action::Poll(Poll::default()),
            other => other.clone(),
        };
        self.story.end(open, Kind::Info, asked);
        self.names[who] += u64::try_from(PROCESSES).unwrap();
        if who == self.owner {
            self.hand_over(who);
        }
    }

    fn value(&mut self) -> Value {
        self.next += 1;
        self.next
    }

    fn begin(&mut self, who: usize) -> Action {
        let name = self.names[who];
        match who {
            0..3 => {
                let count = self.rng.random_range(1..4);
                let values: Vec<_> = (0..count).map(|_| self.value()).collect();
                Action::Send(Send {
                    // A session ends where something is not heard.
                    producer: i64::try_from(name).ok(),
                    ..send(&values)
                })
            }
            3 => self.begin_conditional(),
            4 | 5 => self.begin_poll(who),
            6 => match self.rng.random_range(0..6) {
                0 => Action::Trim(Trim {
                    key: KEY,
                    before: self.rng.random_range(0..=self.end(KEY)),
                    log_start: None,
                }),
                1..4 => Action::Committed(Committed {
                    group: "g".to_owned(),
                    offsets: BTreeMap::new(),
                }),
                _ => self.begin_conditional(),
            },
            7 => {
                let value = self.value();
                on_cell(match self.rng.random_range(0..3) {
                    0 => RegisterOp::Read(None),
                    1 => RegisterOp::Write(value),
                    _ => RegisterOp::Cas(self.register, value),
                })
            }
            // Members: process, or commit what they have processed; now and then look at the register.
            _ => match self.rng.random_range(0..4) {
                0 => commit(name, self.generation, self.processed),
                1 => on_cell(RegisterOp::Read(None)),
                _ => given(name, self.generation, &[]),
            },
        }
    }

    fn begin_conditional(&mut self) -> Action {
        let value = self.value();
        Action::Send(Send {
            key: LEDGER,
            expected_end: Some(self.end(LEDGER)),
            ..send(&[value])
        })
    }

    fn begin_poll(&mut self, who: usize) -> Action {
        let name = self.names[who];
        if self.rng.random_bool(0.1) {
            let _new = self.sought.insert(name);
            let anywhere = self.rng.random_range(self.start..=self.end(KEY));
            let _was = self.positions.insert(name, anywhere);
        }
        let from = self.positions.get(&name).copied().unwrap_or(0);
        Action::Poll(Poll {
            from: [(KEY, from)].into(),
            sought: self.sought.contains(&name),
            ..Poll::default()
        })
    }

    /// The records from an offset on, some of them.
    fn some(&mut self, from: i64) -> Vec<(i64, Value)> {
        let count = self.rng.random_range(1..6);
        let log = self.logs.get(&KEY).map_or(&[][..], Vec::as_slice);
        let rest = (0..).zip(log.iter().copied());
        let rest = rest.skip(usize::try_from(from).unwrap());
        rest.take(count).collect()
    }

    /// What comes of an operation; of nobody's if its process is another one now.
    fn take_effect(&mut self, who: Option<usize>, action: Action) -> (Kind, Action) {
        match action {
            Action::Send(send) => self.append(send),
            Action::Poll(poll) if poll.group.is_some() => self.process(who, &poll),
            Action::Poll(poll) => self.consume(who.unwrap(), poll),
            Action::Trim(mut trim) => {
                self.start = self.start.max(trim.before);
                trim.log_start = Some(self.start);
                (Kind::Ok, Action::Trim(trim))
            }
            Action::Commit(of) => {
                let (granted, offset) = (of.granted[&KEY], of.offsets[&KEY]);
                let owns = who == Some(self.owner) && granted == self.generation;
                if owns && self.committed <= Some(offset) {
                    self.committed = Some(offset);
                    return (Kind::Ok, Action::Commit(of));
                }
                (Kind::Fail, Action::Commit(of))
            }
            Action::Committed(mut of) => {
                of.offsets = [(KEY, self.committed)].into();
                (Kind::Ok, Action::Committed(of))
            }
            Action::Register(of) => {
                let (kind, op) = self.use_register(of.op);
                (kind, on_cell(op))
            }
            other => (Kind::Ok, other),
        }
    }

    fn append(&mut self, mut send: Send) -> (Kind, Action) {
        let end = self.end(send.key);
        if send.expected_end.is_some_and(|expected| expected != end) {
            send.found_end = Some(end);
            return (Kind::Fail, Action::Send(send));
        }
        let log = self.logs.entry(send.key).or_default();
        log.extend(&send.values);
        send.offset = Some(end);
        (Kind::Ok, Action::Send(send))
    }

    fn consume(&mut self, who: usize, mut poll: Poll) -> (Kind, Action) {
        let name = self.names[who];
        let from = poll.from[&KEY];
        let mut read = Read {
            high_watermark: Some(self.end(KEY)),
            log_start: Some(self.start),
            ..Read::default()
        };
        let is_there = from >= self.start;
        let mut next = from.max(self.start);
        if is_there {
            read.records = self.some(from);
            next += int(read.records.len());
            let _was = self.sought.remove(&name);
        }
        let _was = self.positions.insert(name, next);
        let _none = poll.reads.insert(KEY, read);
        let kind = if is_there { Kind::Ok } else { Kind::Fail };
        (kind, Action::Poll(poll))
    }

    fn process(&mut self, who: Option<usize>, poll: &Poll) -> (Kind, Action) {
        let granted = poll.reads[&KEY].granted;
        if who != Some(self.owner) || granted != Some(self.generation) {
            return (Kind::Fail, Action::Poll(Poll::default()));
        }
        let from = self.processed.max(self.start);
        let records = self.some(from);
        self.processed = from + int(records.len());
        let mut read = given(self.names[self.owner], self.generation, &records);
        if let Action::Poll(poll) = &mut read {
            poll.reads.get_mut(&KEY).unwrap().log_start = Some(self.start);
        }
        (Kind::Ok, read)
    }

    fn use_register(&mut self, op: RegisterOp) -> (Kind, RegisterOp) {
        match op {
            RegisterOp::Read(_) => (Kind::Ok, RegisterOp::Read(self.register)),
            RegisterOp::Write(value) => {
                self.register = Some(value);
                (Kind::Ok, RegisterOp::Write(value))
            }
            RegisterOp::Cas(from, to) if from == self.register => {
                self.register = Some(to);
                (Kind::Ok, RegisterOp::Cas(from, to))
            }
            refused @ RegisterOp::Cas(..) => (Kind::Fail, refused),
        }
    }

    /// Everything ends; then all is read and compared.
    /// One commit that somebody sees, in case chance left that out.
    fn commit_and_see(&mut self) {
        let name = self.names[self.owner];
        let asks = Action::Committed(Committed {
            group: "g".to_owned(),
            offsets: BTreeMap::new(),
        });
        for action in [commit(name, self.generation, self.processed), asks] {
            let open = self.story.begin(name, Some(1), action.clone());
            let (kind, done) = self.take_effect(Some(self.owner), action);
            self.story.end(open, kind, done);
        }
    }

    fn finish(mut self) -> Story {
        for who in 0..PROCESSES {
            match self.stages[who].take() {
                Some(Stage::Done(open, kind, action)) => self.story.end(open, kind, action),
                Some(Stage::Begun(open, action)) => self.unheard(who, open, &action),
                None => {}
            }
        }
        self.commit_and_see();
        let mut story = self.story;
        let names = [(KEY, "a-0"), (LEDGER, "b-0"), (CELL, "c-0")];
        story.0.header.keys = names.map(|(key, name)| (key, name.to_owned())).into();
        story.did(5000, None, Action::Recover);
        for (key, log) in &self.logs {
            let start = if *key == KEY { self.start } else { 0 };
            let records = (0..).zip(log.iter().copied());
            let records = records.skip(usize::try_from(start).unwrap()).collect();
            let read = Read {
                records,
                high_watermark: Some(int(log.len())),
                log_start: Some(start),
                granted: None,
            };
            let last = Poll {
                reads: [(*key, read)].into(),
                is_final: true,
                ..Poll::default()
            };
            let open = story.begin(5001, Some(1), Action::Poll(Poll::default()));
            story.end(open, Kind::Ok, Action::Poll(last));
        }
        for node in 1..=3 {
            story.replica(node, "d");
        }
        // Fast, so that nobody waits for long.
        for op in &mut story.0.ops {
            op.time = op.index * 1_000_000;
        }
        story.0.header.workloads = [
            Workload::Append,
            Workload::Idempotent,
            Workload::Conditional,
            Workload::Ledger,
            Workload::Consume,
            Workload::GroupConsume,
            Workload::Offsets,
            Workload::Register,
            Workload::Final,
            Workload::Recover,
        ]
        .into();
        story
    }
}

fn on_cell(op: RegisterOp) -> Action {
    let Action::Register(mut of) = register(op) else {
        panic!("no register");
    };
    of.key = CELL;
    Action::Register(of)
}
