//! P4: a record is processed by one member of a generation: a key is granted to one member in one
//! generation, and once a member was given records of a later grant, a member of an earlier one that asks
//! afterwards is given none.

use std::collections::HashMap;

use super::{
    Checker,
    facts::{Facts, Polled, at},
    finder::Finder,
    highest::Highest,
};
use crate::history::{Key, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "processed-twice",
    promise: "P4: a key has one owner in a generation",
    check,
    fed_by: &[Workload::GroupConsume],
};

/// A group, a key, and the generation in which it was given to somebody.
type Grant<'a> = (&'a str, Key, u64);

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let mut owners: HashMap<Grant<'_>, (&str, u64)> = HashMap::new();
    let mut latest: HashMap<(&str, Key), Highest<u64>> = HashMap::new();
    for polled in &facts.polls {
        let Some(granted) = polled.read.granted else {
            continue;
        };
        let (Some(group), Some(member)) = (&polled.poll.group, &polled.poll.member) else {
            continue;
        };
        let index = polled.completed.index;
        let owner = *owners
            .entry((group, polled.key, granted))
            .or_insert((member, index));
        finder.expect(owner.0 == member, || {
            let text = format!(
                "group {group}, {}: granted in {granted} to member {} and to member {member}",
                facts.name(polled.key),
                owner.0
            );
            (text, vec![owner.1, index])
        });
        if polled.read.records.is_empty() {
            continue;
        }
        let latest = latest.entry((group, polled.key)).or_default();
        superseded(facts, finder, polled, granted, latest);
        latest.note(index, granted);
    }
}

fn superseded(
    facts: &Facts<'_>,
    finder: &mut Finder,
    polled: &Polled<'_>,
    granted: u64,
    latest: &Highest<u64>,
) {
    let later = latest.before(polled.op.invoked.index);
    finder.expect(later.is_none_or(|&(_, later)| later <= granted), || {
        let (index, later) = later.copied().unwrap_or_default();
        let text = format!(
            "{}: a member was given records of its grant in {granted} at {}, after those of the grant in \
             {later} had been",
            facts.name(polled.key),
            at(polled.completed)
        );
        (text, vec![index, polled.op.invoked.index, polled.completed.index])
    });
}
