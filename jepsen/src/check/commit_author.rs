//! P4: nothing is committed that nobody committed, or whose commit was refused for certain.

use std::collections::HashMap;

use super::{
    Checker,
    facts::{Facts, at},
    finder::Finder,
};
use crate::history::{Key, Kind, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "commit-author",
    promise: "P4: a committed offset was committed by somebody",
    check,
    fed_by: &[Workload::Offsets],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    // When each offset was first committed, by commits that were not refused.
    let mut authors: HashMap<(&str, Key, i64), u64> = HashMap::new();
    for (op, commit) in &facts.commits {
        if op.end() == Kind::Fail {
            continue;
        }
        for (&key, &offset) in &commit.offsets {
            let _first = authors
                .entry((commit.group.as_str(), key, offset))
                .or_insert(op.invoked.index);
        }
    }
    for (op, committed) in &facts.committed {
        let Some(end) = op.completed.filter(|end| end.kind == Kind::Ok) else {
            continue;
        };
        for (&key, &seen) in &committed.offsets {
            let Some(seen) = seen else { continue };
            let author = authors.get(&(committed.group.as_str(), key, seen));
            finder.expect(author.is_some_and(|author| *author < end.index), || {
                let text = format!(
                    "group {} is at {seen} of {} ({}), which nobody committed",
                    committed.group,
                    facts.name(key),
                    at(end)
                );
                (text, vec![op.invoked.index, end.index])
            });
        }
    }
}
