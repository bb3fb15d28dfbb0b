//! P2: a consumer misses nothing. Jepsen's `int-poll-skip` (within one poll) and `poll-skip` (from one poll
//! of a process to its next). What was removed on purpose may be missing: what lies below a log start that
//! somebody was told by then.

use super::{
    Checker,
    facts::{Facts, Polled, at, node, process},
    finder::Finder,
    positions::steps,
};
use crate::history::Workload;

pub(super) const INTERNAL: Checker = Checker {
    name: "int-poll-skip",
    promise: "P2: one answer leaves no record out",
    check: internal,
    fed_by: &[Workload::Consume, Workload::GroupConsume, Workload::Final],
};

pub(super) const EXTERNAL: Checker = Checker {
    name: "poll-skip",
    promise: "P2: a consumer that goes on misses no record",
    check: external,
    fed_by: &[Workload::Consume, Workload::GroupConsume],
};

fn internal(facts: &Facts<'_>, finder: &mut Finder) {
    for polled in &facts.polls {
        let records = &polled.read.records;
        for (a, b) in records.iter().zip(records.iter().skip(1)) {
            finder.expect(b.0 <= a.0 + 1, || {
                let (from, name) = (node(&polled.op), facts.name(polled.key));
                let text = format!("{from} answered {name}@{} and then {}", a.0, b.0);
                (text, vec![polled.completed.index])
            });
        }
    }
}

fn external(facts: &Facts<'_>, finder: &mut Finder) {
    for step in steps(facts) {
        let good = step.first <= step.due || step.first <= start(facts, &step.polled);
        finder.expect(good, || {
            let polled = step.polled;
            let (who, name) = (process(&polled.op), facts.name(polled.key));
            let text = format!(
                "{who} was to go on at {name}@{} and was given {} ({})",
                step.due,
                step.first,
                at(polled.completed)
            );
            (text, vec![step.since, polled.completed.index])
        });
    }
}

/// The latest log start that anybody had been told when the poll ended.
fn start(facts: &Facts<'_>, polled: &Polled<'_>) -> i64 {
    let log = facts.log(polled.key);
    let known = log.and_then(|log| log.starts.before(polled.completed.index + 1));
    known.map_or(0, |&(_, start)| start)
}
