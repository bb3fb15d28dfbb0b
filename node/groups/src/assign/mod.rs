//! Who is to have which partition: functions of the members and their topics. Pure.
//!
//! All strategies are stable: applied to their own result they change nothing.

mod range;
mod round_robin;
mod sticky;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use seriatim_proto::v1::AssignmentStrategy as Strategy;

use crate::{
    records,
    state::{Member, Tp},
};

/// Partitions of each topic that there is.
pub(crate) type Counts = BTreeMap<Arc<str>, i32>;

/// A member as the strategies see it.
#[derive(Debug)]
struct Subscriber<'a> {
    id: &'a str,
    /// Those of its topics that there are.
    topics: BTreeSet<Arc<str>>,
    /// What it is to have so far.
    target: &'a BTreeSet<Tp>,
}

/// The strategy that most members ask for; among equals the first. Sticky where none asks.
pub(crate) fn choose(members: &BTreeMap<String, Member>) -> Strategy {
    let asked = |strategy: Strategy| {
        let wishes = members.values().map(|member| member.spec.strategy);
        wishes.filter(|wish| *wish == i32::from(strategy)).count()
    };
    let mut chosen = (Strategy::Sticky, asked(Strategy::Sticky));
    for strategy in [Strategy::Range, Strategy::RoundRobin] {
        let votes = asked(strategy);
        if votes > chosen.1 {
            chosen = (strategy, votes);
        }
    }
    chosen.0
}

/// What each member is to have.
pub(crate) fn assign(
    strategy: Strategy,
    members: &BTreeMap<String, Member>,
    counts: &Counts,
) -> BTreeMap<String, BTreeSet<Tp>> {
    let mut subscribers: Vec<Subscriber<'_>> = members
        .iter()
        .map(|(id, member)| Subscriber {
            id,
            topics: (member.spec.topics.iter())
                .filter_map(|topic| Some(Arc::clone(counts.get_key_value(topic.as_str())?.0)))
                .collect(),
            target: &member.target,
        })
        .collect();
    // An instance keeps its turn when another process takes its place.
    subscribers.sort_by_key(|subscriber| {
        let instance = members.get(subscriber.id);
        let instance = instance.map_or("", |member| member.spec.instance_id.as_str());
        (instance.is_empty(), instance, subscriber.id)
    });
    let given = match records::strategy(strategy.into()) {
        Strategy::Range => range::assign(&subscribers, counts),
        Strategy::RoundRobin => round_robin::assign(&subscribers, counts),
        Strategy::Sticky | Strategy::Unspecified => sticky::assign(&subscribers, counts),
    };
    let ids = subscribers.iter().map(|member| member.id.to_owned());
    ids.zip(given).collect()
}
