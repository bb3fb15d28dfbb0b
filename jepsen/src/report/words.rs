//! Entries of a history, said in a few words for people.

use std::fmt::Write as _;

use super::calls::name;
use crate::history::{
    Action, FaultPhase, Key, Kind, Op, Poll, Process, Read, RegisterOp, Send, Value,
};

/// Values and reads that are named one by one; of more, the first and the last.
const NAMED_MAX: usize = 6;

/// Who acted.
pub(super) fn process(process: Process) -> String {
    match process {
        Process::Client(number) => number.to_string(),
        Process::Nemesis(_) => "nemesis".to_owned(),
    }
}

/// What an entry says, without its kind.
pub(super) fn detail(op: &Op) -> String {
    match &op.action {
        Action::Send(send) => sent(send),
        Action::Poll(poll) => polled(poll),
        Action::Assign(keys) | Action::Subscribe(keys) => {
            list(keys.iter().map(|k| format!("k{k}")))
        }
        Action::Crash | Action::Recover => String::new(),
        Action::Commit(commit) => {
            let offsets = commit.offsets.iter();
            let offsets = list(offsets.map(|(key, offset)| match commit.granted.get(key) {
                Some(generation) => format!("k{key}@{offset} of generation {generation}"),
                None => format!("k{key}@{offset}"),
            }));
            format!("{} by {}: {offsets}", commit.group, commit.member)
        }
        Action::Committed(committed) => {
            let offsets = committed.offsets.iter();
            let offsets = list(offsets.map(|(key, offset)| match offset {
                Some(offset) => format!("k{key}@{offset}"),
                None => format!("k{key} never"),
            }));
            format!("{}: {offsets}", committed.group)
        }
        Action::Trim(trim) => match trim.log_start {
            Some(start) => format!("k{} before {}, begins at {start}", trim.key, trim.before),
            None => format!("k{} before {}", trim.key, trim.before),
        },
        Action::Register(register) => {
            let known =
                |value: &Option<Value>| value.map_or("nothing".to_owned(), |v| v.to_string());
            let what = match &register.op {
                RegisterOp::Read(value) => format!("read {}", known(value)),
                RegisterOp::Write(value) => format!("write {value}"),
                RegisterOp::Cas(from, to) => format!("from {} to {to}", known(from)),
            };
            format!("k{} {what}", register.key)
        }
        Action::CreateTopic(topic) | Action::DeleteTopic(topic) => {
            format!("{} ({} partitions)", topic.topic, topic.partitions)
        }
        Action::Replica(replica) => format!(
            "k{} [{}..{}) on n{}: {}",
            replica.key,
            replica.start,
            replica.end,
            replica.node,
            replica.digest.as_deref().unwrap_or("unknown")
        ),
        Action::Fault(fault) => {
            let phase = match fault.phase {
                FaultPhase::Begin => "begins",
                FaultPhase::End => "ends",
                FaultPhase::Once => "once",
            };
            format!("{} {phase}: {}", fault.what, fault.detail)
        }
        Action::Impossible(what) => what.clone(),
    }
}

/// One line: who, what, how it went.
pub(super) fn line(op: &Op) -> String {
    let mut text = format!(
        "#{} {:.3} s process {} {} {} {}",
        op.index,
        seconds(op.time),
        process(op.process),
        kind(op),
        name(&op.action),
        detail(op)
    );
    if let Some(node) = op.node {
        let _infallible = write!(text, " n{node}");
    }
    if let Some(error) = &op.error {
        let _infallible = write!(text, " ({error})");
    }
    text
}

/// The kind of an entry, as in a history.
pub(super) const fn kind(op: &Op) -> &'static str {
    match op.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    }
}

/// Nanoseconds as seconds.
pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn sent(send: &Send) -> String {
    let values = list(send.values.iter().map(ToString::to_string));
    let mut text = format!("k{}", send.key);
    if let Some(offset) = send.offset {
        let _infallible = write!(text, "@{offset}");
    }
    let _infallible = write!(text, " [{values}]");
    if let Some(end) = send.expected_end {
        let _infallible = write!(text, " if it ends at {end}");
    }
    if let Some(end) = send.found_end {
        let _infallible = write!(text, ", it ends at {end}");
    }
    text
}

fn polled(poll: &Poll) -> String {
    let mut text = list(poll.reads.iter().map(|(key, read)| got(*key, read)));
    if poll.sought {
        text.push_str(" after a seek");
    }
    if poll.is_final {
        text.push_str(" of the whole log");
    }
    if let Some(member) = &poll.member {
        let _infallible = write!(text, " as {member}");
    }
    text
}

fn got(key: Key, read: &Read) -> String {
    let mut text = match (read.records.first(), read.records.last()) {
        (Some((first, _)), Some((last, _))) if read.records.len() > NAMED_MAX => {
            format!("k{key}@{first}..={last}")
        }
        (Some((first, _)), Some(_)) => {
            let values = list(read.records.iter().map(|(_, value)| value.to_string()));
            format!("k{key}@{first} [{values}]")
        }
        _ => format!("k{key} nothing"),
    };
    if let Some(high) = read.high_watermark {
        let _infallible = write!(text, " hw {high}");
    }
    if let Some(start) = read.log_start.filter(|start| *start > 0) {
        let _infallible = write!(text, " from {start}");
    }
    text
}

/// Joined by blanks; the middle of a long one left out.
fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let count = items.len();
    let mut text = String::new();
    for (at, item) in items.enumerate() {
        if count > NAMED_MAX && (NAMED_MAX - 1..count - 1).contains(&at) {
            if at == NAMED_MAX - 1 {
                text.push_str(" ...");
            }
            continue;
        }
        if at > 0 {
            text.push(' ');
        }
        text.push_str(&item);
    }
    text
}
