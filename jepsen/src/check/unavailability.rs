//! P5: the longest time in which something was asked and nothing was acknowledged, key by key.
//!
//! It is a figure while there are faults; after the last of them it must stay below the bound on recovery.
//! A refusal of an append on condition, with the end that the log has instead, is an answer too. Keys of
//! topics that were deleted are left out.

use std::{collections::BTreeMap, time::Duration};

use super::{Checker, facts::Facts, finder::Finder};
use crate::history::{Action, FaultPhase, Key, Kind, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "unavailability",
    promise: "P5: with no fault left, appends are acknowledged",
    check,
    fed_by: &[Workload::Append],
};

/// Where nobody asks for longer than this, in nanoseconds, nobody is kept waiting; a client that tries
/// again pauses for less.
const PAUSE_MAX: u64 = 1_000_000_000;

/// A time without an acknowledgement while somebody wanted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    /// In nanoseconds.
    from: u64,
    until: u64,
    /// The entries at its ends.
    ops: (u64, u64),
}

/// What is known of a key while the history is read.
#[derive(Debug, Default)]
struct Asking {
    /// Invocations without completion: entry and time.
    open: BTreeMap<u64, u64>,
    /// Since when something was asked in vain, and the entry.
    since: Option<(u64, u64)>,
    /// The last event: after it nobody asks any more.
    last: (u64, u64),
    windows: Vec<Window>,
}

impl Asking {
    fn asked(&mut self, index: u64, time: u64) {
        let (last_index, last_time) = self.last;
        if self.open.is_empty() && time - last_time > PAUSE_MAX {
            self.close(last_index, last_time);
        }
        self.last = (index, time);
        let _none = self.open.insert(index, time);
        let _first = self.since.get_or_insert((index, time));
    }

    fn close(&mut self, index: u64, time: u64) {
        if let Some((asked, from)) = self.since.take() {
            self.windows.push(Window {
                from,
                until: time,
                ops: (asked, index),
            });
        }
    }

    fn ended(&mut self, invoked: u64, index: u64, time: u64, answered: bool) {
        let _was = self.open.remove(&invoked);
        self.last = (index, time);
        if answered {
            self.close(index, time);
            // Others still wait, from now on in vain.
            let waiting = self.open.first_key_value();
            self.since = waiting.map(|(&asked, _)| (asked, time));
        }
    }
}

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let bound = facts.header.recovery_max_ms.map(Duration::from_millis);
    let healed = last_fault(facts);
    for (key, windows) in windows(facts) {
        let name = facts.name(key);
        let longest = windows
            .iter()
            .map(|window| window.until - window.from)
            .max();
        let longest = Duration::from_nanos(longest.unwrap_or(0));
        finder.figure(format!("longest_seconds {name}"), longest.as_secs_f64());
        for window in windows {
            let from = window.from.max(healed);
            let took = Duration::from_nanos(window.until.saturating_sub(from));
            let good = bound.is_none_or(|bound| took <= bound);
            finder.expect(good, || {
                let bound = bound.unwrap_or_default();
                let text = format!(
                    "{name}: no append was acknowledged for {took:?} after the last fault, the bound is \
                     {bound:?}"
                );
                (text, vec![window.ops.0, window.ops.1])
            });
        }
    }
}

/// When the last fault ended.
fn last_fault(facts: &Facts<'_>) -> u64 {
    let faults = facts.ops.iter().filter(
        |op| matches!(&op.action, Action::Fault(fault) if fault.phase != FaultPhase::Begin),
    );
    faults.map(|op| op.time).max().unwrap_or(0)
}

fn windows(facts: &Facts<'_>) -> BTreeMap<Key, Vec<Window>> {
    let mut by_key: BTreeMap<Key, Asking> = BTreeMap::new();
    for (time, index, event) in events(facts) {
        let asking = by_key.entry(event.key).or_default();
        match event.end {
            None => asking.asked(index, time),
            Some((invoked, answered)) => asking.ended(invoked, index, time, answered),
        }
    }
    let gone = deleted(facts);
    let mut out = BTreeMap::new();
    for (key, mut asking) in by_key {
        let topic = facts.header.topic(key);
        if topic.is_some_and(|topic| gone.contains(&topic)) {
            continue;
        }
        let (index, time) = asking.last;
        asking.close(index, time);
        let _none = out.insert(key, asking.windows);
    }
    out
}

/// An invocation, or the completion of one.
struct Event {
    key: Key,
    /// The entry of the invocation, and whether it was answered.
    end: Option<(u64, bool)>,
}

/// Invocations and completions of sends in the order of their entries.
fn events(facts: &Facts<'_>) -> Vec<(u64, u64, Event)> {
    let mut events = Vec::with_capacity(facts.sends.len() * 2);
    for sent in &facts.sends {
        let (key, invoked) = (sent.send.key, sent.op.invoked);
        events.push((invoked.time, invoked.index, Event { key, end: None }));
        if let Some(end) = sent.op.completed {
            let answered = end.kind == Kind::Ok || sent.send.found_end.is_some();
            let end_of = Some((invoked.index, answered));
            events.push((end.time, end.index, Event { key, end: end_of }));
        }
    }
    events.sort_by_key(|(_, index, _)| *index);
    events
}

fn deleted<'a>(facts: &Facts<'a>) -> Vec<&'a str> {
    let topics = facts.ops.iter().filter_map(|op| match &op.action {
        Action::DeleteTopic(topic) => Some(topic.topic.as_str()),
        _ => None,
    });
    topics.collect()
}
