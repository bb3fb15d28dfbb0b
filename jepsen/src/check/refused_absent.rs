//! P2, P3: what was refused for certain is in no final log, nor is what nobody sent.

use super::{Checker, aborted_read::expect_written, facts::Facts, finder::Finder};
use crate::history::Workload;

pub(super) const CHECKER: Checker = Checker {
    name: "refused-absent",
    promise: "P2: what was refused, or never sent, is in no final log",
    check,
    fed_by: &[Workload::Final],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    for polled in facts.polls.iter().filter(|polled| polled.poll.is_final) {
        expect_written(facts, finder, polled);
    }
}
