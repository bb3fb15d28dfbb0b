//! A register that is kept in a partition is linearizable: reads, writes and compare-and-sets can be put
//! in an order that one sequential register allows, each between its invocation and its completion; those
//! without an answer at any later time, or never.
//!
//! Every write has a value of its own. So it is known which operations must see it, none of which may come
//! after the next write; and a write without an answer that nobody saw can be left out, while one that
//! somebody saw took place. Both leave the search few choices.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Checker,
    facts::{Facts, process},
    finder::Finder,
    linear::{Call, Model, Verdict, search},
};
use crate::history::{Key, Kind, Operation, Register, RegisterOp, Value, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "linearizable-register",
    promise: "P1, P2: a register kept in a partition is linearizable",
    check,
    fed_by: &[Workload::Register],
};

/// Most states that are looked at for one register.
const STATES_MAX: usize = 2_000_000;

/// Most states that are looked at to make a counterexample smaller by some operations.
const SHRINK_STATES_MAX: usize = 20_000;

/// The register's value; `None` before the first write.
type Content = Option<Value>;

/// An operation that took place, and what it saw and left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Act {
    saw: Option<Content>,
    wrote: Option<Value>,
    /// Its place in [`Facts::registers`].
    at: usize,
}

/// The register, which knows how many operations are to see each value.
struct Cell {
    observers: HashMap<Content, u32>,
}

impl Cell {
    fn of(calls: &[Call<Act>]) -> Self {
        let mut observers: HashMap<Content, u32> = HashMap::new();
        for call in calls {
            if let Some(saw) = call.act.saw {
                *observers.entry(saw).or_default() += 1;
            }
        }
        Self { observers }
    }

    fn holding(&self, content: Content) -> State {
        State {
            left: self.observers.get(&content).copied().unwrap_or(0),
            content: Some(content),
        }
        .spent()
    }
}

/// What is in the register, and how many are still to see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// `None` if nobody is to see it any more: then it does not matter what it is.
    content: Option<Content>,
    left: u32,
}

impl State {
    fn spent(mut self) -> Self {
        if self.left == 0 {
            self.content = None;
        }
        self
    }
}

impl Model for Cell {
    type State = State;
    type Act = Act;

    fn start(&self) -> State {
        self.holding(None)
    }

    fn step(&self, state: &State, act: &Act) -> Option<State> {
        let mut state = state.clone();
        if let Some(saw) = act.saw {
            if state.content != Some(saw) {
                return None;
            }
            state.left -= 1;
        }
        match act.wrote {
            // Nobody else would see what is there.
            Some(_) if state.left > 0 => None,
            Some(value) => Some(self.holding(Some(value))),
            None => Some(state.spent()),
        }
    }

    fn is_free(&self, _: &State, act: &Act) -> bool {
        // A read changes nothing, nor does a write that nobody sees over what nobody sees.
        act.wrote
            .is_none_or(|value| act.saw.is_none() && !self.observers.contains_key(&Some(value)))
    }
}

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let mut by_key: BTreeMap<Key, Vec<Call<Act>>> = BTreeMap::new();
    for (at, (op, register)) in facts.registers.iter().enumerate() {
        let calls = by_key.entry(register.key).or_default();
        calls.extend(call(at, op, register));
    }
    for (key, calls) in by_key {
        let calls = seen(calls);
        if calls.is_empty() {
            continue;
        }
        finder.looked_at(calls.len() - 1);
        let verdict = search(&Cell::of(&calls), &calls, STATES_MAX);
        finder.expect(verdict == Verdict::Linearizable, || {
            wrong(facts, key, &calls, &verdict)
        });
    }
}

/// The operation, if it may have taken place.
fn call(at: usize, op: &Operation<'_>, register: &Register) -> Option<Call<Act>> {
    let (saw, wrote) = match (&register.op, op.end()) {
        (_, Kind::Fail | Kind::Invoke) => return None,
        (RegisterOp::Read(_), Kind::Info) => return None,
        (RegisterOp::Read(value), Kind::Ok) => (Some(*value), None),
        (RegisterOp::Write(value), _) => (None, Some(*value)),
        (RegisterOp::Cas(from, to), _) => (Some(*from), Some(*to)),
    };
    Some(Call {
        act: Act { saw, wrote, at },
        from: op.invoked.index,
        until: Some(op.over_at()).filter(|over| *over != u64::MAX),
    })
}

/// Without those of which it is not known whether they took place and of which nobody saw anything.
fn seen(calls: Vec<Call<Act>>) -> Vec<Call<Act>> {
    let (mut certain, mut open): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|call| call.until.is_some());
    let saw = certain.iter().filter_map(|call| call.act.saw);
    let mut saw: BTreeSet<Content> = saw.collect();
    loop {
        let (took_place, rest): (Vec<_>, Vec<_>) = open
            .into_iter()
            .partition(|call| saw.contains(&call.act.wrote));
        open = rest;
        if took_place.is_empty() {
            break;
        }
        saw.extend(took_place.iter().filter_map(|call| call.act.saw));
        certain.extend(took_place);
    }
    certain.sort_by_key(|call| call.from);
    certain
}

fn wrong(
    facts: &Facts<'_>,
    key: Key,
    calls: &[Call<Act>],
    verdict: &Verdict<State>,
) -> (String, Vec<u64>) {
    let name = facts.name(key);
    if let Verdict::Undecided(states) = verdict {
        let text =
            format!("{name}: no order was found among {states} states, nor that there is none");
        return (text, Vec::new());
    }
    let smallest = shrink(shortest(calls));
    let ops = smallest
        .iter()
        .filter_map(|call| facts.registers.get(call.act.at));
    let lines: Vec<String> = ops.clone().map(|(op, r)| describe(op, r)).collect();
    let entries = ops.flat_map(|(op, _)| {
        let end = op.completed.map(|end| end.index);
        std::iter::once(op.invoked.index).chain(end)
    });
    let text = format!(
        "{name}: these {} operations have no order in which a register allows them:\n{}",
        lines.len(),
        lines.join("\n")
    );
    (text, entries.collect())
}

fn describe(op: &Operation<'_>, register: &Register) -> String {
    let end = match op.completed.filter(|end| end.kind == Kind::Ok) {
        Some(end) => format!("to {}", end.index),
        None => "without an answer".to_owned(),
    };
    let what = match &register.op {
        RegisterOp::Read(value) => format!("read {}", content(*value)),
        RegisterOp::Write(value) => format!("wrote {value}"),
        RegisterOp::Cas(from, to) => format!("set {to} in place of {}", content(*from)),
    };
    let (who, from) = (process(op), op.invoked.index);
    format!("  {who} {what}, from entry {from} {end}")
}

fn content(value: Content) -> String {
    value.map_or("nothing".to_owned(), |value| value.to_string())
}

/// The shortest beginning that has no order; what goes on from it has none either.
fn shortest(calls: &[Call<Act>]) -> Vec<Call<Act>> {
    let mut ends: Vec<u64> = calls.iter().filter_map(|call| call.until).collect();
    ends.sort_unstable();
    let has_one = |end: &u64| !has_no_order(&until(calls, *end), STATES_MAX);
    let at = ends.partition_point(has_one);
    let end = ends.get(at).copied();
    until(calls, end.unwrap_or(u64::MAX))
}

/// What had begun before entry `end`, as it was then.
fn until(calls: &[Call<Act>], end: u64) -> Vec<Call<Act>> {
    let begun = calls.iter().filter(|call| call.from < end);
    let cut = begun.map(|call| {
        let until = call.until.filter(|until| *until <= end);
        Call {
            until,
            ..call.clone()
        }
    });
    // A read under way has seen nothing yet.
    seen(
        cut.filter(|call| call.until.is_some() || call.act.wrote.is_some())
            .collect(),
    )
}

/// Fewer operations that still have no order. Left out may be what nobody of the rest sees: if all of them
/// had an order, so would the rest.
fn shrink(mut calls: Vec<Call<Act>>) -> Vec<Call<Act>> {
    let mut size = calls.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < calls.len() {
            let to = (from + size).min(calls.len());
            let kept = |at: usize| !(from..to).contains(&at);
            let rest = (0..).zip(&calls).filter(|(at, _)| kept(*at));
            let rest: Vec<_> = rest.map(|(_, call)| call.clone()).collect();
            if !rest.is_empty() && is_whole(&calls, &rest) && has_no_order(&rest, SHRINK_STATES_MAX)
            {
                calls = rest;
            } else {
                from = to;
            }
        }
        size /= 2;
    }
    calls
}

/// Whether the rest sees nothing that only the others wrote.
fn is_whole(calls: &[Call<Act>], rest: &[Call<Act>]) -> bool {
    let written: BTreeSet<Value> = rest.iter().filter_map(|call| call.act.wrote).collect();
    let before: BTreeSet<Value> = calls.iter().filter_map(|call| call.act.wrote).collect();
    let mut saw = rest.iter().filter_map(|call| call.act.saw.flatten());
    saw.all(|value| written.contains(&value) || !before.contains(&value))
}

fn has_no_order(calls: &[Call<Act>], states_max: usize) -> bool {
    let verdict = search(&Cell::of(calls), calls, states_max);
    matches!(verdict, Verdict::Stuck(_))
}
