//! P2: only what was sent and not refused is ever served. Jepsen's `G1a` (aborted read).

use super::{
    Checker,
    facts::{Facts, Polled, at, node},
    finder::Finder,
};
use crate::history::{Kind, Value, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "aborted-read",
    promise: "P2: only what was sent and not refused is ever served",
    check,
    fed_by: &[Workload::Consume, Workload::GroupConsume],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    for polled in facts.polls.iter().filter(|polled| !polled.poll.is_final) {
        expect_written(facts, finder, polled);
    }
}

/// Each value was sent to this key before it was read, by a send that was not refused.
pub(super) fn expect_written(facts: &Facts<'_>, finder: &mut Finder, polled: &Polled<'_>) {
    for &(offset, value) in &polled.read.records {
        let writer = facts.writer(polled.key, value);
        let good = writer.is_some_and(|writer| {
            writer.op.end() != Kind::Fail && writer.op.invoked.index < polled.completed.index
        });
        finder.expect(good, || wrong(facts, polled, offset, value));
    }
}

fn wrong(facts: &Facts<'_>, polled: &Polled<'_>, offset: i64, value: Value) -> (String, Vec<u64>) {
    let mut ops = vec![polled.completed.index];
    let what = match facts.writer(polled.key, value) {
        None => "never sent there".to_owned(),
        Some(writer) => {
            ops.extend(writer.ops());
            let when = at(writer.op.invoked);
            match writer.op.end() {
                Kind::Fail => format!("refused (sent at {when})"),
                _ => format!("sent only later, at {when}"),
            }
        }
    };
    let (from, when) = (node(&polled.op), at(polled.completed));
    let name = facts.name(polled.key);
    let text = format!("{from} served {value} at {name}@{offset} ({when}), which was {what}");
    (text, ops)
}
