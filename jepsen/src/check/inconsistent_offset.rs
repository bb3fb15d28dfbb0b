//! P2: no two readers ever see different records at one offset, and what a producer was told agrees.
//! Jepsen's `inconsistent-offsets`.

use super::{Checker, facts::Facts, finder::Finder};
use crate::history::Workload;

pub(super) const CHECKER: Checker = Checker {
    name: "inconsistent-offset",
    promise: "P2: an offset holds one record, whoever reads it from whichever node",
    check,
    fed_by: &[Workload::Append],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    for (key, seen) in facts.sightings() {
        let first = facts
            .log(key)
            .and_then(|log| log.by_offset.get(&seen.offset));
        let good = first.is_none_or(|first| first.value == seen.value);
        finder.expect(good, || {
            let name = facts.name(key);
            let mut ops = vec![seen.index];
            ops.extend(first.map(|first| first.index));
            let before = first.map_or(0, |first| first.value);
            let text = format!(
                "{name}@{} is {before} by one entry and {} by another",
                seen.offset, seen.value
            );
            (text, ops)
        });
    }
}
