//! What must hold whatever commands come in whatever order.

use proptest::prelude::*;

use super::*;
use crate::{
    assign::{self, Counts},
    records::{by_topic, decode_snapshot, encode_snapshot},
    state::Committed,
};

const GROUP: &str = "g";

/// One step of a story; numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
enum Step {
    Join {
        member: u8,
        instance: u8,
        topics: u8,
    },
    Leave {
        member: u8,
    },
    Release {
        member: u8,
        all: bool,
    },
    Commit {
        member: u8,
        partition: u8,
        offset: i64,
        generations_ago: u64,
        allow_back: bool,
    },
    Outside {
        partition: u8,
        offset: i64,
    },
    Drop,
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u8, 0..3_u8, 1..4_u8).prop_map(|(member, instance, topics)| Step::Join {
            member,
            instance,
            topics,
        }),
        2 => (0..6_u8).prop_map(|member| Step::Leave { member }),
        6 => (0..6_u8, any::<bool>()).prop_map(|(member, all)| Step::Release { member, all }),
        8 => (0..6_u8, 0..8_u8, 0..50_i64, 0..3_u64, any::<bool>()).prop_map(
            |(member, partition, offset, generations_ago, allow_back)| Step::Commit {
                member,
                partition,
                offset,
                generations_ago,
                allow_back,
            }
        ),
        2 => (0..8_u8, -1..50_i64)
            .prop_map(|(partition, offset)| Step::Outside { partition, offset }),
        1 => Just(Step::Drop),
        1 => Just(Step::Forget),
    ]
}

fn counts() -> Counts {
    [("a".into(), 5), ("b".into(), 3)].into()
}

fn id(member: u8) -> String {
    format!("m{member}")
}

fn tp(number: u8) -> Tp {
    match number {
        0..5 => Tp::new("a", number.into()),
        _ => Tp::new("b", (number - 5).into()),
    }
}

/// The command that the coordinator would propose for these members.
fn update(group: &Group, joins: Vec<wire::MemberSpec>, leaves: Vec<String>) -> Command {
    let members = members_after(group, joins.clone(), &leaves).unwrap();
    let strategy = assign::choose(&members);
    let targets = assign::assign(strategy, &members, &counts());
    let target = |(member_id, tps): (String, BTreeSet<Tp>)| wire::MemberTarget {
        member_id,
        partitions: by_topic(&tps),
    };
    Command::UpdateMembers(wire::UpdateMembers {
        expected_generation: group.generation,
        joins,
        leaves,
        strategy: strategy.into(),
        targets: targets.into_iter().map(target).collect(),
    })
}

fn store(member: String, generation: u64, tp: &Tp, offset: i64, allow_back: bool) -> Command {
    Command::StoreOffsets(wire::StoreOffsets {
        member_id: member,
        generation,
        offsets: vec![wire::OffsetChange {
            topic: (*tp.topic).to_owned(),
            partition: tp.partition,
            offset,
            metadata: format!("at {offset}"),
            allow_back,
            origin: if *tp.topic == *"a" { 7 } else { 8 },
        }],
    })
}

fn command(group: &Group, step: Step) -> Command {
    match step {
        Step::Join {
            member,
            instance,
            topics,
        } => {
            let topic = |(bit, name): (u8, &str)| (topics & bit != 0).then(|| name.to_owned());
            let spec = wire::MemberSpec {
                member_id: id(member),
                instance_id: if instance == 0 {
                    String::new()
                } else {
                    format!("i{instance}")
                },
                topics: [(1, "a"), (2, "b")].into_iter().filter_map(topic).collect(),
                ..wire::MemberSpec::default()
            };
            update(group, vec![spec], Vec::new())
        }
        Step::Leave { member } => update(group, Vec::new(), vec![id(member)]),
        Step::Release { member, all } => {
            let revoking: Vec<Tp> = match group.members.get(&id(member)) {
                // Asking for more than was revoked changes nothing.
                Some(member) if all => member.owned.keys().cloned().collect(),
                Some(member) => member.revoking().take(1).cloned().collect(),
                None => Vec::new(),
            };
            Command::ReleasePartitions(wire::ReleasePartitions {
                member_id: id(member),
                partitions: by_topic(&revoking),
            })
        }
        Step::Commit {
            member,
            partition,
            offset,
            generations_ago,
            allow_back,
        } => {
            let generation = group.generation.saturating_sub(generations_ago);
            store(id(member), generation, &tp(partition), offset, allow_back)
        }
        Step::Outside { partition, offset } => {
            store(String::new(), 0, &tp(partition), offset, false)
        }
        Step::Drop => Command::DropGroup(wire::DropGroup {}),
        Step::Forget => Command::ForgetTopics(wire::ForgetTopics { origins: vec![7] }),
    }
}

fn entry(now_ms: i64, command: Command) -> GroupCommand {
    GroupCommand {
        group: GROUP.to_owned(),
        now_ms,
        command,
    }
}

fn group(shard: &Shard) -> Group {
    shard
        .groups
        .get(GROUP)
        .map(|group| (**group).clone())
        .unwrap_or_default()
}

/// What a step may do to stored offsets.
fn check_offsets(before: &Group, after: &Group, step: &Step) {
    for (tp, now) in &after.offsets {
        let Some(Committed { offset, .. }) = before.offsets.get(tp) else {
            continue;
        };
        let may_go_back = match step {
            Step::Commit { allow_back, .. } => *allow_back,
            Step::Outside { .. } => before.members.is_empty(),
            _ => false,
        };
        assert!(
            now.offset >= *offset || may_go_back,
            "{tp} went back by {step:?}"
        );
    }
    if let Step::Commit {
        member, partition, ..
    } = step
        && before.offsets != after.offsets
    {
        let owned = &before.members[&id(*member)].owned;
        assert!(
            owned.contains_key(&tp(*partition)),
            "stored by one who does not own it"
        );
    }
}

proptest! {
    #[test]
    fn stories_keep_every_invariant(steps in proptest::collection::vec(step(), 0..80)) {
        let mut shard = Shard::default();
        let mut log = Vec::new();
        for (now, step) in (0..).zip(steps) {
            let before = group(&shard);
            let command = entry(now, command(&before, step));
            log.push(command.clone());
            let mut touched = Touched::default();
            let applied = apply(&mut shard, command.clone(), &mut touched);
            let after = group(&shard);
            if applied.is_err() {
                prop_assert_eq!(&after, &before, "a refused command changed the group");
                prop_assert!(touched.groups.is_empty());
            }
            let bytes = shard.groups.values().map(|group| group.bytes());
            prop_assert_eq!(shard.bytes, bytes.sum::<usize>());
            if let Some(group) = shard.groups.get(GROUP) {
                group.check();
                prop_assert!(after.generation >= before.generation);
            }
            // Written as bytes and read again it is the same command.
            prop_assert_eq!(GroupCommand::decode(&command.clone().encode()), Ok(command));
            check_offsets(&before, &after, &step);
            // A snapshot of any moment is the moment.
            prop_assert_eq!(&decode_snapshot(&encode_snapshot(&shard)).unwrap(), &shard);
        }
        // From a snapshot of any prefix the rest leads to the same end.
        for cut in (0..=log.len()).step_by(7) {
            let mut replay = Shard::default();
            for command in &log[..cut] {
                let _refused = apply(&mut replay, command.clone(), &mut Touched::default());
            }
            replay = decode_snapshot(&encode_snapshot(&replay)).unwrap();
            for command in &log[cut..] {
                let _refused = apply(&mut replay, command.clone(), &mut Touched::default());
            }
            prop_assert_eq!(&replay, &shard);
        }
    }
}

/// A shard with members that joined one after the other.
fn joined(members: &[(u8, &str)]) -> Shard {
    let mut shard = Shard::default();
    for (member, instance) in members {
        join(&mut shard, *member, instance);
    }
    shard
}

fn spec(member: u8, instance: &str) -> wire::MemberSpec {
    wire::MemberSpec {
        member_id: id(member),
        instance_id: instance.to_owned(),
        topics: vec!["a".to_owned()],
        ..wire::MemberSpec::default()
    }
}

fn join(shard: &mut Shard, member: u8, instance: &str) {
    let command = update(&group(shard), vec![spec(member, instance)], Vec::new());
    run(shard, command).unwrap();
}

fn run(shard: &mut Shard, command: Command) -> Result<(), Refusal> {
    apply(shard, entry(0, command), &mut Touched::default())
}

fn release(shard: &mut Shard, member: u8) {
    let revoking = group(shard).members[&id(member)]
        .revoking()
        .cloned()
        .collect::<Vec<_>>();
    let command = Command::ReleasePartitions(wire::ReleasePartitions {
        member_id: id(member),
        partitions: by_topic(&revoking),
    });
    run(shard, command).unwrap();
}

#[test]
fn a_partition_goes_over_when_it_is_let_go_of() {
    let mut shard = joined(&[(0, ""), (1, "")]);
    let before = group(&shard);
    assert_eq!(before.generation, 2);
    let (first, second) = (&before.members["m0"], &before.members["m1"]);
    assert_eq!((first.owned.len(), second.owned.len()), (5, 0));
    let moving: Vec<Tp> = first.revoking().cloned().collect();
    assert_eq!(second.pending().cloned().collect::<Vec<_>>(), moving);
    // Until then only the one that has it may commit for it.
    let commit = |member, generation| store(id(member), generation, &moving[0], 3, false);
    let stale = Err(Refusal::StaleGeneration {
        tp: moving[0].clone(),
    });
    assert_eq!(run(&mut shard, commit(1, 2)), stale);
    assert_eq!(run(&mut shard, commit(0, 1)), Ok(()));
    release(&mut shard, 0);
    let after = group(&shard);
    assert!(after.is_settled());
    assert_eq!(after.generation, 2, "nobody came or went");
    assert_eq!(run(&mut shard, commit(0, 2)), stale);
    assert_eq!(
        run(&mut shard, commit(1, 1)),
        stale,
        "before it was granted"
    );
    assert_eq!(run(&mut shard, commit(1, 3)), stale, "from the future");
    assert_eq!(run(&mut shard, commit(1, 2)), Ok(()));
}

#[test]
fn an_instance_that_comes_back_moves_nothing_and_fences_the_old_process() {
    let mut shard = joined(&[(0, "one"), (1, "two")]);
    release(&mut shard, 0);
    let before = group(&shard);
    join(&mut shard, 2, "one");
    let after = group(&shard);
    assert_eq!(after.generation, before.generation);
    assert_eq!(after.members["m2"].owned, before.members["m0"].owned);
    assert_eq!(after.members["m1"], before.members["m1"]);
    let tp = after.members["m2"].owned.keys().next().unwrap().clone();
    let commit = |member| store(id(member), after.generation, &tp, 3, false);
    assert_eq!(run(&mut shard, commit(0)), Err(Refusal::MemberFenced));
    assert_eq!(run(&mut shard, commit(2)), Ok(()));
    assert!(after.is_fenced("m0"));
    // Only the last ids are remembered, so that a crash loop does not fill the state.
    for member in 3..30 {
        join(&mut shard, member, "one");
    }
    let last = group(&shard);
    assert_eq!(last.members["m29"].replaced.len(), MAX_REPLACED);
    assert_eq!(last.generation, before.generation);
}

#[test]
fn a_commit_is_stored_as_a_whole_or_not_at_all() {
    let mut shard = joined(&[(0, "")]);
    let change = |partition, offset| wire::OffsetChange {
        topic: "a".to_owned(),
        partition,
        offset,
        ..wire::OffsetChange::default()
    };
    let commit = |offsets: Vec<wire::OffsetChange>| {
        Command::StoreOffsets(wire::StoreOffsets {
            member_id: id(0),
            generation: 1,
            offsets,
        })
    };
    assert_eq!(
        run(&mut shard, commit(vec![change(0, 5), change(1, 6)])),
        Ok(())
    );
    let before = group(&shard);
    for (bad, refusal) in [
        (
            change(9, 1),
            Refusal::StaleGeneration {
                tp: Tp::new("a", 9),
            },
        ),
        (
            change(1, 5),
            Refusal::OffsetWentBack {
                tp: Tp::new("a", 1),
                stored: 6,
                asked: 5,
            },
        ),
        (
            change(0, 9),
            Refusal::malformed("a partition occurs twice in one commit"),
        ),
    ] {
        assert_eq!(
            run(&mut shard, commit(vec![change(0, 9), bad])),
            Err(refusal)
        );
        assert_eq!(group(&shard), before);
    }
    let forget = commit(vec![change(0, -1)]);
    assert!(matches!(
        run(&mut shard, forget),
        Err(Refusal::Malformed { .. })
    ));
}

#[test]
fn who_is_no_member_commits_only_into_an_empty_group() {
    let mut shard = joined(&[(0, "")]);
    let outside = |offset| store(String::new(), 0, &tp(0), offset, false);
    assert_eq!(run(&mut shard, outside(3)), Err(Refusal::GroupNotEmpty));
    let stranger = store(id(5), 1, &tp(0), 3, false);
    assert_eq!(run(&mut shard, stranger), Err(Refusal::UnknownMember));
    let drop = || Command::DropGroup(wire::DropGroup {});
    assert_eq!(run(&mut shard, drop()), Err(Refusal::GroupNotEmpty));
    let leave = update(&group(&shard), Vec::new(), vec![id(0)]);
    run(&mut shard, leave).unwrap();
    assert_eq!(shard, Shard::default(), "nothing was left of it");
    assert_eq!(run(&mut shard, drop()), Err(Refusal::UnknownGroup));
    run(&mut shard, outside(30)).unwrap();
    run(&mut shard, outside(3)).unwrap();
    assert_eq!(group(&shard).offsets[&tp(0)].offset, 3, "a reset goes back");
    run(&mut shard, outside(-1)).unwrap();
    assert_eq!(shard, Shard::default(), "the last offset was forgotten");
}

#[test]
fn only_a_group_that_nobody_touched_expires() {
    let mut shard = Shard::default();
    let outside = || store(String::new(), 0, &tp(0), 3, false);
    let expire = |touched_ms| Command::ExpireGroup(wire::ExpireGroup { touched_ms });
    let run = |shard: &mut Shard, now, command| {
        apply(shard, entry(now, command), &mut Touched::default())
    };
    run(&mut shard, 10, outside()).unwrap();
    run(&mut shard, 20, outside()).unwrap();
    assert_eq!(run(&mut shard, 99, expire(10)), Err(Refusal::Superseded));
    assert_eq!(run(&mut shard, 99, expire(20)), Ok(()));
    assert_eq!(shard, Shard::default());
    let join = update(&Group::default(), vec![spec(0, "")], Vec::new());
    run(&mut shard, 30, join).unwrap();
    assert_eq!(run(&mut shard, 99, expire(30)), Err(Refusal::Superseded));
}

/// A topic that was deleted and made again has no offset, and an old one keeps nobody back.
#[test]
fn offsets_of_a_deleted_topic_do_not_count() {
    let mut shard = joined(&[(0, "")]);
    let commit = |offset, origin| {
        let Command::StoreOffsets(mut store) = store(id(0), 1, &tp(0), offset, false) else {
            unreachable!()
        };
        store.offsets[0].origin = origin;
        Command::StoreOffsets(store)
    };
    run(&mut shard, commit(100, 7)).unwrap();
    run(&mut shard, commit(3, 9)).unwrap();
    let forget = Command::ForgetTopics(wire::ForgetTopics { origins: vec![7] });
    run(&mut shard, forget).unwrap();
    assert_eq!(group(&shard).offsets[&tp(0)].offset, 3);
    let forget = Command::ForgetTopics(wire::ForgetTopics { origins: vec![9] });
    run(&mut shard, forget).unwrap();
    assert!(group(&shard).offsets.is_empty());
}

#[test]
fn targets_that_contradict_are_refused() {
    let mut shard = joined(&[(0, ""), (1, "")]);
    let before = shard.clone();
    let target = |member: u8, partition: u8| wire::MemberTarget {
        member_id: id(member),
        partitions: by_topic(&[tp(partition)]),
    };
    for targets in [
        vec![target(0, 1), target(1, 1)],
        vec![target(0, 1), target(0, 2)],
        vec![target(5, 1)],
    ] {
        let update = wire::UpdateMembers {
            expected_generation: 2,
            targets,
            ..wire::UpdateMembers::default()
        };
        let refused = run(&mut shard, Command::UpdateMembers(update));
        assert!(matches!(refused, Err(Refusal::Malformed { .. })));
    }
    let old = wire::UpdateMembers {
        expected_generation: 1,
        ..wire::UpdateMembers::default()
    };
    assert_eq!(
        run(&mut shard, Command::UpdateMembers(old)),
        Err(Refusal::Superseded)
    );
    assert_eq!(shard, before);
}

#[test]
fn in_a_full_shard_offsets_move_and_nothing_grows() {
    let mut shard = joined(&[(0, "")]);
    run(&mut shard, store(id(0), 1, &tp(0), 3, false)).unwrap();
    shard.bytes = crate::limits::MAX_SHARD_BYTES;
    assert_eq!(run(&mut shard, store(id(0), 1, &tp(0), 4, false)), Ok(()));
    let grows = store(id(0), 1, &tp(1), 4, false);
    assert_eq!(run(&mut shard, grows), Err(Refusal::ShardFull));
    let longer = store(id(0), 1, &tp(0), 5_000, false);
    assert_eq!(run(&mut shard, longer), Err(Refusal::ShardFull));
    let joins = update(&group(&shard), vec![spec(1, "")], Vec::new());
    assert_eq!(run(&mut shard, joins), Err(Refusal::ShardFull));
    let leaves = update(&group(&shard), Vec::new(), vec![id(0)]);
    assert_eq!(run(&mut shard, leaves), Ok(()));
    assert!(shard.bytes < crate::limits::MAX_SHARD_BYTES);
}
