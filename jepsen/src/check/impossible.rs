//! Nothing was seen that only a bug explains, whatever the faults; and the history is one that can be
//! judged: no two sends to one key share a value.

use super::{Checker, facts::Facts, finder::Finder};
use crate::history::Action;

pub(super) const CHECKER: Checker = Checker {
    name: "impossible",
    promise: "no answer and no state that only a bug explains",
    check,
    fed_by: &[],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    for op in facts.ops {
        if let Action::Impossible(what) = &op.action {
            finder.expect(false, || (what.clone(), vec![op.index]));
        }
    }
    for &(key, value, at) in &facts.sent_twice {
        finder.expect(false, || {
            let name = facts.name(key);
            let ops = facts.sends.get(at).map(|sent| sent.op.invoked.index);
            let text = format!("{value} was sent to {name} by two sends: values must be unique");
            (text, ops.into_iter().collect())
        });
    }
}
