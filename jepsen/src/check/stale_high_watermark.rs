//! P2: the high watermark that an answer names is true, and as fresh as can be promised.
//!
//! A leader that was cut off and does not know it yet may still answer, with a high watermark behind that
//! of its successor. But what one node has acknowledged or named it never forgets: it leads only by a
//! vote that it never takes back, and serves only once an entry of its own term is applied, behind which
//! everything lies that was committed before. So:
//!
//! - an answer holds no record at or above its high watermark;
//! - none names a high watermark beyond the end of the final log;
//! - a node that was asked after it had acknowledged an offset, or named a high watermark, to anybody,
//!   names one that is no lower.

use std::collections::HashMap;

use super::{
    Checker,
    facts::{Facts, Polled, at, node},
    finder::Finder,
    highest::Highest,
};
use crate::history::{Key, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "stale-high-watermark",
    promise: "P2: a high watermark is true, and no node ever goes back behind one",
    check,
    fed_by: &[Workload::Consume],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let told = told(facts);
    for polled in &facts.polls {
        let Some(high) = polled.read.high_watermark else {
            continue;
        };
        covers(facts, finder, polled, high);
        let log = facts.log(polled.key);
        for last in log.iter().flat_map(|log| &log.finals) {
            if !last.is_after(polled.completed.index) {
                continue;
            }
            finder.expect(high <= last.end, || {
                let who = node(&polled.op);
                let text = format!(
                    "{who} named high watermark {high} of {} ({}), the final log ends at {}",
                    facts.name(polled.key),
                    at(polled.completed),
                    last.end
                );
                (
                    text,
                    vec![polled.completed.index, last.polled.completed.index],
                )
            });
        }
        let floor = polled.op.node().and_then(|node| {
            let known = told.get(&(node, polled.key))?;
            known.before(polled.op.invoked.index)
        });
        finder.expect(floor.is_none_or(|&(_, floor)| high >= floor), || {
            let (index, floor) = floor.copied().unwrap_or_default();
            let text = format!(
                "{} named high watermark {high} of {} ({}) after it had told {floor}",
                node(&polled.op),
                facts.name(polled.key),
                at(polled.completed)
            );
            (text, vec![index, polled.completed.index])
        });
    }
}

fn covers(facts: &Facts<'_>, finder: &mut Finder, polled: &Polled<'_>, high: i64) {
    let top = polled.read.records.iter().map(|&(offset, _)| offset).max();
    finder.expect(top.is_none_or(|top| top < high), || {
        let who = node(&polled.op);
        let name = facts.name(polled.key);
        let top = top.unwrap_or_default();
        let text = format!("{who} served {name}@{top} under high watermark {high}");
        (text, vec![polled.completed.index])
    });
}

/// How far each node has said that each log is committed, entry by entry.
fn told(facts: &Facts<'_>) -> HashMap<(u64, Key), Highest<i64>> {
    let mut notes: Vec<(u64, (u64, Key), i64)> = Vec::new();
    for sent in &facts.sends {
        let end = sent.acknowledged().map(|base| base + sent.len());
        let by = sent.op.completed.zip(sent.op.node()).zip(end);
        notes.extend(by.map(|((op, node), end)| (op.index, (node, sent.send.key), end)));
    }
    for polled in &facts.polls {
        let by = polled.op.node().zip(polled.read.high_watermark);
        let index = polled.completed.index;
        notes.extend(by.map(|(node, high)| (index, (node, polled.key), high)));
    }
    Highest::of_each(notes)
}
