//! P2: a consumer reads in order. Jepsen's `int-nonmonotonic-poll` (within one poll) and
//! `nonmonotonic-poll` (from one poll of a process to its next).

use super::{
    Checker,
    facts::{Facts, at, node, process},
    finder::Finder,
    positions::steps,
};
use crate::history::Workload;

pub(super) const INTERNAL: Checker = Checker {
    name: "int-nonmonotonic-poll",
    promise: "P2: the offsets of one answer grow",
    check: internal,
    fed_by: &[Workload::Consume, Workload::GroupConsume, Workload::Final],
};

pub(super) const EXTERNAL: Checker = Checker {
    name: "nonmonotonic-poll",
    promise: "P2: a consumer that goes on reads nothing again",
    check: external,
    fed_by: &[Workload::Consume, Workload::GroupConsume],
};

fn internal(facts: &Facts<'_>, finder: &mut Finder) {
    for polled in &facts.polls {
        let records = &polled.read.records;
        for (a, b) in records.iter().zip(records.iter().skip(1)) {
            finder.expect(a.0 < b.0, || {
                let (from, name) = (node(&polled.op), facts.name(polled.key));
                let text = format!(
                    "{from} answered {name}@{} ({}) and then {} ({})",
                    a.0, a.1, b.0, b.1
                );
                (text, vec![polled.completed.index])
            });
        }
    }
}

fn external(facts: &Facts<'_>, finder: &mut Finder) {
    for step in steps(facts) {
        finder.expect(step.first >= step.due, || {
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
