//! A send on condition lands exactly where it demanded, or not at all; it is refused only where the log
//! ended elsewhere.
//!
//! A log that has outgrown the demanded end never ends there again, so that any replica may say so, by
//! what it knows. That a log is still shorter only a leader that is one can say: none may who does not
//! know what somebody was told before the send.

use super::{Checker, facts::Facts, finder::Finder, real_time::committed};
use crate::history::{Kind, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "conditional-append",
    promise: "P2: an append on condition lands where it demanded, or nowhere",
    check,
    fed_by: &[Workload::Conditional],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let reached = committed(facts);
    for sent in &facts.sends {
        let Some(expected) = sent.send.expected_end else {
            continue;
        };
        if let Some(place) = facts.place(sent) {
            finder.expect(place == expected, || {
                let what = facts.describe(sent);
                let text =
                    format!("{what} on condition that it ends at {expected}; stored at {place}");
                (text, sent.ops())
            });
        }
        if let Some(found) = sent.send.found_end.filter(|_| sent.op.end() == Kind::Fail) {
            finder.expect(found != expected, || {
                let what = facts.describe(sent);
                let text =
                    format!("{what} on condition that it ends at {expected}, refused as it does");
                (text, sent.ops())
            });
            let known = reached.get(&sent.send.key);
            let known = known.and_then(|known| known.before(sent.op.invoked.index));
            let true_end = found > expected || known.is_none_or(|&(_, known)| known <= found);
            finder.expect(true_end, || {
                let what = facts.describe(sent);
                let (index, known) = known.copied().unwrap_or_default();
                let text = format!(
                    "{what} on condition that it ends at {expected}, refused as it ended at {found}; \
                     it was known to reach {known}"
                );
                (text, [vec![index], sent.ops()].concat())
            });
        }
    }
}
