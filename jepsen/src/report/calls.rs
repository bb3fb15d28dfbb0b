//! Operations with both of their ends, and faults with both of theirs.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Action, FaultPhase, Kind, Op, Operation, operations};

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// It took effect.
    Ok,
    /// It certainly did not.
    Fail,
    /// It may have; also one that never came back.
    Info,
}

impl Outcome {
    /// Its number on the page.
    pub(super) const fn number(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Fail => 1,
            Self::Info => 2,
        }
    }
}

/// An operation of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    /// Its two ends.
    pub(super) ends: Operation<'a>,
    /// How it ended.
    pub(super) outcome: Outcome,
    /// When it ended, in nanoseconds; the end of the history for one that did not.
    pub(super) end: u64,
}

impl<'a> Call<'a> {
    /// The entry where it begins.
    pub(super) const fn invoke(&self) -> &'a Op {
        self.ends.invoked
    }

    /// The entry that knows most.
    pub(super) fn last(&self) -> &'a Op {
        self.ends.completed.unwrap_or(self.ends.invoked)
    }

    /// The kind of operation.
    pub(super) const fn kind(&self) -> &'static str {
        name(&self.invoke().action)
    }

    /// How long it took, in nanoseconds.
    pub(super) const fn took(&self) -> u64 {
        self.end.saturating_sub(self.invoke().time)
    }

    /// Whether one of its entries is among these.
    pub(super) fn is_in(&self, entries: &BTreeSet<u64>) -> bool {
        let completed = self.ends.completed.map(|op| op.index);
        entries.contains(&self.invoke().index) || completed.is_some_and(|at| entries.contains(&at))
    }
}

/// What was broken, from when to when.
#[derive(Debug, Clone)]
pub(super) struct Span<'a> {
    /// The kind.
    pub(super) what: &'a str,
    /// In words.
    pub(super) detail: &'a str,
    /// In nanoseconds.
    pub(super) start: u64,
    /// In nanoseconds; the end of the history for one that was never mended.
    pub(super) end: u64,
    /// It happened at once, and was over.
    pub(super) once: bool,
}

/// The name of an action, as `f` has it.
pub(super) const fn name(action: &Action) -> &'static str {
    match action {
        Action::Send(_) => "send",
        Action::Poll(_) => "poll",
        Action::Assign(_) => "assign",
        Action::Subscribe(_) => "subscribe",
        Action::Crash => "crash",
        Action::Commit(_) => "commit",
        Action::Committed(_) => "committed",
        Action::Trim(_) => "trim",
        Action::Register(_) => "register",
        Action::CreateTopic(_) => "create-topic",
        Action::DeleteTopic(_) => "delete-topic",
        Action::Replica(_) => "replica",
        Action::Recover => "recover",
        Action::Fault(_) => "fault",
        Action::Impossible(_) => "impossible",
    }
}

/// The operations of clients, in the order of their invocations.
pub(super) fn calls(ops: &[Op]) -> Vec<Call<'_>> {
    let last = ops.last().map_or(0, |op| op.time);
    let calls = operations(ops).into_iter().map(|ends| Call {
        outcome: match ends.end() {
            Kind::Ok => Outcome::Ok,
            Kind::Fail => Outcome::Fail,
            Kind::Info | Kind::Invoke => Outcome::Info,
        },
        end: ends.completed.map_or(last, |op| op.time),
        ends,
    });
    calls.collect()
}

/// What was broken, by the time at which it began.
pub(super) fn faults(ops: &[Op]) -> Vec<Span<'_>> {
    let last = ops.last().map_or(0, |op| op.time);
    let mut out: Vec<Span<'_>> = Vec::new();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for op in ops {
        let Action::Fault(fault) = &op.action else {
            continue;
        };
        let once = fault.phase == FaultPhase::Once;
        if fault.phase == FaultPhase::End {
            let span = open.remove(&fault.id).and_then(|at| out.get_mut(at));
            if let Some(span) = span {
                span.end = op.time;
            }
            continue;
        }
        if !once {
            let _open = open.insert(fault.id, out.len());
        }
        out.push(Span {
            what: &fault.what,
            detail: &fault.detail,
            start: op.time,
            end: if once { op.time } else { last },
            once,
        });
    }
    out
}
