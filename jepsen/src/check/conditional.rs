//! A send on condition lands exactly where it demanded, or not at all; it is refused only where the log
//! ended elsewhere.

use super::{Checker, facts::Facts, finder::Finder};
use crate::history::{Kind, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "conditional-append",
    promise: "P2: an append on condition lands where it demanded, or nowhere",
    check,
    fed_by: &[Workload::Conditional],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
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
        }
    }
}
