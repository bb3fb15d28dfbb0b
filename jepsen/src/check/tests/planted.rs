//! Violations to be planted in correct histories, each with the property that it breaks.

use rand::{RngExt as _, rngs::StdRng};

use super::{model::LEDGER, story::KEY};
use crate::history::{Action, Kind, Op, Poll, Read, RegisterOp, Send};

/// Changes a history so that the property is violated; `false` if there is nothing fit for that.
type Plant = fn(&mut [Op], &mut StdRng) -> bool;

/// All of them.
pub(super) const PLANTED: &[(&str, Plant)] = &[
    ("lost-write", cut_final),
    ("aborted-read", refuse_what_was_read),
    ("refused-absent", refuse_what_was_read),
    ("duplicate", repeat_in_final),
    ("inconsistent-offset", replace_in_poll),
    ("dense-offsets", drop_from_final),
    ("int-nonmonotonic-poll", swap_in_poll),
    ("int-poll-skip", drop_from_poll),
    ("nonmonotonic-poll", read_again),
    ("poll-skip", leave_out_first),
    ("nonmonotonic-send", swap_sends),
    ("real-time-order", swap_sends),
    ("producer-order", swap_sends),
    ("conditional-append", land_elsewhere),
    ("stale-high-watermark", name_too_much),
    ("stale-high-watermark", name_too_little),
    ("log-start", name_a_later_start),
    ("commit-lost", forget_commits),
    ("commit-author", invent_commit),
    ("commit-goes-back", commit_less),
    ("one-owner", commit_under_an_old_grant),
    ("processed-twice", share_a_grant),
    ("replica-divergence", change_a_digest),
    ("linearizable-register", read_the_unwritten),
    ("linearizable-append", land_elsewhere),
    ("recovery", never_recover),
    ("impossible", send_twice),
];

/// One of those that are fit.
fn any<'a, T>(
    ops: &'a mut [Op],
    rng: &mut StdRng,
    fit: impl for<'b> Fn(&'b mut Op) -> Option<&'b mut T>,
) -> Option<&'a mut T> {
    let count = ops.iter_mut().filter_map(&fit).count();
    let chosen = (count > 0).then(|| rng.random_range(0..count))?;
    ops.iter_mut().filter_map(fit).nth(chosen)
}

fn is_final(op: &mut Op) -> Option<&mut Read> {
    match &mut op.action {
        Action::Poll(poll) if poll.is_final => poll.reads.get_mut(&KEY),
        _ => None,
    }
}

/// What a consumer was given that has at least so many records.
fn read(op: &mut Op, records: usize) -> Option<&mut Read> {
    match (&mut op.action, op.kind) {
        (Action::Poll(poll), Kind::Ok) if !poll.is_final && poll.group.is_none() => {
            let read = poll.reads.get_mut(&KEY)?;
            (read.records.len() >= records).then_some(read)
        }
        _ => None,
    }
}

/// A poll that goes on where one before it stopped, beyond what was removed.
fn going_on(op: &mut Op) -> Option<&mut Poll> {
    match (&mut op.action, op.kind) {
        (Action::Poll(poll), Kind::Ok) if !poll.is_final && poll.group.is_none() => {
            let read = poll.reads.get(&KEY)?;
            let first = read.records.first()?.0;
            let whole = read.log_start.is_some_and(|start| start < first);
            (!poll.sought && whole && read.records.len() > 1).then_some(poll)
        }
        _ => None,
    }
}

/// The last log start that anybody was told.
fn start(ops: &[Op]) -> i64 {
    let named = ops.iter().filter_map(|op| match &op.action {
        Action::Poll(poll) => poll.reads.get(&KEY)?.log_start,
        Action::Trim(trim) => trim.log_start,
        _ => None,
    });
    named.max().unwrap_or(0)
}

fn cut_final(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let acknowledged = ops.iter().filter_map(|op| match &op.action {
        Action::Send(send) if send.key == KEY && op.kind == Kind::Ok => send.offset,
        _ => None,
    });
    let top = acknowledged.max();
    let Some((last, top)) = any(ops, rng, is_final).zip(top) else {
        return false;
    };
    let before = last.records.len();
    last.records.retain(|(offset, _)| *offset < top);
    last.high_watermark = last.high_watermark.map(|_| top);
    last.records.len() < before
}

fn refuse_what_was_read(ops: &mut [Op], _: &mut StdRng) -> bool {
    let finals = ops.iter_mut().filter_map(is_final);
    let last: Vec<_> = finals.flat_map(|read| &read.records).map(|r| r.1).collect();
    let polls = ops.iter_mut().filter_map(|op| read(op, 1));
    let seen: Vec<_> = polls.flat_map(|read| &read.records).map(|r| r.1).collect();
    let fit = |op: &mut Op| match &op.action {
        Action::Send(send) if op.kind == Kind::Ok => send
            .values
            .iter()
            .any(|value| last.contains(value) && seen.contains(value)),
        _ => false,
    };
    let Some(op) = ops.iter_mut().filter_map(|op| fit(op).then_some(op)).next() else {
        return false;
    };
    op.kind = Kind::Fail;
    true
}

fn repeat_in_final(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let Some(last) = any(ops, rng, is_final) else {
        return false;
    };
    let Some(&(end, value)) = last.records.last() else {
        return false;
    };
    last.records.push((end + 1, value));
    true
}

fn replace_in_poll(ops: &mut [Op], rng: &mut StdRng) -> bool {
    // Where the final log has the record too.
    let start = start(ops);
    let Some(read) = any(ops, rng, |op| {
        read(op, 2).filter(|read| read.records[0].0 >= start)
    }) else {
        return false;
    };
    read.records[0].1 = read.records[1].1;
    true
}

fn drop_from_final(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let Some(last) = any(ops, rng, is_final).filter(|last| last.records.len() > 2) else {
        return false;
    };
    let _dropped = last.records.remove(1);
    true
}

fn swap_in_poll(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let Some(read) = any(ops, rng, |op| read(op, 2)) else {
        return false;
    };
    read.records.swap(0, 1);
    true
}

fn drop_from_poll(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let Some(read) = any(ops, rng, |op| read(op, 3)) else {
        return false;
    };
    let _dropped = read.records.remove(1);
    true
}

fn read_again(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let Some(poll) = any(ops, rng, going_on) else {
        return false;
    };
    let records = &mut poll.reads.get_mut(&KEY).unwrap().records;
    let (first, value) = records[0];
    records.insert(0, (first - 1, value));
    true
}

fn leave_out_first(ops: &mut [Op], rng: &mut StdRng) -> bool {
    // What others were told of the log start by then would excuse it.
    let start = start(ops);
    let Some(poll) = any(ops, rng, |op| {
        going_on(op).filter(|poll| poll.reads[&KEY].records[0].0 >= start)
    }) else {
        return false;
    };
    let _dropped = poll.reads.get_mut(&KEY).unwrap().records.remove(0);
    true
}

/// Two sends of one session that were both acknowledged, one after the other.
fn swap_sends(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let sends = ops
        .iter()
        .enumerate()
        .filter_map(|(at, op)| match &op.action {
            Action::Send(send) if op.kind == Kind::Ok && send.key == KEY => {
                Some((send.producer?, at, send.offset?))
            }
            _ => None,
        });
    let sends: Vec<_> = sends.collect();
    let pairs = sends.iter().flat_map(|a| {
        let later = sends.iter().filter(move |b| b.0 == a.0 && b.1 > a.1);
        later.map(move |b| (*a, *b))
    });
    let pairs: Vec<_> = pairs.collect();
    if pairs.is_empty() {
        return false;
    }
    let ((_, early, first), (_, late, second)) = pairs[rng.random_range(0..pairs.len())];
    for (at, offset) in [(early, second), (late, first)] {
        let Action::Send(send) = &mut ops[at].action else {
            unreachable!("sends were chosen");
        };
        send.offset = Some(offset);
    }
    true
}

fn conditional(op: &mut Op) -> Option<&mut Send> {
    match &mut op.action {
        Action::Send(send) if op.kind == Kind::Ok && send.key == LEDGER => Some(send),
        _ => None,
    }
}

fn land_elsewhere(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let Some(send) = any(ops, rng, conditional) else {
        return false;
    };
    send.offset = send.offset.map(|offset| offset + 1);
    true
}

fn name_too_much(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let Some(read) = any(ops, rng, |op| read(op, 0)) else {
        return false;
    };
    read.high_watermark = Some(1_000_000);
    true
}

fn name_too_little(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let Some(read) = any(ops, rng, |op| read(op, 1)) else {
        return false;
    };
    read.high_watermark = Some(read.records[0].0);
    true
}

fn name_a_later_start(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let Some(read) = any(ops, rng, |op| read(op, 0)) else {
        return false;
    };
    read.log_start = Some(1_000_000);
    true
}

/// The last answer to the question for what is committed, if something was by then.
fn last_answer(ops: &mut [Op]) -> Option<&mut Option<i64>> {
    let answers = ops.iter_mut().filter_map(|op| match &mut op.action {
        Action::Committed(of) if op.kind == Kind::Ok => of.offsets.get_mut(&KEY),
        _ => None,
    });
    let answers = answers.filter(|committed| committed.is_some());
    let answers: Vec<_> = answers.collect();
    let enough = answers.len() > 6;
    answers.into_iter().next_back().filter(|_| enough)
}

fn forget_commits(ops: &mut [Op], _: &mut StdRng) -> bool {
    let Some(answer) = last_answer(ops) else {
        return false;
    };
    *answer = None;
    true
}

fn invent_commit(ops: &mut [Op], _: &mut StdRng) -> bool {
    let Some(answer) = last_answer(ops) else {
        return false;
    };
    *answer = Some(1_000_000);
    true
}

/// The last commit that was acknowledged, and how many there were.
fn last_commit(ops: &mut [Op]) -> Option<(&mut Op, usize)> {
    let stored = |op: &&mut Op| matches!(op.action, Action::Commit(_)) && op.kind == Kind::Ok;
    let count = ops.iter_mut().filter(stored).count();
    Some((ops.iter_mut().rfind(stored)?, count))
}

fn commit_less(ops: &mut [Op], _: &mut StdRng) -> bool {
    match last_commit(ops) {
        Some((op, count)) if count > 6 => {
            let Action::Commit(commit) = &mut op.action else {
                return false;
            };
            let offset = commit.offsets.get_mut(&KEY).unwrap();
            let before = std::mem::replace(offset, -1);
            before >= 0
        }
        _ => false,
    }
}

fn commit_under_an_old_grant(ops: &mut [Op], _: &mut StdRng) -> bool {
    match last_commit(ops) {
        Some((op, count)) if count > 6 => {
            let Action::Commit(commit) = &mut op.action else {
                return false;
            };
            commit.member.push_str("-of-old");
            let _was = commit.granted.insert(KEY, 0);
            true
        }
        _ => false,
    }
}

fn share_a_grant(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let given = |op: &Op| match &op.action {
        Action::Poll(poll) if op.kind == Kind::Ok && poll.group.is_some() => {
            poll.reads.get(&KEY).and_then(|read| read.granted)
        }
        _ => None,
    };
    let grants: Vec<_> = ops.iter().filter_map(given).collect();
    let is_shared = |op: &Op| {
        let granted = given(op);
        let same = grants.iter().filter(|other| Some(**other) == granted);
        same.count() > 1
    };
    let member = any(ops, rng, |op| {
        let shared = is_shared(op);
        match &mut op.action {
            Action::Poll(poll) if shared => poll.member.as_mut(),
            _ => None,
        }
    });
    let Some(member) = member else {
        return false;
    };
    member.push_str("-too");
    true
}

fn change_a_digest(ops: &mut [Op], rng: &mut StdRng) -> bool {
    fn fit(op: &mut Op) -> Option<&mut Option<String>> {
        match &mut op.action {
            Action::Replica(replica) if op.kind == Kind::Ok => Some(&mut replica.digest),
            _ => None,
        }
    }
    let Some(digest) = any(ops, rng, fit) else {
        return false;
    };
    *digest = Some("other".to_owned());
    true
}

fn read_the_unwritten(ops: &mut [Op], rng: &mut StdRng) -> bool {
    fn fit(op: &mut Op) -> Option<&mut RegisterOp> {
        match &mut op.action {
            Action::Register(of) if op.kind == Kind::Ok => {
                matches!(of.op, RegisterOp::Read(_)).then_some(&mut of.op)
            }
            _ => None,
        }
    }
    let Some(op) = any(ops, rng, fit) else {
        return false;
    };
    *op = RegisterOp::Read(Some(-5));
    true
}

fn never_recover(ops: &mut [Op], _: &mut StdRng) -> bool {
    let recovered = |op: &&mut Op| op.action == Action::Recover && op.kind == Kind::Ok;
    let Some(op) = ops.iter_mut().find(recovered) else {
        return false;
    };
    op.kind = Kind::Info;
    true
}

fn send_twice(ops: &mut [Op], rng: &mut StdRng) -> bool {
    let values = ops.iter().filter_map(|op| match &op.action {
        Action::Send(send) if send.key == KEY && op.kind == Kind::Ok => Some(send.values[0]),
        _ => None,
    });
    let Some(first) = values.collect::<Vec<_>>().first().copied() else {
        return false;
    };
    fn fit(op: &mut Op) -> Option<&mut Send> {
        match &mut op.action {
            Action::Send(send) if send.key == KEY && op.kind == Kind::Ok => Some(send),
            _ => None,
        }
    }
    let Some(send) = any(ops, rng, |op| fit(op).filter(|s| s.values[0] != first)) else {
        return false;
    };
    send.values[0] = first;
    true
}
