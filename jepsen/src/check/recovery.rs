//! P5: once every fault is over, everything works again in time.

use std::time::Duration;

use super::{Checker, facts::Facts, finder::Finder};
use crate::history::{Kind, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "recovery",
    promise: "P5: everything works again in time after the last fault",
    check,
    fed_by: &[Workload::Recover],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let bound = facts.header.recovery_max_ms.map(Duration::from_millis);
    for op in &facts.recoveries {
        let invoked = op.invoked;
        let ended = op.completed.filter(|end| end.kind == Kind::Ok);
        let took = ended.map(|end| Duration::from_nanos(end.time - invoked.time));
        if let Some(took) = took {
            finder.figure("recovered_seconds", took.as_secs_f64());
        }
        let good = took.is_some_and(|took| bound.is_none_or(|bound| took <= bound));
        finder.expect(good, || {
            let mut ops = vec![invoked.index];
            ops.extend(op.completed.map(|end| end.index));
            let text = match took {
                Some(took) => {
                    let bound = bound.unwrap_or_default();
                    format!("it took {took:?} after the last fault, the bound is {bound:?}")
                }
                None => "after the last fault some part never worked again".to_owned(),
            };
            (text, ops)
        });
    }
}
