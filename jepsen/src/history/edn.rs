//! Histories in the form of `jepsen.tests.kafka`, for Jepsen's own checker.
//!
//! Operations that it does not know are left out, and entries are numbered anew. What differs otherwise:
//!
//! - It has no seek. Where a consumer's position was set anew, its process lets go of the key and takes
//!   it again, by two assignments (or subscriptions) before the poll.
//! - Every acknowledged value must be read. Values that nobody could read to the end ([`unread`]) are
//!   left out of their sends.
//! - It takes the writer of a value from completions only. What never completed does so at the end, as
//!   `:info`.
//! - What breaks is the process `:nemesis`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    io::{self, Write},
};

use super::{
    Action, FaultPhase, History, Key, Kind, Op, Poll, Process, Read, Send, Value, operations,
    unread,
};

impl History {
    /// Writes everything that Jepsen's checker knows, an entry a line.
    pub fn write_edn(&self, out: impl Write) -> io::Result<()> {
        let operations = operations(&self.ops);
        let completions = operations.iter().filter_map(|operation| {
            let completed = operation.completed?;
            Some((operation.invoked.index, completed))
        });
        let mut writer = Edn {
            out,
            index: 0,
            completions: completions.collect(),
            unread: unread::of(self),
            consumers: HashMap::new(),
        };
        for op in &self.ops {
            writer.entry(op)?;
        }
        let end = self.ops.last().map_or(0, |last| last.time);
        for operation in operations.iter().filter(|it| it.completed.is_none()) {
            writer.entry(&Op {
                kind: Kind::Info,
                time: end,
                ..operation.invoked.clone()
            })?;
        }
        writer.out.flush()
    }
}

/// What a consumer holds, and where it stands.
#[derive(Debug, Default)]
struct Consumer {
    held: BTreeSet<Key>,
    next: BTreeMap<Key, (i64, Option<u64>)>,
}

struct Edn<'a, W> {
    out: W,
    index: u64,
    /// By the entries of their invocations.
    completions: HashMap<u64, &'a Op>,
    unread: HashSet<(Key, Value)>,
    consumers: HashMap<Process, Consumer>,
}

impl<W: Write> Edn<'_, W> {
    fn entry(&mut self, op: &Op) -> io::Result<()> {
        match &op.action {
            Action::Send(send) => match self.sends(op.kind, send) {
                Some(value) => self.line(op, op.kind, "send", &value),
                None => Ok(()),
            },
            Action::Poll(poll) => {
                if op.kind == Kind::Invoke {
                    self.seek(op)?;
                } else {
                    self.stand(op, poll);
                }
                self.line(op, op.kind, "poll", &polled(op.kind, poll))
            }
            Action::Assign(keys) => self.assigned(op, "assign", keys),
            Action::Subscribe(keys) => self.assigned(op, "subscribe", keys),
            Action::Crash => {
                // Its end is never known.
                let kind = if op.kind == Kind::Invoke {
                    Kind::Invoke
                } else {
                    Kind::Info
                };
                self.line(op, kind, "crash", "nil")
            }
            Action::Fault(fault) => {
                let prefix = match fault.phase {
                    FaultPhase::Begin => "start-",
                    FaultPhase::End => "stop-",
                    FaultPhase::Once => "",
                };
                let f = format!("{prefix}{}", keyword(&fault.what));
                self.line(op, op.kind, &f, &text(&fault.detail))
            }
            Action::Impossible(what) => self.line(op, op.kind, "impossible", &text(what)),
            Action::Commit(_)
            | Action::Committed(_)
            | Action::Trim(_)
            | Action::Register(_)
            | Action::CreateTopic(_)
            | Action::DeleteTopic(_)
            | Action::Replica(_)
            | Action::Recover => Ok(()),
        }
    }

    /// The micro-operations of a send; `None` if there are none left.
    fn sends(&self, kind: Kind, send: &Send) -> Option<String> {
        let key = send.key;
        let offset = send.offset.filter(|_| kind == Kind::Ok);
        let values = (0_i64..).zip(&send.values);
        let kept = values.filter(|&(_, &value)| !self.unread.contains(&(key, value)));
        let sends: Vec<String> = kept
            .map(|(at, value)| match (kind, offset) {
                (Kind::Ok, Some(base)) => format!("[:send {key} [{} {value}]]", base + at),
                (Kind::Ok | Kind::Info, _) => format!("[:send {key} [nil {value}]]"),
                (Kind::Invoke | Kind::Fail, _) => format!("[:send {key} {value}]"),
            })
            .collect();
        (!sends.is_empty()).then(|| format!("[{}]", sends.join(" ")))
    }

    fn assigned(&mut self, op: &Op, f: &str, keys: &[Key]) -> io::Result<()> {
        if matches!(op.kind, Kind::Ok | Kind::Info) {
            let consumer = self.consumers.entry(op.process).or_default();
            consumer.held = keys.iter().copied().collect();
            consumer.next.retain(|key, _| keys.contains(key));
        }
        self.line(op, op.kind, f, &vector(keys))
    }

    /// Takes anew, before a poll, the keys in which it will not go on where the last one ended.
    fn seek(&mut self, invoked: &Op) -> io::Result<()> {
        let Some(completed) = self.completions.get(&invoked.index).copied() else {
            return Ok(());
        };
        let Action::Poll(poll) = &completed.action else {
            return Ok(());
        };
        let consumer = self.consumers.entry(invoked.process).or_default();
        let reads = poll.reads.iter();
        let moved = reads.filter(|(key, read)| {
            let Some(&(first, _)) = read.records.first() else {
                return false;
            };
            let stands = consumer.next.get(key);
            stands.is_some_and(|&(next, granted)| {
                let begun_anew = poll.sought || poll.is_final || granted != read.granted;
                let removed = first > next && read.log_start.is_some_and(|start| first <= start);
                begun_anew || removed
            })
        });
        let moved: BTreeSet<Key> = moved.map(|(key, _)| *key).collect();
        if moved.is_empty() {
            return Ok(());
        }
        consumer.held.extend(&moved);
        consumer.next.retain(|key, _| !moved.contains(key));
        let all: Vec<Key> = consumer.held.iter().copied().collect();
        let kept: Vec<Key> = consumer.held.difference(&moved).copied().collect();
        let f = if poll.group.is_some() {
            "subscribe"
        } else {
            "assign"
        };
        for keys in [kept, all] {
            for kind in [Kind::Invoke, Kind::Ok] {
                self.line(invoked, kind, f, &vector(&keys))?;
            }
        }
        Ok(())
    }

    /// Notes where a consumer stands after a poll.
    fn stand(&mut self, op: &Op, poll: &Poll) {
        if op.kind != Kind::Ok {
            return;
        }
        let consumer = self.consumers.entry(op.process).or_default();
        for (&key, read) in &poll.reads {
            if let Some(&(last, _)) = read.records.last() {
                let _new = consumer.held.insert(key);
                let _was = consumer.next.insert(key, (last + 1, read.granted));
            }
        }
    }

    fn line(&mut self, op: &Op, kind: Kind, f: &str, value: &str) -> io::Result<()> {
        let kind = match kind {
            Kind::Invoke => "invoke",
            Kind::Ok => "ok",
            Kind::Fail => "fail",
            Kind::Info => "info",
        };
        let process = match op.process {
            Process::Client(number) => number.to_string(),
            Process::Nemesis(_) => ":nemesis".to_owned(),
        };
        let (index, time) = (self.index, op.time);
        write!(
            self.out,
            "{{:index {index}, :time {time}, :process {process}, :type :{kind}, :f :{f}, :value {value}"
        )?;
        if let Some(node) = op.node {
            write!(self.out, ", :node \"n{node}\"")?;
        }
        if let Some(error) = &op.error {
            write!(self.out, ", :error {}", text(error))?;
        }
        self.index += 1;
        self.out.write_all(b"}\n")
    }
}

/// The micro-operation of a poll.
fn polled(kind: Kind, poll: &Poll) -> String {
    let pairs = |read: &Read| {
        let pairs = read.records.iter();
        let pairs: Vec<String> = pairs.map(|(o, v)| format!("[{o} {v}]")).collect();
        pairs.join(" ")
    };
    let read = poll
        .reads
        .iter()
        .filter(|(_, read)| !read.records.is_empty());
    let read: Vec<String> = read
        .map(|(key, read)| format!("{key} [{}]", pairs(read)))
        .collect();
    if kind == Kind::Ok || !read.is_empty() {
        format!("[[:poll {{{}}}]]", read.join(", "))
    } else {
        "[[:poll]]".to_owned()
    }
}

fn vector(keys: &[Key]) -> String {
    let keys: Vec<String> = keys.iter().map(Key::to_string).collect();
    format!("[{}]", keys.join(" "))
}

/// Letters, digits and dashes of a name.
fn keyword(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.chars().map(plain).collect()
}

/// A string that EDN's reader takes.
fn text(plain: &str) -> String {
    let mut quoted = String::from("\"");
    for c in plain.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _written = write!(quoted, "\\u{unit:04x}");
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::{Fault, Recorder, Trim};

    fn edn(ops: Vec<Op>) -> Vec<String> {
        let history = History {
            ops,
            ..History::default()
        };
        let mut out = Vec::new();
        history.write_edn(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        // Without what is the same in all of them.
        let short = |line: &str| line.replace(", :time 0", "").replace(", :process 0", "");
        text.lines().map(short).collect()
    }

    fn send(values: &[Value], offset: Option<i64>) -> Action {
        Action::Send(Send {
            key: 3,
            values: values.to_vec(),
            offset,
            ..Send::default()
        })
    }

    fn poll(from: i64, records: &[(i64, Value)], sought: bool) -> Action {
        let read = Read {
            records: records.to_vec(),
            log_start: Some(from),
            ..Read::default()
        };
        Action::Poll(Poll {
            reads: [(3, read)].into(),
            sought,
            ..Poll::default()
        })
    }

    fn did(recorder: &Recorder, invoked: Action, ended: Action) {
        let pending = recorder.invoke(Process::Client(0), None, invoked);
        recorder.ok(pending, ended);
    }

    #[test]
    fn sends_and_polls_are_lists_of_micro_operations() {
        let recorder = Recorder::new(|| Duration::ZERO);
        did(&recorder, send(&[7, 8], None), send(&[7, 8], Some(4)));
        let asked = || Action::Poll(Poll::default());
        did(&recorder, asked(), poll(0, &[(4, 7), (5, 8)], false));
        let pending = recorder.invoke(Process::Client(0), Some(2), asked());
        recorder.fail(pending, asked(), "no \"leader\"");
        let pending = recorder.invoke(Process::Client(0), None, send(&[9], None));
        let _over = recorder.info(pending, send(&[9], None), "");
        recorder.fault(Fault {
            id: 0,
            what: "power-loss".to_owned(),
            detail: "n1".to_owned(),
            phase: FaultPhase::Begin,
        });
        assert_eq!(
            edn(recorder.take()),
            [
                "{:index 0, :type :invoke, :f :send, :value [[:send 3 7] [:send 3 8]]}",
                "{:index 1, :type :ok, :f :send, :value [[:send 3 [4 7]] [:send 3 [5 8]]]}",
                "{:index 2, :type :invoke, :f :poll, :value [[:poll]]}",
                "{:index 3, :type :ok, :f :poll, :value [[:poll {3 [[4 7] [5 8]]}]]}",
                "{:index 4, :type :invoke, :f :poll, :value [[:poll]], :node \"n2\"}",
                "{:index 5, :type :fail, :f :poll, :value [[:poll]], :node \"n2\", \
                 :error \"no \\\"leader\\\"\"}",
                "{:index 6, :type :invoke, :f :send, :value [[:send 3 9]]}",
                "{:index 7, :type :info, :f :send, :value [[:send 3 [nil 9]]], :error \"\"}",
                "{:index 8, :process :nemesis, :type :info, :f :start-power-loss, :value \"n1\"}",
            ]
        );
    }

    #[test]
    fn what_never_completed_ends_in_doubt() {
        let recorder = Recorder::new(|| Duration::ZERO);
        let _open = recorder.invoke(Process::Client(0), Some(1), send(&[7], None));
        let asked = Action::Poll(Poll::default());
        let pending = recorder.invoke(Process::Client(1), None, asked);
        recorder.ok(pending, poll(0, &[(4, 7)], false));
        let lines = edn(recorder.take());
        assert_eq!(
            lines.last().unwrap(),
            "{:index 3, :type :info, :f :send, :value [[:send 3 [nil 7]]], :node \"n1\"}"
        );
    }

    #[test]
    fn a_seek_lets_go_of_the_key_and_takes_it_again() {
        let recorder = Recorder::new(|| Duration::ZERO);
        let asked = || Action::Poll(Poll::default());
        did(&recorder, asked(), poll(0, &[(4, 7)], true));
        did(&recorder, asked(), poll(0, &[(1, 2)], true));
        let lines = edn(recorder.take());
        assert_eq!(
            lines[2..7],
            [
                "{:index 2, :type :invoke, :f :assign, :value []}",
                "{:index 3, :type :ok, :f :assign, :value []}",
                "{:index 4, :type :invoke, :f :assign, :value [3]}",
                "{:index 5, :type :ok, :f :assign, :value [3]}",
                "{:index 6, :type :invoke, :f :poll, :value [[:poll]]}",
            ]
        );
    }

    #[test]
    fn what_was_removed_unread_is_left_out() {
        let recorder = Recorder::new(|| Duration::ZERO);
        did(&recorder, send(&[7, 8], None), send(&[7, 8], Some(0)));
        did(&recorder, send(&[9], None), send(&[9], Some(2)));
        let trim = |log_start| {
            Action::Trim(Trim {
                key: 3,
                before: 3,
                log_start,
            })
        };
        did(&recorder, trim(None), trim(Some(3)));
        did(
            &recorder,
            Action::Poll(Poll::default()),
            poll(0, &[(1, 8)], true),
        );
        let lines = edn(recorder.take());
        assert_eq!(lines.len(), 4);
        assert_eq!(
            lines[0],
            "{:index 0, :type :invoke, :f :send, :value [[:send 3 8]]}"
        );
        assert_eq!(
            lines[1],
            "{:index 1, :type :ok, :f :send, :value [[:send 3 [1 8]]]}"
        );
    }
}
