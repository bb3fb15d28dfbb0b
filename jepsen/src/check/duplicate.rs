//! P3: a value is stored once. Jepsen's `duplicate`.

use super::{Checker, facts::Facts, finder::Finder};
use crate::history::Workload;

pub(super) const CHECKER: Checker = Checker {
    name: "duplicate",
    promise: "P3: a send is stored once, however often it was tried",
    check,
    fed_by: &[Workload::Append],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    for (key, seen) in facts.sightings() {
        let first = facts.log(key).and_then(|log| log.by_value.get(&seen.value));
        let good = first.is_none_or(|first| first.offset == seen.offset);
        finder.expect(good, || {
            let name = facts.name(key);
            let mut ops = vec![seen.index];
            ops.extend(first.map(|first| first.index));
            ops.extend(facts.writer(key, seen.value).map(|w| w.op.invoked.index));
            let before = first.map_or(0, |first| first.offset);
            let text = format!(
                "{} is at {name}@{before} and at {}",
                seen.value, seen.offset
            );
            (text, ops)
        });
    }
}
