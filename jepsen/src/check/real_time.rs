//! P2: the log agrees with time: a send that was invoked after an offset was acknowledged, read or
//! named as committed lands behind it. (What Jepsen finds as `G0-realtime`.)

use std::collections::HashMap;

use super::{
    Checker,
    facts::{Facts, at},
    finder::Finder,
    highest::Highest,
};
use crate::history::{Key, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "real-time-order",
    promise: "P2: a send lands behind all that was committed before it was made",
    check,
    fed_by: &[Workload::Append],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let known = committed(facts);
    for sent in &facts.sends {
        let Some(place) = facts.place(sent) else {
            continue;
        };
        let least = known.get(&sent.send.key);
        let least = least.and_then(|known| known.before(sent.op.invoked.index));
        finder.expect(least.is_none_or(|&(_, least)| place >= least), || {
            let (index, least) = least.copied().unwrap_or_default();
            let (what, when) = (facts.describe(sent), at(sent.op.invoked));
            let text = format!(
                "{what} at {when}, when the log was known to reach {least}; it is stored at {place}"
            );
            (text, [sent.ops(), vec![index]].concat())
        });
    }
}

/// How far each log was known to be committed, entry by entry.
pub(super) fn committed(facts: &Facts<'_>) -> HashMap<Key, Highest<i64>> {
    let mut notes: Vec<(u64, Key, i64)> = Vec::new();
    for sent in &facts.sends {
        let end = sent.acknowledged().map(|base| base + sent.len());
        let known = sent.op.completed.zip(end);
        notes.extend(known.map(|(op, end)| (op.index, sent.send.key, end)));
    }
    for polled in &facts.polls {
        let last = polled
            .read
            .records
            .iter()
            .map(|&(offset, _)| offset + 1)
            .max();
        let end = last.max(polled.read.high_watermark);
        notes.extend(end.map(|end| (polled.completed.index, polled.key, end)));
    }
    Highest::of_each(notes)
}
