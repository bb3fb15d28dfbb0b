//! Appends on condition to one partition are linearizable: a log to which everybody appends only where
//! they know it to end behaves like one log in one place. Judged for the keys of which every send names
//! the end that it expects.

use std::collections::BTreeMap;

use super::{
    Checker,
    facts::{Facts, Sent},
    finder::Finder,
    linear::{Call, Model, Verdict, search},
};
use crate::history::{Key, Kind, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "linearizable-append",
    promise: "P1, P2: appends on condition to one partition are linearizable",
    check,
    fed_by: &[Workload::Ledger],
};

/// Most states that are looked at for one key.
const STATES_MAX: usize = 2_000_000;

/// Operations before the impossible one that are shown.
const SHOWN: usize = 4;

/// An append that took place, or may have.
#[derive(Debug, Clone)]
struct Act {
    expected: i64,
    /// Where its records are, if that is known.
    place: Option<i64>,
    records: i64,
    /// Its place in [`Facts::sends`].
    at: usize,
}

/// The end of the log.
struct End;

impl Model for End {
    type State = i64;
    type Act = Act;

    fn start(&self) -> i64 {
        0
    }

    fn step(&self, end: &i64, act: &Act) -> Option<i64> {
        let lands = *end == act.expected && act.place.is_none_or(|place| place == *end);
        lands.then(|| end + act.records)
    }

    fn is_free(&self, _: &i64, act: &Act) -> bool {
        // Only one can lie there.
        act.place.is_some()
    }
}

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let mut by_key: BTreeMap<Key, Option<Vec<Call<Act>>>> = BTreeMap::new();
    for (at, sent) in facts.sends.iter().enumerate() {
        let calls = by_key
            .entry(sent.send.key)
            .or_insert_with(|| Some(Vec::new()));
        match (calls.as_mut(), sent.send.expected_end) {
            (Some(calls), Some(expected)) => calls.extend(call(facts, at, sent, expected)),
            (Some(_), None) => *calls = None,
            (None, _) => {}
        }
    }
    for (key, calls) in by_key {
        let calls = calls.unwrap_or_default();
        if calls.is_empty() {
            continue;
        }
        finder.looked_at(calls.len() - 1);
        let verdict = search(&End, &calls, STATES_MAX);
        finder.expect(verdict == Verdict::Linearizable, || {
            wrong(facts, key, &calls, &verdict)
        });
    }
}

/// The append, unless it certainly did not take place.
fn call(facts: &Facts<'_>, at: usize, sent: &Sent<'_>, expected: i64) -> Option<Call<Act>> {
    let (end, place) = (sent.op.end(), facts.place(sent));
    let whole = facts.log(sent.send.key).is_some_and(|log| {
        let mut finals = log.finals.iter();
        finals.any(|last| last.start == 0)
    });
    let took_place = end == Kind::Ok || place.is_some();
    if end == Kind::Fail || !took_place && whole {
        return None;
    }
    Some(Call {
        act: Act {
            expected,
            place,
            records: sent.len(),
            at,
        },
        from: sent.op.invoked.index,
        until: Some(sent.op.over_at()).filter(|over| *over != u64::MAX),
    })
}

fn wrong(
    facts: &Facts<'_>,
    key: Key,
    calls: &[Call<Act>],
    verdict: &Verdict<i64>,
) -> (String, Vec<u64>) {
    let name = facts.name(key);
    let stuck = match verdict {
        Verdict::Stuck(stuck) => stuck,
        Verdict::Linearizable => return (String::new(), Vec::new()),
        Verdict::Undecided(states) => {
            return (
                format!("{name}: no order was found among {states} states, nor that there is none"),
                Vec::new(),
            );
        }
    };
    let before = stuck.order.iter().rev().take(SHOWN).rev();
    let shown: Vec<usize> = before.copied().chain([stuck.call]).collect();
    let shown = shown.iter().filter_map(|at| {
        let call = calls.get(*at)?;
        Some((&call.act, facts.sends.get(call.act.at)?))
    });
    let line = |(act, sent): (&Act, &Sent<'_>)| {
        let what = facts.describe(sent);
        let place = act
            .place
            .map_or("somewhere".to_owned(), |p| format!("at {p}"));
        format!("  {what} where it ends at {}: stored {place}", act.expected)
    };
    let lines: Vec<String> = shown.clone().map(line).collect();
    let ops = shown.flat_map(|(_, sent)| sent.ops()).collect();
    let text = format!(
        "{name}: after {} appends, which end at {}, no order allows the last of these:\n{}",
        stuck.order.len(),
        stuck.state,
        lines.join("\n")
    );
    (text, ops)
}
