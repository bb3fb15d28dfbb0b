//! Round robin: all partitions of all topics in turn.

use std::collections::BTreeSet;

use super::{Counts, Subscriber};
use crate::state::Tp;

pub(super) fn assign(members: &[Subscriber<'_>], counts: &Counts) -> Vec<BTreeSet<Tp>> {
    let mut given = vec![BTreeSet::new(); members.len()];
    let mut turn = 0;
    for (topic, count) in counts {
        if !members.iter().any(|member| member.topics.contains(topic)) {
            continue;
        }
        for partition in 0..*count {
            // A member that does not want it is passed over and keeps no claim.
            let taker = (turn..turn + members.len())
                .filter_map(|turn| Some((turn, turn.checked_rem(members.len())?)))
                .find(|(_, at)| members.get(*at).is_some_and(|m| m.topics.contains(topic)));
            let Some((taken, at)) = taker else {
                break;
            };
            if let Some(given) = given.get_mut(at) {
                let _new = given.insert(Tp::new(topic.clone(), partition));
            }
            turn = (taken + 1).checked_rem(members.len()).unwrap_or(0);
        }
    }
    given
}
