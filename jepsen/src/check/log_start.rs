//! P2: the start of a log moves forward only: a node never names one before another that it had named or
//! was asked to make, and the final log begins at none of those that were named before.

use std::collections::HashMap;

use super::{
    Checker,
    facts::{Facts, at},
    finder::Finder,
    highest::Highest,
};
use crate::history::{Key, Kind, Operation, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "log-start",
    promise: "P2: the start of a log never goes back",
    check,
    fed_by: &[Workload::Consume, Workload::Trim],
};

/// A log start that somebody was told.
struct Named<'a> {
    op: Operation<'a>,
    /// The entry that names it.
    index: u64,
    key: Key,
    start: i64,
}

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let named = named(facts);
    let mut by_node: HashMap<(u64, Key), Highest<i64>> = HashMap::new();
    for name in &named {
        if let Some(node) = name.op.node() {
            let known = by_node.entry((node, name.key)).or_default();
            known.note(name.index, name.start);
        }
    }
    for one in &named {
        let before = one.op.node().and_then(|node| {
            let known = by_node.get(&(node, one.key))?;
            known.before(one.op.invoked.index)
        });
        finder.expect(
            before.is_none_or(|&(_, before)| one.start >= before),
            || {
                let (index, before) = before.copied().unwrap_or_default();
                let text = format!(
                    "{} named log start {} of {} after {before}",
                    super::facts::node(&one.op),
                    one.start,
                    facts.name(one.key)
                );
                (text, vec![index, one.index])
            },
        );
        for last in facts.log(one.key).iter().flat_map(|log| &log.finals) {
            if !last.is_after(one.index) {
                continue;
            }
            finder.expect(one.start <= last.start, || {
                let text = format!(
                    "log start {} of {} was named, the final log begins at {}",
                    one.start,
                    facts.name(one.key),
                    last.start
                );
                (text, vec![one.index, last.polled.completed.index])
            });
        }
    }
    trims(facts, finder);
}

/// A trim that was acknowledged left nothing below what it was asked for.
fn trims(facts: &Facts<'_>, finder: &mut Finder) {
    for (op, trim) in &facts.trims {
        let Some((start, end)) = trim.log_start.zip(op.completed) else {
            continue;
        };
        if op.end() == Kind::Ok {
            finder.expect(start >= trim.before, || {
                let text = format!(
                    "{} begins at {start} after a trim before {} ({})",
                    facts.name(trim.key),
                    trim.before,
                    at(end)
                );
                (text, vec![op.invoked.index, end.index])
            });
        }
    }
}

/// In the order of the entries that name them.
fn named<'a>(facts: &Facts<'a>) -> Vec<Named<'a>> {
    let polled = facts.polls.iter().filter_map(|polled| {
        Some(Named {
            op: polled.op,
            index: polled.completed.index,
            key: polled.key,
            start: polled.read.log_start?,
        })
    });
    let trimmed = facts.trims.iter().filter_map(|(op, trim)| {
        let end = op.completed.filter(|end| end.kind == Kind::Ok)?;
        Some(Named {
            op: *op,
            index: end.index,
            key: trim.key,
            start: trim.log_start?,
        })
    });
    let mut all: Vec<_> = polled.chain(trimmed).collect();
    all.sort_by_key(|named| named.index);
    all
}
