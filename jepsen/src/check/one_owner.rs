//! P4: a key has one owner in its group at a time: once a member has committed, a member that was given
//! the key before it commits nothing more.

use std::collections::HashMap;

use super::{
    Checker,
    commit_lost::Place,
    facts::{Facts, at},
    finder::Finder,
};
use crate::history::{Kind, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "one-owner",
    promise: "P4: commits are fenced by the generation of the group",
    check,
    fed_by: &[Workload::Offsets],
};

/// A grant under which somebody committed.
#[derive(Debug, Clone, Copy)]
struct Grant<'a> {
    granted: u64,
    member: &'a str,
    index: u64,
}

/// The latest grants that were seen at work, entry by entry.
#[derive(Debug, Default)]
struct Latest<'a> {
    /// The latest grant, and the latest one of any other member.
    steps: Vec<(u64, Grant<'a>, Option<Grant<'a>>)>,
}

impl<'a> Latest<'a> {
    fn note(&mut self, grant: Grant<'a>) {
        let Some(&(_, best, other)) = self.steps.last() else {
            self.steps.push((grant.index, grant, None));
            return;
        };
        let over = |other: Option<Grant<'_>>| other.is_none_or(|o| o.granted < grant.granted);
        if grant.granted > best.granted {
            let other = if best.member == grant.member {
                other
            } else {
                Some(best)
            };
            self.steps.push((grant.index, grant, other));
        } else if grant.member != best.member && over(other) {
            self.steps.push((grant.index, best, Some(grant)));
        }
    }

    /// The latest grant of another than `member` that was seen before entry `index`.
    fn before(&self, index: u64, member: &str) -> Option<Grant<'a>> {
        let known = self.steps.partition_point(|(at, ..)| *at < index);
        let (_, best, other) = self.steps.get(known.checked_sub(1)?)?;
        if best.member == member {
            *other
        } else {
            Some(*best)
        }
    }
}

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let mut acknowledged: Vec<_> = facts
        .commits
        .iter()
        .filter(|(op, _)| op.end() == Kind::Ok)
        .filter_map(|(op, commit)| Some((op.completed?, op, *commit)))
        .collect();
    acknowledged.sort_by_key(|(end, ..)| end.index);
    let mut latest: HashMap<Place<'_>, Latest<'_>> = HashMap::new();
    for (end, op, commit) in acknowledged {
        for (&key, &granted) in &commit.granted {
            let latest = latest.entry((commit.group.as_str(), key)).or_default();
            let earlier = latest.before(op.invoked.index, &commit.member);
            finder.expect(earlier.is_none_or(|e| e.granted < granted), || {
                let (before, member) = earlier.map_or((0, ""), |e| (e.granted, e.member));
                let text = format!(
                    "group {}, {}: member {} (granted in {granted}) committed at {}, after member \
                     {member} (granted in {before}) had",
                    commit.group,
                    facts.name(key),
                    commit.member,
                    at(end)
                );
                let mut ops = vec![op.invoked.index, end.index];
                ops.extend(earlier.map(|e| e.index));
                (text, ops)
            });
            latest.note(Grant {
                granted,
                member: &commit.member,
                index: end.index,
            });
        }
    }
}
