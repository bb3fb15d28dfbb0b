//! Properties of the strategies, for any members, topics and history.

use std::sync::Arc;

use proptest::prelude::*;
use seriatim_proto::{internal::v1 as wire, v1::AssignmentStrategy as Strategy};

use super::*;

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];

type Members = BTreeMap<String, Member>;

fn counts(partitions: &[i32]) -> Counts {
    let topics = TOPICS.iter().map(|topic| Arc::from(*topic));
    topics.zip(partitions.iter().copied()).collect()
}

fn member(id: usize, topics: impl IntoIterator<Item = usize>) -> (String, Member) {
    let id = format!("m{id:03}");
    let spec = wire::MemberSpec {
        member_id: id.clone(),
        topics: topics.into_iter().map(|at| TOPICS[at].to_owned()).collect(),
        ..wire::MemberSpec::default()
    };
    let member = Member {
        spec,
        ..Member::default()
    };
    (id, member)
}

fn all(members: usize) -> Members {
    (0..members).map(|id| member(id, 0..TOPICS.len())).collect()
}

/// Assigns and makes it the members' targets.
fn settle(strategy: Strategy, members: &mut Members, counts: &Counts) {
    for (id, target) in assign(strategy, members, counts) {
        members.get_mut(&id).unwrap().target = target;
    }
}

fn loads(members: &Members) -> Vec<usize> {
    members.values().map(|member| member.target.len()).collect()
}

fn owner(members: &Members) -> BTreeMap<Tp, String> {
    let mut owners = BTreeMap::new();
    for (id, member) in members {
        for tp in &member.target {
            let two = owners.insert(tp.clone(), id.clone());
            assert_eq!(two, None, "{tp} is the target of two");
        }
    }
    owners
}

/// Every partition that somebody wants is with one member that wants it, and no other is.
fn check_complete(members: &Members, counts: &Counts) {
    let owners = owner(members);
    for (topic, count) in counts {
        let wants = |member: &Member| member.spec.topics.iter().any(|t| **t == **topic);
        let wanted = members.values().any(wants);
        for partition in 0..*count {
            let owner = owners.get(&Tp::new(topic.clone(), partition));
            assert_eq!(owner.is_some(), wanted);
            assert!(owner.is_none_or(|id| wants(&members[id])));
        }
    }
    let there: i32 = counts.values().sum();
    assert!(owners.len() <= usize::try_from(there).unwrap());
}

fn spread(members: &Members) -> usize {
    let loads = loads(members);
    loads.iter().max().unwrap() - loads.iter().min().unwrap()
}

fn strategies() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![
        Just(Strategy::Sticky),
        Just(Strategy::Range),
        Just(Strategy::RoundRobin)
    ]
}

proptest! {
    #[test]
    fn everything_wanted_is_given_once_and_the_result_is_stable(
        strategy in strategies(),
        partitions in proptest::collection::vec(0_i32..40, 4),
        subscriptions in proptest::collection::vec(
            proptest::collection::btree_set(0_usize..4, 1..4), 1..12),
    ) {
        let counts = counts(&partitions);
        let mut members: Members = subscriptions
            .into_iter()
            .enumerate()
            .map(|(id, topics)| member(id, topics))
            .collect();
        settle(strategy, &mut members, &counts);
        check_complete(&members, &counts);
        let before = owner(&members);
        settle(strategy, &mut members, &counts);
        prop_assert_eq!(owner(&members), before);
    }

    #[test]
    fn equal_subscriptions_are_balanced_within_one(
        strategy in prop_oneof![Just(Strategy::Sticky), Just(Strategy::RoundRobin)],
        partitions in proptest::collection::vec(0_i32..40, 4),
        count in 1_usize..12,
    ) {
        let mut members = all(count);
        settle(strategy, &mut members, &counts(&partitions));
        prop_assert!(spread(&members) <= 1);
    }

    /// No partition could move, nor a chain of them, and leave the loads more even.
    #[test]
    fn sticky_is_as_even_as_subscriptions_allow(
        partitions in proptest::collection::vec(0_i32..4, 3),
        subscriptions in proptest::collection::vec(
            proptest::collection::btree_set(0_usize..3, 1..3), 1..4),
    ) {
        let counts = counts(&partitions);
        let mut members: Members = subscriptions
            .into_iter()
            .enumerate()
            .map(|(id, topics)| member(id, topics))
            .collect();
        settle(Strategy::Sticky, &mut members, &counts);
        let squares = |loads: &[usize]| loads.iter().map(|load| load * load).sum::<usize>();
        prop_assert_eq!(squares(&loads(&members)), best(&members, &counts));
    }

    #[test]
    fn a_leaving_member_moves_only_its_own(
        partitions in proptest::collection::vec(0_i32..40, 4),
        count in 2_usize..12,
        gone in 0_usize..12,
    ) {
        let counts = counts(&partitions);
        let mut members = all(count);
        settle(Strategy::Sticky, &mut members, &counts);
        let before = owner(&members);
        let gone = format!("m{:03}", gone % count);
        let _member = members.remove(&gone);
        settle(Strategy::Sticky, &mut members, &counts);
        check_complete(&members, &counts);
        prop_assert!(spread(&members) <= 1);
        for (tp, now) in owner(&members) {
            prop_assert!(before[&tp] == gone || before[&tp] == now);
        }
    }

    #[test]
    fn a_joining_member_takes_only_what_it_needs(
        partitions in proptest::collection::vec(0_i32..40, 4),
        count in 1_usize..12,
    ) {
        let counts = counts(&partitions);
        let mut members = all(count);
        settle(Strategy::Sticky, &mut members, &counts);
        let before = owner(&members);
        members.extend([member(999, 0..TOPICS.len())]);
        settle(Strategy::Sticky, &mut members, &counts);
        check_complete(&members, &counts);
        prop_assert!(spread(&members) <= 1);
        for (tp, now) in owner(&members) {
            prop_assert!(now == "m999" || before[&tp] == now);
        }
        prop_assert!(members["m999"].target.len() <= before.len() / (count + 1));
    }

    #[test]
    fn new_partitions_move_no_old_ones(
        partitions in proptest::collection::vec(1_i32..20, 4),
        more in 0_i32..20,
        count in 1_usize..8,
    ) {
        let mut members = all(count);
        settle(Strategy::Sticky, &mut members, &counts(&partitions));
        let before = owner(&members);
        let grown: Vec<i32> = partitions.iter().map(|count| count + more).collect();
        settle(Strategy::Sticky, &mut members, &counts(&grown));
        prop_assert!(spread(&members) <= 1);
        for (tp, now) in owner(&members) {
            prop_assert!(before.get(&tp).is_none_or(|before| *before == now));
        }
    }
}

/// The smallest sum of squared loads of all assignments.
fn best(members: &Members, counts: &Counts) -> usize {
    fn go(rest: &[Vec<usize>], loads: &mut Vec<usize>) -> usize {
        let Some((takers, rest)) = rest.split_first() else {
            return loads.iter().map(|load| load * load).sum();
        };
        let mut best = usize::MAX;
        for taker in takers {
            loads[*taker] += 1;
            best = best.min(go(rest, loads));
            loads[*taker] -= 1;
        }
        best
    }
    let mut takers = Vec::new();
    for (topic, count) in counts {
        let wants = members.values().enumerate().filter(|(_, member)| {
            let mut topics = member.spec.topics.iter();
            topics.any(|t| **t == **topic)
        });
        let wants: Vec<usize> = wants.map(|(at, _)| at).collect();
        if !wants.is_empty() {
            takers.extend((0..*count).map(|_| wants.clone()));
        }
    }
    go(&takers, &mut vec![0; members.len()])
}

#[test]
fn range_gives_consecutive_partitions() {
    let mut members = all(3);
    settle(Strategy::Range, &mut members, &counts(&[7, 2, 0, 0]));
    let of = |id: &str| -> Vec<String> {
        let target = members[id].target.iter();
        target.map(ToString::to_string).collect()
    };
    assert_eq!(of("m000"), ["a-0", "a-1", "a-2", "b-0"]);
    assert_eq!(of("m001"), ["a-3", "a-4", "b-1"]);
    assert_eq!(of("m002"), ["a-5", "a-6"]);
}

#[test]
fn round_robin_deals_in_turn() {
    let mut members = all(2);
    settle(Strategy::RoundRobin, &mut members, &counts(&[3, 2, 0, 0]));
    let of = |id: &str| -> Vec<String> {
        let target = members[id].target.iter();
        target.map(ToString::to_string).collect()
    };
    assert_eq!(of("m000"), ["a-0", "a-2", "b-1"]);
    assert_eq!(of("m001"), ["a-1", "b-0"]);
}

#[test]
fn the_strategy_that_most_ask_for_is_chosen() {
    let wish = |wishes: &[Strategy]| {
        let mut members = all(wishes.len());
        for (member, wish) in members.values_mut().zip(wishes) {
            member.spec.strategy = (*wish).into();
        }
        choose(&members)
    };
    use Strategy::{Range, RoundRobin, Sticky, Unspecified};
    assert_eq!(wish(&[]), Sticky);
    assert_eq!(wish(&[Unspecified, Unspecified]), Sticky);
    assert_eq!(wish(&[Unspecified, Unspecified, RoundRobin]), RoundRobin);
    assert_eq!(wish(&[RoundRobin, Range]), Range);
    assert_eq!(wish(&[Range, Sticky]), Sticky);
    assert_eq!(wish(&[RoundRobin, RoundRobin, Range]), RoundRobin);
}

/// A large group is assigned at once, also where subscriptions differ.
#[test]
fn ten_thousand_partitions_for_a_thousand_members() {
    let counts = counts(&[2_500, 2_500, 2_500, 2_500]);
    let mut members: Members = (0..1_000)
        .map(|id| member(id, [id % 4, (id / 4) % 4]))
        .collect();
    settle(Strategy::Sticky, &mut members, &counts);
    check_complete(&members, &counts);
    assert!(spread(&members) <= 1);
    members.extend((1_000..1_100).map(|id| member(id, [id % 4])));
    settle(Strategy::Sticky, &mut members, &counts);
    assert!(spread(&members) <= 1);
}
