//! P2: sends stand in the log in the order in which one process made them. Jepsen's
//! `int-nonmonotonic-send` (the values of one send; here they must also be neighbours, because one send
//! is one batch) and `nonmonotonic-send` (from one send of a process to its next).

use std::collections::HashMap;

use super::{
    Checker,
    facts::{Facts, Sent},
    finder::Finder,
};
use crate::history::{Key, Process, Workload};

pub(super) const INTERNAL: Checker = Checker {
    name: "int-nonmonotonic-send",
    promise: "P2: the values of one batch stand side by side, in order",
    check: internal,
    fed_by: &[],
};

pub(super) const EXTERNAL: Checker = Checker {
    name: "nonmonotonic-send",
    promise: "P2: what a process sends later stands later",
    check: external,
    fed_by: &[Workload::Append],
};

fn internal(facts: &Facts<'_>, finder: &mut Finder) {
    for sent in facts.sends.iter().filter(|sent| sent.send.values.len() > 1) {
        let log = facts.log(sent.send.key);
        let seen = |value| log.and_then(|log| log.by_value.get(value));
        let first = facts.place(sent);
        for (value, due) in sent.send.values.iter().zip(first.unwrap_or(0)..) {
            let Some(seen) = seen(value) else { continue };
            finder.expect(seen.offset == due, || {
                let text = format!(
                    "{}: {value} is at {}, its batch has it at {due}",
                    facts.describe(sent),
                    seen.offset
                );
                (text, [sent.ops(), vec![seen.index]].concat())
            });
        }
    }
}

fn external(facts: &Facts<'_>, finder: &mut Finder) {
    let mut last: HashMap<(Process, Key), (&Sent<'_>, i64)> = HashMap::new();
    for sent in &facts.sends {
        let Some(place) = facts.place(sent) else {
            continue;
        };
        let before = last.insert((sent.op.process(), sent.send.key), (sent, place));
        finder.expect(before.is_none_or(|(_, before)| before < place), || {
            let mut ops = sent.ops();
            ops.extend(before.iter().flat_map(|(before, _)| before.ops()));
            let (what, before) = (facts.describe(sent), before.map_or(0, |(_, place)| place));
            let text = format!("{what}, stored at {place} after one at {before}");
            (text, ops)
        });
    }
}
