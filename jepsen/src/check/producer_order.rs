//! P2, P3: the records of one producer session stand in the order in which it sent them, through
//! retries, failovers and sends of which it never heard.

use std::collections::HashMap;

use super::{
    Checker,
    facts::{Facts, Sent},
    finder::Finder,
};
use crate::history::{Key, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "producer-order",
    promise: "P3: the records of a producer session stand in its order",
    check,
    fed_by: &[Workload::Idempotent],
};

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let mut last: HashMap<(i64, Key), (&Sent<'_>, i64)> = HashMap::new();
    for sent in &facts.sends {
        let Some((session, place)) = sent.send.producer.zip(facts.place(sent)) else {
            continue;
        };
        let before = last.insert((session, sent.send.key), (sent, place));
        finder.expect(before.is_none_or(|(_, before)| before < place), || {
            let mut ops = sent.ops();
            ops.extend(before.iter().flat_map(|(before, _)| before.ops()));
            let (what, before) = (facts.describe(sent), before.map_or(0, |(_, place)| place));
            let text = format!(
                "{what} in session {session}, stored at {place} after an earlier one at {before}"
            );
            (text, ops)
        });
    }
}
