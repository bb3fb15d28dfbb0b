//! What follows from what a member is told, step by step.

use std::collections::BTreeMap;

use proptest::prelude::*;
use seriatim_proto::{
    ids::{Offset, TopicPartition},
    v1,
};

use super::{
    part::Phase,
    plan::{self, Chosen, Planned},
    shared::CommitOffset,
    state::{State, Verdict, judge},
};
use crate::error::ClientError;

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn assignment(assigned: &[(i32, Option<i64>)], revoke: &[i32]) -> v1::Assignment {
    let one = |&(partition, committed_offset): &(i32, Option<i64>)| v1::AssignedPartition {
        topic: "t".to_owned(),
        partition,
        committed_offset,
        metadata: String::new(),
        granted_generation: 1,
    };
    v1::Assignment {
        generation: 1,
        assigned: assigned.iter().map(one).collect(),
        revoke: vec![v1::TopicPartitions {
            topic: "t".to_owned(),
            partitions: revoke.to_vec(),
        }],
        ..v1::Assignment::default()
    }
}

/// Runs a partition that was just assigned, from an offset.
fn run(state: &mut State, partition: i32, from: i64) {
    let round = state.number();
    let part = state.parts.get_mut(&tp(partition)).unwrap();
    part.begin(round, from, false);
    part.phase = Phase::Running;
}

fn hand_on(state: &mut State, partition: i32, from: i64, to: i64) {
    let part = state.parts.get_mut(&tp(partition)).unwrap();
    part.tracker.as_mut().unwrap().hand_on(from, to);
}

/// The application drops a batch, and comes back.
fn process(state: &mut State, partition: i32, from: i64, to: i64) {
    let round = state.parts[&tp(partition)].round;
    state.keep_returned(&tp(partition), round, (from, to));
    assert!(state.note_returned());
}

fn phase(state: &State, partition: i32) -> Option<Phase> {
    state.parts.get(&tp(partition)).map(|part| part.phase)
}

fn lost(state: &State) -> Vec<TopicPartition> {
    state.lost.iter().cloned().collect()
}

#[test]
fn a_partition_is_let_go_of_when_all_came_back_and_is_committed() {
    let mut state = State::default();
    assert!(
        state
            .assign(&assignment(&[(0, Some(5)), (1, None)], &[]))
            .is_empty()
    );
    run(&mut state, 0, 5);
    hand_on(&mut state, 0, 5, 9);
    assert!(state.assign(&assignment(&[(1, None)], &[0])).is_empty());
    assert_eq!(phase(&state, 0), Some(Phase::Draining));
    assert_eq!(phase(&state, 1), Some(Phase::Assigned), "the other stays");
    assert!(!state.drain(true), "it is still with the application");
    assert_eq!(phase(&state, 0), Some(Phase::Draining));
    process(&mut state, 0, 5, 9);
    assert!(state.drain(true), "it waits for a commit");
    let planned = plan::plan(&mut state, &Chosen::new(), true);
    assert_eq!(plan::to_wire(&planned)[0].offset, 9);
    plan::stored(&mut state, &planned);
    assert!(!state.drain(true));
    assert_eq!(phase(&state, 0), Some(Phase::Drained));
    state.enter(
        &state.in_phase(Phase::Drained),
        Phase::Drained,
        Phase::Released,
    );
    // Said again until the coordinator has heard it.
    assert_eq!(state.assign(&assignment(&[(1, None)], &[0])), [tp(0)]);
    assert!(state.assign(&assignment(&[(1, None)], &[])).is_empty());
    assert_eq!((phase(&state, 0), lost(&state)), (None, vec![]));
}

#[test]
fn what_is_taken_away_is_lost_and_what_was_given_back_is_not() {
    let mut state = State::default();
    let _none = state.assign(&assignment(&[(0, None), (1, None), (2, None)], &[]));
    run(&mut state, 0, 0);
    run(&mut state, 1, 0);
    hand_on(&mut state, 1, 0, 10);
    let round = state.parts[&tp(1)].round;
    // 2 was never told to the application, so it is not told that it is gone.
    let _none = state.assign(&assignment(&[(0, None)], &[]));
    assert_eq!(lost(&state), [tp(1)]);
    // What comes back of it means nothing, also when the partition comes again.
    let _none = state.assign(&assignment(&[(0, None), (1, Some(3))], &[]));
    assert_eq!(phase(&state, 1), Some(Phase::Assigned));
    run(&mut state, 1, 3);
    state.keep_returned(&tp(1), round, (0, 10));
    assert!(!state.note_returned());
    assert!(plan::plan(&mut state, &Chosen::new(), true).is_empty());
    state.lose_all();
    assert_eq!(lost(&state), [tp(0), tp(1)]);
    assert!(state.parts.is_empty());
}

#[test]
fn a_partition_that_stays_after_all_goes_on_where_it_stopped() {
    let mut state = State::default();
    let _none = state.assign(&assignment(&[(0, Some(5))], &[]));
    run(&mut state, 0, 5);
    hand_on(&mut state, 0, 5, 9);
    let acquired = state.parts[&tp(0)].acquired;
    let _none = state.assign(&assignment(&[], &[0]));
    let _none = state.assign(&assignment(&[(0, Some(5))], &[]));
    let part = &state.parts[&tp(0)];
    assert_eq!((part.phase, part.acquired), (Phase::Locating, acquired));
    assert_eq!(part.tracker.as_ref().unwrap().position(), 9);
    process(&mut state, 0, 5, 9);
    assert_eq!(state.parts[&tp(0)].to_commit(), Some(9));
}

/// Seed 137 of the simulator: a member whose application commits let go of a partition, and the
/// coordinator, which had not heard of that, left it here.
#[test]
fn a_partition_that_was_let_go_of_and_stays_goes_on_where_it_stopped() {
    for let_go in [Phase::Drained, Phase::Leaving, Phase::Released] {
        for tells in [false, true] {
            let mut state = State::new(tells);
            let _none = state.assign(&assignment(&[(0, Some(5))], &[]));
            run(&mut state, 0, 5);
            hand_on(&mut state, 0, 5, 9);
            process(&mut state, 0, 5, 9);
            let acquired = state.parts[&tp(0)].acquired;
            let _none = state.assign(&assignment(&[], &[0]));
            assert!(!state.drain(false));
            state.enter(&state.in_phase(Phase::Drained), Phase::Drained, let_go);
            let _none = state.assign(&assignment(&[(0, Some(5))], &[]));
            let part = &state.parts[&tp(0)];
            if tells && let_go != Phase::Drained {
                // The application has heard that it is gone, and may have dropped what it had of it.
                assert_ne!(part.acquired, acquired);
                assert_eq!((part.phase, part.committed), (Phase::Assigned, Some(5)));
                assert!(part.tracker.is_none());
            } else {
                assert_eq!((part.phase, part.acquired), (Phase::Locating, acquired));
                assert_eq!(part.tracker.as_ref().unwrap().position(), 9);
                assert_eq!(part.to_commit(), Some(9));
            }
            assert_eq!(lost(&state), []);
        }
    }
}

/// The stream was broken, and the partition with somebody else meanwhile, who may have stored
/// something or not.
#[test]
fn a_partition_that_was_granted_anew_is_a_new_acquisition() {
    for stored in [9, 12] {
        let mut state = State::default();
        let _none = state.assign(&assignment(&[(0, Some(5))], &[]));
        run(&mut state, 0, 5);
        hand_on(&mut state, 0, 5, 9);
        process(&mut state, 0, 5, 9);
        let acquired = state.parts[&tp(0)].acquired;
        // Its own, of which the answer was lost.
        let _sent = plan::plan(&mut state, &Chosen::new(), true);
        let _none = state.assign(&assignment(&[(0, Some(9))], &[]));
        assert_eq!(state.parts[&tp(0)].acquired, acquired);
        assert_eq!(state.parts[&tp(0)].to_commit(), None, "it is stored");
        let mut anew = assignment(&[(0, Some(stored))], &[]);
        anew.assigned[0].granted_generation = 3;
        let _none = state.assign(&anew);
        assert_ne!(state.parts[&tp(0)].acquired, acquired);
        assert_eq!(
            (phase(&state, 0), lost(&state)),
            (Some(Phase::Assigned), vec![tp(0)])
        );
    }
}

/// A member that closes gains nothing, and what it lost it need not wait for.
#[test]
fn a_member_that_closes_only_loses() {
    let mut state = State::default();
    let _none = state.assign(&assignment(&[(0, Some(5)), (1, None), (2, None)], &[]));
    for partition in 0..3 {
        run(&mut state, partition, 5);
    }
    state.close();
    let mut news = assignment(&[(0, Some(5)), (1, None), (3, None)], &[2]);
    news.assigned[1].granted_generation = 3;
    state.assign_no_more(&news);
    assert_eq!(phase(&state, 0), Some(Phase::Draining));
    assert_eq!(phase(&state, 2), Some(Phase::Draining));
    assert_eq!((phase(&state, 1), phase(&state, 3)), (None, None));
    assert_eq!(lost(&state), [tp(1)]);
}

#[test]
fn going_back_takes_a_seek_and_is_allowed_once() {
    let mut state = State::default();
    let _none = state.assign(&assignment(&[(0, Some(100))], &[]));
    run(&mut state, 0, 100);
    let round = state.number();
    state.parts.get_mut(&tp(0)).unwrap().begin(round, 40, true);
    assert_eq!(
        state.parts[&tp(0)].to_commit(),
        None,
        "a seek commits nothing"
    );
    hand_on(&mut state, 0, 40, 50);
    process(&mut state, 0, 40, 50);
    let planned = plan::plan(&mut state, &Chosen::new(), true);
    let sent = plan::to_wire(&planned);
    assert_eq!((sent[0].offset, sent[0].allow_back), (50, true));
    plan::stored(&mut state, &planned);
    hand_on(&mut state, 0, 50, 60);
    process(&mut state, 0, 50, 60);
    let sent = plan::to_wire(&plan::plan(&mut state, &Chosen::new(), true));
    assert_eq!((sent[0].offset, sent[0].allow_back), (60, false));
}

/// A commit that is under way while the application seeks says what is stored, and nothing more.
#[test]
fn a_commit_from_before_a_seek_does_not_count_for_what_comes_after() {
    let mut state = State::default();
    let _none = state.assign(&assignment(&[(0, None)], &[]));
    run(&mut state, 0, 0);
    hand_on(&mut state, 0, 0, 20);
    process(&mut state, 0, 0, 20);
    let under_way = plan::plan(&mut state, &Chosen::new(), true);
    let round = state.number();
    state.parts.get_mut(&tp(0)).unwrap().begin(round, 10, true);
    plan::stored(&mut state, &under_way);
    hand_on(&mut state, 0, 10, 15);
    process(&mut state, 0, 10, 15);
    let sent = plan::to_wire(&plan::plan(&mut state, &Chosen::new(), true));
    assert_eq!((sent[0].offset, sent[0].allow_back), (15, true));
}

#[test]
fn chosen_offsets_are_checked_and_replace_what_came_back() {
    let mut state = State::default();
    let _none = state.assign(&assignment(&[(0, None), (1, None)], &[]));
    run(&mut state, 0, 0);
    run(&mut state, 1, 0);
    hand_on(&mut state, 0, 0, 20);
    hand_on(&mut state, 1, 0, 20);
    process(&mut state, 1, 0, 20);
    let choose = |state: &State, partition, offset| {
        let commit = CommitOffset::from(Offset(offset));
        plan::choose(state, BTreeMap::from([(tp(partition), commit)]))
    };
    assert!(choose(&state, 0, 21).is_err(), "beyond what was handed on");
    assert!(choose(&state, 0, -1).is_err());
    assert!(choose(&state, 7, 0).is_err());
    let chosen = choose(&state, 0, 7).unwrap();
    let planned = plan::plan(&mut state, &chosen, false);
    assert_eq!(plan::to_wire(&planned).len(), 1, "and nothing else");
    let chosen = choose(&state, 1, 5).unwrap();
    let planned = plan::plan(&mut state, &chosen, true);
    assert_eq!(plan::to_wire(&planned)[0].offset, 5);
    state.lose_all();
    assert!(plan::still_mine(&state, &chosen).is_err());
}

/// Seed 344 of the simulator: a stream that the member had given up came to the coordinator after the one
/// that counts, and ended that.
#[test]
fn a_member_whose_stream_is_displaced_joins_again() {
    let ended = v1::Error::new(v1::ErrorCode::InvalidRequest, "no");
    let fatal = ClientError::server(ended.clone());
    assert_eq!(judge(&fatal), Verdict::Fatal);
    let displaced = ClientError::server(v1::Error {
        retryable: true,
        ..ended
    });
    assert_eq!(judge(&displaced), Verdict::Retry);
}

/// One step of a member's life.
#[derive(Debug, Clone, Copy)]
enum Step {
    HandOn(i32, i64),
    /// The n-th batch that is out comes back.
    Return(usize),
    Plan,
    /// The commit under way is stored, and answered or not.
    Store(bool),
    Seek(i32, i64),
    Move(i32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_i32, 1..5_i64).prop_map(|(p, n)| Step::HandOn(p, n)),
        4 => (0..20_usize).prop_map(Step::Return),
        3 => Just(Step::Plan),
        3 => any::<bool>().prop_map(Step::Store),
        1 => (0..3_i32, 0..30_i64).prop_map(|(p, o)| Step::Seek(p, o)),
        1 => (0..3_i32).prop_map(Step::Move),
    ]
}

/// The coordinator's side: what is stored, and who processed what since the last seek.
#[derive(Debug, Default)]
struct Model {
    stored: BTreeMap<i32, i64>,
    /// Batches that are out: partition, round, range.
    out: Vec<(i32, u64, (i64, i64))>,
    flight: Option<Vec<Planned>>,
}

impl Model {
    /// The lowest record of a partition and round that is still out.
    fn first_out(&self, state: &State, partition: i32) -> Option<i64> {
        let round = state.parts[&tp(partition)].round;
        let mine = self
            .out
            .iter()
            .filter(|(p, r, _)| (*p, *r) == (partition, round));
        mine.map(|(_, _, range)| range.0).min()
    }

    fn store(&mut self, state: &mut State, answered: bool) {
        let Some(planned) = self.flight.take() else {
            return;
        };
        for offset in plan::to_wire(&planned) {
            let stored = self.stored.entry(offset.partition).or_insert(offset.offset);
            assert!(
                offset.offset >= *stored || offset.allow_back,
                "a commit goes back without having been told to: {offset:?} below {stored}"
            );
            *stored = offset.offset;
        }
        if answered {
            plan::stored(state, &planned);
        }
    }

    fn take(&mut self, state: &mut State, step: Step) {
        match step {
            Step::HandOn(partition, count) => {
                let part = &state.parts[&tp(partition)];
                let from = part.tracker.as_ref().unwrap().position();
                self.out.push((partition, part.round, (from, from + count)));
                hand_on(state, partition, from, from + count);
            }
            Step::Return(at) if !self.out.is_empty() => {
                let (partition, round, range) = self.out.remove(at % self.out.len());
                state.keep_returned(&tp(partition), round, range);
                let _any = state.note_returned();
            }
            Step::Plan if self.flight.is_none() => {
                let planned = plan::plan(state, &Chosen::new(), true);
                for offset in plan::to_wire(&planned) {
                    let first_out = self.first_out(state, offset.partition);
                    assert!(
                        first_out.is_none_or(|out| offset.offset <= out),
                        "{offset:?} is beyond {first_out:?}, which is still out"
                    );
                }
                self.flight = Some(planned);
            }
            Step::Store(answered) => self.store(state, answered),
            Step::Seek(partition, to) => {
                let round = state.number();
                let part = state.parts.get_mut(&tp(partition)).unwrap();
                part.begin(round, to, true);
            }
            Step::Move(partition) => {
                // Away and back: what the group holds then is where it begins. A commit that is under
                // way is refused.
                self.flight = None;
                let stored = self.stored.get(&partition).copied();
                let others = (0..3).filter(|p| *p != partition);
                let rest: Vec<_> = others.map(|p| (p, self.stored.get(&p).copied())).collect();
                let _none = state.assign(&assignment(&rest, &[]));
                let all = [&rest[..], &[(partition, stored)]].concat();
                let _none = state.assign(&assignment(&all, &[]));
                for p in 0..3 {
                    if phase(state, p) == Some(Phase::Assigned) {
                        run(state, p, self.stored.get(&p).copied().unwrap_or(0));
                    }
                }
            }
            Step::Return(_) | Step::Plan => {}
        }
    }
}

proptest! {
    /// No commit passes a record that is out, none goes back unless the application sought back.
    #[test]
    fn commits_stay_behind_what_is_out(steps in prop::collection::vec(step(), 1..120)) {
        let mut state = State::default();
        let _none = state.assign(&assignment(&[(0, None), (1, None), (2, None)], &[]));
        for partition in 0..3 {
            run(&mut state, partition, 0);
        }
        let mut model = Model::default();
        for step in steps {
            model.take(&mut state, step);
        }
    }
}
