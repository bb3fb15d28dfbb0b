//! Range: of each topic, consecutive partitions to each member.

use std::collections::BTreeSet;

use super::{Counts, Subscriber};
use crate::state::Tp;

pub(super) fn assign(members: &[Subscriber<'_>], counts: &Counts) -> Vec<BTreeSet<Tp>> {
    let mut given = vec![BTreeSet::new(); members.len()];
    for (topic, count) in counts {
        let takers: Vec<&mut BTreeSet<Tp>> = given
            .iter_mut()
            .zip(members)
            .filter(|(_, member)| member.topics.contains(topic))
            .map(|(given, _)| given)
            .collect();
        let Some(takers_count) = i32::try_from(takers.len()).ok().filter(|n| *n > 0) else {
            continue;
        };
        // The first members get one more where it does not divide evenly.
        let (each, more) = (count / takers_count, count % takers_count);
        let mut next = 0;
        for (turn, taker) in (0..).zip(takers) {
            let end = next + each + i32::from(turn < more);
            taker.extend((next..end).map(|partition| Tp::new(topic.clone(), partition)));
            next = end;
        }
    }
    given
}
