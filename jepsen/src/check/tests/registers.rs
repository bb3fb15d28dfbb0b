//! Registers and ledgers.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::story::{Open, Story, register, send};
use crate::history::{Action, Kind, RegisterOp, Send, Value};

fn read(story: &mut Story, process: u64, value: Option<Value>) {
    story.did(process, None, register(RegisterOp::Read(value)));
}

fn write(story: &mut Story, process: u64, value: Value) {
    story.did(process, None, register(RegisterOp::Write(value)));
}

#[test]
fn a_register_in_order_is_accepted() {
    let mut story = Story::new();
    read(&mut story, 1, None);
    write(&mut story, 1, 1);
    read(&mut story, 2, Some(1));
    story.did(2, None, register(RegisterOp::Cas(Some(1), 2)));
    read(&mut story, 1, Some(2));
    assert_eq!(story.broken(), [""; 0]);
    let found = story.verdict();
    let found = found.finding("linearizable-register").unwrap();
    assert_eq!(found.looked_at, 5);
}

#[test]
fn a_stale_read_is_found_and_shown_with_the_least_that_proves_it() {
    let mut story = Story::new();
    for value in 1..=200 {
        write(&mut story, 1, value);
        read(&mut story, 2, Some(value));
    }
    read(&mut story, 3, Some(150));
    for value in 201..=300 {
        write(&mut story, 1, value);
    }
    assert_eq!(story.broken(), ["linearizable-register"]);
    let verdict = story.verdict();
    let violation = &verdict.finding("linearizable-register").unwrap().violations[0];
    // The write of 150, one of a later value or a read of it, the read of 150 after that.
    assert!(violation.ops.len() <= 8, "{violation:?}");
    assert!(
        violation.text.contains("process 3 read 150"),
        "{violation:?}"
    );
}

#[test]
fn a_read_of_what_nobody_wrote_is_found() {
    let mut story = Story::new();
    write(&mut story, 1, 1);
    read(&mut story, 2, Some(9));
    assert_eq!(story.broken(), ["linearizable-register"]);
}

#[test]
fn two_that_replace_the_same_value_are_found() {
    let mut story = Story::new();
    write(&mut story, 1, 1);
    story.did(2, None, register(RegisterOp::Cas(Some(1), 2)));
    story.did(3, None, register(RegisterOp::Cas(Some(1), 3)));
    assert_eq!(story.broken(), ["linearizable-register"]);
}

#[test]
fn what_was_not_answered_may_take_effect_late_or_never() {
    let mut story = Story::new();
    let open = story.begin(1, None, register(RegisterOp::Write(1)));
    story.end(open, Kind::Info, register(RegisterOp::Write(1)));
    read(&mut story, 2, None);
    write(&mut story, 2, 2);
    read(&mut story, 2, Some(2));
    assert_eq!(story.broken(), [""; 0], "never");
    read(&mut story, 2, Some(1));
    assert_eq!(story.broken(), [""; 0], "late");
    read(&mut story, 2, Some(2));
    assert_eq!(story.broken(), ["linearizable-register"], "but not twice");
}

/// What a process is at, and what came of it once it has taken effect.
type UnderWay = (Open, RegisterOp, Option<RegisterOp>);

/// Many processes use one register at once; some never hear what came of it. Gives how many operations
/// there were.
fn crowd(story: &mut Story, processes: usize, entries: usize) {
    let mut rng = StdRng::seed_from_u64(11);
    let mut under_way: Vec<Option<UnderWay>> = (0..processes).map(|_| None).collect();
    let mut names: Vec<u64> = (0..).take(processes).collect();
    let (mut value, mut next, mut fresh) = (None, 0, u64::try_from(processes).unwrap());
    while story.0.ops.len() < entries {
        let who = rng.random_range(0..processes);
        let slot = &mut under_way[who];
        match slot.take() {
            None => {
                next += 1;
                let op = match rng.random_range(0..3) {
                    0 => RegisterOp::Read(None),
                    1 => RegisterOp::Write(next),
                    _ => RegisterOp::Cas(value, next),
                };
                let open = story.begin(names[who], None, register(op.clone()));
                *slot = Some((open, op, None));
            }
            Some((open, op, None)) if rng.random_bool(0.02) => {
                story.end(open, Kind::Info, register(op));
                names[who] = fresh;
                fresh += 1;
            }
            Some((open, op, None)) => {
                let done = match op.clone() {
                    RegisterOp::Read(_) => Some(RegisterOp::Read(value)),
                    RegisterOp::Write(new) => Some(RegisterOp::Write(new)),
                    RegisterOp::Cas(from, to) => {
                        (from == value).then_some(RegisterOp::Cas(from, to))
                    }
                };
                match done {
                    Some(done) => {
                        if let RegisterOp::Write(new) | RegisterOp::Cas(_, new) = done {
                            value = Some(new);
                        }
                        *slot = Some((open, op, Some(done)));
                    }
                    None => story.end(open, Kind::Fail, register(op)),
                }
            }
            Some((open, op, Some(_))) if rng.random_bool(0.02) => {
                story.end(open, Kind::Info, register(op));
                names[who] = fresh;
                fresh += 1;
            }
            Some((open, _, Some(done))) => story.end(open, Kind::Ok, register(done)),
        }
    }
}

#[test]
fn a_crowd_at_one_register_is_judged() {
    let mut story = Story::new();
    crowd(&mut story, 30, 8000);
    assert_eq!(story.broken(), [""; 0]);
    // A value of long ago.
    let read_early = story.0.ops[1000..].iter().find_map(|op| match &op.action {
        Action::Register(of) if op.kind == Kind::Ok => match of.op {
            RegisterOp::Read(value) => Some(value),
            _ => None,
        },
        _ => None,
    });
    read(&mut story, 9000, read_early.unwrap());
    assert_eq!(story.broken(), ["linearizable-register"]);
}

/// An append where the log ends at `expected`.
fn append(story: &mut Story, process: u64, values: &[Value], expected: i64) -> Open {
    let send = Send {
        expected_end: Some(expected),
        ..send(values)
    };
    story.begin(process, Some(1), Action::Send(send))
}

#[test]
fn a_ledger_in_order_is_accepted() {
    let mut story = Story::new();
    let first = append(&mut story, 1, &[1, 2], 0);
    let second = append(&mut story, 2, &[3], 2);
    story.acknowledge(second, 2);
    story.acknowledge(first, 0);
    let lost = append(&mut story, 1, &[4, 5], 3);
    let third = append(&mut story, 2, &[6], 5);
    story.acknowledge(third, 5);
    drop(lost);
    assert_eq!(
        story.broken(),
        [""; 0],
        "what was not answered fills the gap"
    );
    story.finally(0, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(story.broken(), [""; 0]);
}

#[test]
fn a_ledger_with_a_gap_or_out_of_time_is_found() {
    let mut gap = Story::new();
    let first = append(&mut gap, 1, &[1], 0);
    gap.acknowledge(first, 0);
    let second = append(&mut gap, 2, &[2], 3);
    gap.acknowledge(second, 3);
    assert_eq!(gap.broken(), ["linearizable-append"]);
    let mut late = Story::new();
    let second = append(&mut late, 1, &[2], 1);
    late.acknowledge(second, 1);
    let first = append(&mut late, 2, &[1], 0);
    late.acknowledge(first, 0);
    assert_eq!(late.broken(), ["real-time-order", "linearizable-append"]);
}
