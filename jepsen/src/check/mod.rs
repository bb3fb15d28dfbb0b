//! The checkers: one property, one file; each a pure function of a history.
//!
//! The names follow the anomalies of Jepsen's `kafka` workload where it has one for the same thing. What
//! several of them need is gathered once (`facts::Facts`); with that, each takes little more than one
//! pass, so that histories of millions of records can be judged.
//!
//! "Before" and "after" mean the order of entries: an operation comes before another one if it completed
//! before that one was invoked.

mod aborted_read;
mod commit_author;
mod commit_lost;
mod commit_order;
mod conditional;
mod dense;
mod duplicate;
mod facts;
mod finder;
mod highest;
mod impossible;
mod inconsistent_offset;
mod ledger;
mod linear;
mod log_start;
mod lost_write;
mod nonmonotonic_poll;
mod nonmonotonic_send;
mod one_owner;
mod poll_skip;
mod positions;
mod processed_twice;
mod producer_order;
mod real_time;
mod recovery;
mod refused_absent;
mod register;
mod replicas;
mod stale_high_watermark;
#[cfg(test)]
mod tests;
mod unavailability;
mod verdict;

pub use verdict::{Finding, Totals, Verdict, Violation};

use crate::history::History;
use facts::Facts;
use finder::Finder;

/// A property.
struct Checker {
    /// What its findings are listed under.
    name: &'static str,
    /// The promise of the design that it is part of, and in a few words what must hold.
    promise: &'static str,
    /// Looks for violations.
    check: fn(&Facts<'_>, &mut Finder),
    /// What should give it something to look at.
    fed_by: &'static [crate::history::Workload],
}

/// All of them, in the order in which they are listed.
const CHECKERS: &[Checker] = &[
    lost_write::CHECKER,
    aborted_read::CHECKER,
    refused_absent::CHECKER,
    duplicate::CHECKER,
    inconsistent_offset::CHECKER,
    dense::CHECKER,
    nonmonotonic_poll::INTERNAL,
    nonmonotonic_poll::EXTERNAL,
    poll_skip::INTERNAL,
    poll_skip::EXTERNAL,
    nonmonotonic_send::INTERNAL,
    nonmonotonic_send::EXTERNAL,
    producer_order::CHECKER,
    real_time::CHECKER,
    conditional::CHECKER,
    stale_high_watermark::CHECKER,
    log_start::CHECKER,
    commit_lost::CHECKER,
    commit_author::CHECKER,
    commit_order::CHECKER,
    one_owner::CHECKER,
    processed_twice::CHECKER,
    replicas::CHECKER,
    register::CHECKER,
    ledger::CHECKER,
    recovery::CHECKER,
    unavailability::CHECKER,
    impossible::CHECKER,
];

/// Judges a history.
pub fn check(history: &History) -> Verdict {
    let facts = Facts::of(history);
    let judge = |checker: &Checker| {
        let mut finder = Finder::default();
        (checker.check)(&facts, &mut finder);
        finder.done(checker, &history.header)
    };
    let checkers: Vec<Finding> = CHECKERS.iter().map(judge).collect();
    Verdict {
        holds: checkers.iter().all(|finding| finding.holds),
        totals: Totals::of(history),
        checkers,
    }
}
