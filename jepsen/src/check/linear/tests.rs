//! The search finds orders where there are some, and no others; also among many operations.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Call, Model, Verdict, search};

/// A counter that tells its value when it is raised.
struct Counter;

impl Model for Counter {
    type State = u32;
    type Act = u32;

    fn start(&self) -> u32 {
        0
    }

    fn step(&self, state: &u32, told: &u32) -> Option<u32> {
        (state == told).then_some(state + 1)
    }

    fn is_free(&self, _: &u32, _: &u32) -> bool {
        false
    }
}

/// A call that told a value between two entries.
fn call(told: u32, from: u64, until: u64) -> Call<u32> {
    Call {
        act: told,
        from,
        until: Some(until),
    }
}

fn judge(calls: &[Call<u32>]) -> Verdict<u32> {
    search(&Counter, calls, 1000)
}

#[test]
fn operations_under_way_at_once_may_take_any_order() {
    assert_eq!(judge(&[]), Verdict::Linearizable);
    assert_eq!(
        judge(&[call(1, 0, 3), call(0, 1, 2)]),
        Verdict::Linearizable
    );
    let crossed = [call(0, 1, 4), call(1, 2, 3), call(3, 5, 6), call(2, 7, 9)];
    let verdict = judge(&crossed);
    assert!(matches!(verdict, Verdict::Stuck(_)), "2 had not begun");
    let in_time = [call(2, 0, 9), call(0, 1, 4), call(1, 2, 3), call(3, 5, 10)];
    assert_eq!(judge(&in_time), Verdict::Linearizable);
}

#[test]
fn what_ended_before_another_began_comes_first() {
    let Verdict::Stuck(stuck) = judge(&[call(1, 0, 1), call(0, 2, 3)]) else {
        panic!("there is no such order");
    };
    assert_eq!((stuck.call, stuck.order, stuck.state), (0, vec![], 0));
    let Verdict::Stuck(stuck) = judge(&[call(0, 0, 1), call(2, 2, 3)]) else {
        panic!("nobody was told 1");
    };
    assert_eq!((stuck.call, stuck.order, stuck.state), (1, vec![0], 1));
}

#[test]
fn what_was_not_answered_may_have_happened_or_not() {
    let open = |told, from| Call {
        act: told,
        from,
        until: None,
    };
    assert_eq!(judge(&[open(0, 0), call(1, 1, 2)]), Verdict::Linearizable);
    assert_eq!(judge(&[open(0, 0), call(0, 1, 2)]), Verdict::Linearizable);
    let late = judge(&[call(1, 0, 1), open(0, 2)]);
    assert!(matches!(late, Verdict::Stuck(_)), "it had not begun");
}

#[test]
fn a_search_that_takes_too_long_decides_nothing() {
    let calls: Vec<_> = (0..20).map(|told| call(told, 0, 100)).collect();
    assert_eq!(search(&Counter, &calls, 10), Verdict::Undecided(11));
}

#[test]
fn thousands_of_operations_of_tens_of_processes_are_judged() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut calls: Vec<Call<u32>> = Vec::new();
    for told in 0..4000 {
        // It takes effect at 10 * told, up to about 30 others meanwhile.
        let at = 10_000 + 10 * u64::from(told);
        let from = at - rng.random_range(1..150);
        let until = at + rng.random_range(1..150);
        calls.push(call(told, from, until));
    }
    assert_eq!(search(&Counter, &calls, 2_000_000), Verdict::Linearizable);
    calls.retain(|call| call.act != 2000);
    let Verdict::Stuck(stuck) = search(&Counter, &calls, 2_000_000) else {
        panic!("nobody was told 2000");
    };
    assert_eq!(stuck.state, 2000);
}
