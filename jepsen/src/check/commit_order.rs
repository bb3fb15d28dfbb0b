//! P4: the commits of a group's members never go back, from one owner of a key to the next.

use std::collections::HashMap;

use super::{
    Checker,
    commit_lost::{Place, set_from_outside},
    facts::{Facts, at},
    finder::Finder,
    highest::Highest,
};
use crate::history::{Kind, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "commit-goes-back",
    promise: "P4: the commits of members never go back",
    check,
    fed_by: &[Workload::Offsets],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let outside = set_from_outside(facts);
    let mut acknowledged: Vec<_> = facts
        .commits
        .iter()
        .filter(|(op, _)| op.end() == Kind::Ok)
        .filter_map(|(op, commit)| Some((op.completed?, op, *commit)))
        .collect();
    acknowledged.sort_by_key(|(end, ..)| end.index);
    let mut known: HashMap<Place<'_>, Highest<i64>> = HashMap::new();
    for (end, op, commit) in acknowledged {
        for (&key, &offset) in &commit.offsets {
            let place = (commit.group.as_str(), key);
            if outside.contains(&place) {
                continue;
            }
            let known = known.entry(place).or_default();
            let most = known.before(op.invoked.index);
            finder.expect(most.is_none_or(|&(_, most)| most <= offset), || {
                let (index, most) = most.copied().unwrap_or_default();
                let text = format!(
                    "group {}, {}: member {} committed {offset} ({}) after {most} had been",
                    commit.group,
                    facts.name(key),
                    commit.member,
                    at(end)
                );
                (text, vec![index, op.invoked.index, end.index])
            });
            known.note(end.index, offset);
        }
    }
}
