//! P2: offsets are dense and start at 0: a final log has every offset from its start to its end, and
//! starts later than 0 only where somebody was told so.

use super::{
    Checker,
    facts::{Facts, Final},
    finder::Finder,
};
use crate::history::Workload;

pub(super) const CHECKER: Checker = Checker {
    name: "dense-offsets",
    promise: "P2: a log has no gap between its start and its end",
    check,
    fed_by: &[Workload::Final],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    for log in facts.logs.values() {
        for last in &log.finals {
            whole(facts, finder, last);
        }
    }
}

fn whole(facts: &Facts<'_>, finder: &mut Finder, last: &Final<'_>) {
    let name = facts.name(last.polled.key);
    let index = last.polled.completed.index;
    let mut due = last.polled.read.log_start.unwrap_or(0);
    for &(offset, value) in &last.polled.read.records {
        finder.expect(offset == due, || {
            let text =
                format!("the final log of {name} has {value} at {offset} where {due} was due");
            (text, vec![index])
        });
        due = offset + 1;
    }
    let end = last.polled.read.high_watermark.unwrap_or(due);
    finder.expect(due == end, || {
        let text = format!("the final log of {name} stops at {due}, its high watermark is {end}");
        (text, vec![index])
    });
}
