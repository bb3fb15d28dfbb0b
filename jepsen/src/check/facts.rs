//! What several checkers need to know of a history, gathered once.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use super::highest::Highest;
use crate::history::{
    Action, Commit, Committed, Header, History, Key, Kind, Op, Operation, Poll, Read, Register,
    Replica, Send, Trim, Value, operations,
};

/// A send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) op: Operation<'a>,
    pub(super) send: &'a Send,
}

impl<'a> Sent<'a> {
    /// The offset of its first value, if it was acknowledged.
    pub(super) fn acknowledged(&self) -> Option<i64> {
        self.send.offset.filter(|_| self.op.end() == Kind::Ok)
    }

    /// Values with their offsets, if it was acknowledged.
    pub(super) fn places(&self) -> impl Iterator<Item = (i64, Value)> + use<'a> {
        let from = self.acknowledged();
        let values = &self.send.values;
        from.into_iter()
            .flat_map(move |from| (from..).zip(values.iter().copied()))
    }

    /// How many values.
    pub(super) fn len(&self) -> i64 {
        i64::try_from(self.send.values.len()).unwrap_or(i64::MAX)
    }

    /// The entries that show it.
    pub(super) fn ops(&self) -> Vec<u64> {
        let completed = self.op.completed.map(|op| op.index);
        [Some(self.op.invoked.index), completed]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// What a poll gave of one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Polled<'a> {
    pub(super) op: Operation<'a>,
    pub(super) completed: &'a Op,
    pub(super) poll: &'a Poll,
    pub(super) key: Key,
    pub(super) read: &'a Read,
}

/// A whole log as it was read after the last fault.
#[derive(Debug)]
pub(super) struct Final<'a> {
    pub(super) polled: Polled<'a>,
    /// Where it begins; what is below was removed on purpose.
    pub(super) start: i64,
    /// Where it ends.
    pub(super) end: i64,
    /// Its records in the order of their offsets.
    records: Cow<'a, [(i64, Value)]>,
}

impl<'a> Final<'a> {
    fn of(polled: Polled<'a>) -> Self {
        let read = polled.read;
        let records = if read.records.is_sorted_by_key(|&(offset, _)| offset) {
            Cow::Borrowed(read.records.as_slice())
        } else {
            let mut sorted = read.records.clone();
            sorted.sort_unstable();
            Cow::Owned(sorted)
        };
        let first = records.first().map(|&(offset, _)| offset);
        let start = read.log_start.or(first).unwrap_or(0);
        let after = records.last().map_or(start, |&(offset, _)| offset + 1);
        Self {
            polled,
            start,
            end: read.high_watermark.unwrap_or(after).max(after),
            records,
        }
    }

    /// The value at an offset.
    pub(super) fn at(&self, offset: i64) -> Option<Value> {
        let found = self.records.binary_search_by_key(&offset, |&(o, _)| o);
        let found = found.ok().and_then(|at| self.records.get(at));
        found.map(|&(_, value)| value)
    }

    /// Whether everything that was known before entry `index` ended must be in it.
    pub(super) fn is_after(&self, index: u64) -> bool {
        self.polled.op.invoked.index > index
    }
}

/// Where something was seen first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sighting {
    pub(super) offset: i64,
    pub(super) value: Value,
    /// The entry that shows it.
    pub(super) index: u64,
}

/// What is known of one key.
#[derive(Debug, Default)]
pub(super) struct Log<'a> {
    /// The first to be seen at each offset.
    pub(super) by_offset: HashMap<i64, Sighting>,
    /// The first place where each value was seen.
    pub(super) by_value: HashMap<Value, Sighting>,
    /// The send of each value, by its place in [`Facts::sends`].
    writers: HashMap<Value, usize>,
    /// The log starts that were named, as they became known.
    pub(super) starts: Highest<i64>,
    /// Its final reads.
    pub(super) finals: Vec<Final<'a>>,
}

/// A history, prepared.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) header: &'a Header,
    pub(super) ops: &'a [Op],
    /// In the order of their invocations.
    pub(super) sends: Vec<Sent<'a>>,
    /// In the order of their completions.
    pub(super) polls: Vec<Polled<'a>>,
    pub(super) logs: BTreeMap<Key, Log<'a>>,
    /// The others in the order of their invocations.
    pub(super) assigns: Vec<(Operation<'a>, &'a [Key])>,
    pub(super) commits: Vec<(Operation<'a>, &'a Commit)>,
    pub(super) committed: Vec<(Operation<'a>, &'a Committed)>,
    pub(super) trims: Vec<(Operation<'a>, &'a Trim)>,
    pub(super) registers: Vec<(Operation<'a>, &'a Register)>,
    pub(super) replicas: Vec<(Operation<'a>, &'a Replica)>,
    pub(super) recoveries: Vec<Operation<'a>>,
    /// Values that two sends share, which makes a history worthless.
    pub(super) sent_twice: Vec<(Key, Value, usize)>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut facts = Self {
            header: &history.header,
            ops: &history.ops,
            sends: Vec::new(),
            polls: Vec::new(),
            logs: BTreeMap::new(),
            assigns: Vec::new(),
            commits: Vec::new(),
            committed: Vec::new(),
            trims: Vec::new(),
            registers: Vec::new(),
            replicas: Vec::new(),
            recoveries: Vec::new(),
            sent_twice: Vec::new(),
        };
        for operation in operations(&history.ops) {
            facts.sort(operation);
        }
        facts.polls.sort_by_key(|polled| polled.completed.index);
        facts.gather();
        facts
    }

    fn sort(&mut self, op: Operation<'a>) {
        match op.action() {
            Action::Send(send) => self.sends.push(Sent { op, send }),
            Action::Poll(poll) => {
                let Some(completed) = op.completed else {
                    return;
                };
                let reads = poll.reads.iter();
                self.polls.extend(reads.map(|(&key, read)| Polled {
                    op,
                    completed,
                    poll,
                    key,
                    read,
                }));
            }
            Action::Assign(keys) | Action::Subscribe(keys) => self.assigns.push((op, keys)),
            Action::Commit(commit) => self.commits.push((op, commit)),
            Action::Committed(committed) => self.committed.push((op, committed)),
            Action::Trim(trim) => self.trims.push((op, trim)),
            Action::Register(register) => self.registers.push((op, register)),
            Action::Replica(replica) => self.replicas.push((op, replica)),
            Action::Recover => self.recoveries.push(op),
            Action::Crash
            | Action::CreateTopic(_)
            | Action::DeleteTopic(_)
            | Action::Fault(_)
            | Action::Impossible(_) => {}
        }
    }

    fn gather(&mut self) {
        for (at, sent) in self.sends.iter().enumerate() {
            let log = self.logs.entry(sent.send.key).or_default();
            for &value in &sent.send.values {
                if *log.writers.entry(value).or_insert(at) != at {
                    self.sent_twice.push((sent.send.key, value, at));
                }
            }
        }
        for (key, sighting) in sightings(&self.sends, &self.polls) {
            let log = self.logs.entry(key).or_default();
            let _first = log.by_offset.entry(sighting.offset).or_insert(sighting);
            let _first = log.by_value.entry(sighting.value).or_insert(sighting);
        }
        for polled in self.polls.iter().filter(|polled| polled.poll.is_final) {
            let log = self.logs.entry(polled.key).or_default();
            log.finals.push(Final::of(*polled));
        }
        let mut starts: Vec<(u64, Key, i64)> = Vec::new();
        for polled in &self.polls {
            let start = polled.read.log_start;
            starts.extend(start.map(|start| (polled.completed.index, polled.key, start)));
        }
        for (op, trim) in &self.trims {
            let named = trim.log_start.filter(|_| op.end() == Kind::Ok);
            let end = op.completed.map(|completed| completed.index);
            starts.extend(
                end.zip(named)
                    .map(|(index, start)| (index, trim.key, start)),
            );
        }
        starts.sort_unstable();
        for (index, key, start) in starts {
            self.logs.entry(key).or_default().starts.note(index, start);
        }
    }

    /// Every place at which a value was acknowledged or read.
    pub(super) fn sightings(&self) -> impl Iterator<Item = (Key, Sighting)> {
        sightings(&self.sends, &self.polls)
    }

    /// What is known of a key.
    pub(super) fn log(&self, key: Key) -> Option<&Log<'a>> {
        self.logs.get(&key)
    }

    /// Who sent a value to a key.
    pub(super) fn writer(&self, key: Key, value: Value) -> Option<&Sent<'a>> {
        let at = self.logs.get(&key)?.writers.get(&value)?;
        self.sends.get(*at)
    }

    /// Where the values of a send are in the log, as far as anybody knows: acknowledged or read.
    pub(super) fn place(&self, sent: &Sent<'a>) -> Option<i64> {
        sent.acknowledged().or_else(|| {
            let log = self.logs.get(&sent.send.key)?;
            let mut seen = sent.send.values.iter().zip(0..);
            seen.find_map(|(value, at)| Some(log.by_value.get(value)?.offset - at))
        })
    }

    /// What people call a key.
    pub(super) fn name(&self, key: Key) -> String {
        let name = self.header.keys.get(&key).cloned();
        name.unwrap_or_else(|| format!("key {key}"))
    }

    /// A send for people.
    pub(super) fn describe(&self, sent: &Sent<'a>) -> String {
        let name = self.name(sent.send.key);
        let process = process(&sent.op);
        format!("{process} sent {:?} to {name}", sent.send.values)
    }
}

fn sightings<'a>(
    sends: &[Sent<'a>],
    polls: &[Polled<'a>],
) -> impl Iterator<Item = (Key, Sighting)> {
    let acknowledged = sends.iter().flat_map(|sent| {
        let (key, completed) = (sent.send.key, sent.op.completed);
        let index = completed.map_or(sent.op.invoked.index, |op| op.index);
        sent.places().map(move |(offset, value)| {
            let sighting = Sighting {
                offset,
                value,
                index,
            };
            (key, sighting)
        })
    });
    let read = polls.iter().flat_map(|polled| {
        let (key, index) = (polled.key, polled.completed.index);
        polled.read.records.iter().map(move |&(offset, value)| {
            let sighting = Sighting {
                offset,
                value,
                index,
            };
            (key, sighting)
        })
    });
    acknowledged.chain(read)
}

/// The process of an operation, for people.
pub(super) fn process(op: &Operation<'_>) -> String {
    match op.process() {
        crate::history::Process::Client(number) => format!("process {number}"),
        crate::history::Process::Nemesis(_) => "the nemesis".to_owned(),
    }
}

/// The node of an operation, for people.
pub(super) fn node(op: &Operation<'_>) -> String {
    op.node()
        .map_or("a node".to_owned(), |node| format!("node {node}"))
}

/// The time of an entry, for people.
pub(super) fn at(op: &Op) -> String {
    let time = std::time::Duration::from_nanos(op.time);
    format!("{:.3} s", time.as_secs_f64())
}
