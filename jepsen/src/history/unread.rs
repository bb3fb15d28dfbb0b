//! Acknowledged values that nobody could read to the end. Jepsen's workload knows neither retention nor
//! topics that are deleted, and demands that every acknowledged value is read.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Action, History, Key, Kind, Op, Poll, Value};

/// Values that were removed before anybody read them, and those at the end of a deleted topic.
pub(super) fn of(history: &History) -> HashSet<(Key, Value)> {
    let read = Reads::new(&history.ops);
    let deleted = deleted(history);
    let mut unread = HashSet::new();
    for op in history.ops.iter().filter(|op| op.kind == Kind::Ok) {
        let Action::Send(send) = &op.action else {
            continue;
        };
        let Some(base) = send.offset else { continue };
        let key = send.key;
        let start = read.starts.get(&key).copied().unwrap_or_default();
        // Without a last read of everything, nobody knows what stood behind what was read.
        let end = read.ends.get(&key).copied().unwrap_or_default();
        let is_tail = deleted.contains(&key) && !read.finals.contains(&key);
        let places = (base..).zip(&send.values);
        let left_out = places.filter(|&(offset, &value)| {
            offset < start && !read.values.contains(&(key, value)) || is_tail && offset >= end
        });
        unread.extend(left_out.map(|(_, &value)| (key, value)));
    }
    unread
}

/// What all polls together have seen.
#[derive(Default)]
struct Reads {
    /// The highest log starts that were named.
    starts: BTreeMap<Key, i64>,
    /// The offsets behind the highest ones that were read.
    ends: BTreeMap<Key, i64>,
    values: HashSet<(Key, Value)>,
    /// Keys that were read to the end, when everything was over.
    finals: BTreeSet<Key>,
}

impl Reads {
    fn new(ops: &[Op]) -> Self {
        let mut reads = Self::default();
        for op in ops {
            match &op.action {
                Action::Poll(poll) => reads.take(poll),
                Action::Trim(trim) => reads.begins(trim.key, trim.log_start),
                _ => {}
            }
        }
        reads
    }

    fn take(&mut self, poll: &Poll) {
        for (&key, read) in &poll.reads {
            self.begins(key, read.log_start);
            let end = self.ends.entry(key).or_default();
            for &(offset, value) in &read.records {
                *end = (offset + 1).max(*end);
                let _new = self.values.insert((key, value));
            }
            if poll.is_final {
                let _new = self.finals.insert(key);
            }
        }
    }

    fn begins(&mut self, key: Key, start: Option<i64>) {
        let highest = self.starts.entry(key).or_default();
        *highest = start.unwrap_or_default().max(*highest);
    }
}

/// The keys of topics that were deleted, or may have been.
fn deleted(history: &History) -> BTreeSet<Key> {
    let mut topics = BTreeSet::new();
    for op in &history.ops {
        if let Action::DeleteTopic(topic) = &op.action
            && matches!(op.kind, Kind::Ok | Kind::Info)
        {
            let _new = topics.insert(topic.topic.as_str());
        }
    }
    let header = &history.header;
    let of_deleted = |key: &Key| {
        header
            .topic(*key)
            .is_some_and(|topic| topics.contains(topic))
    };
    header.keys.keys().copied().filter(of_deleted).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::{Header, Process, Read, Recorder, Send, Topic};

    const KEY: Key = 3;

    fn send(values: &[Value], offset: Option<i64>) -> Action {
        Action::Send(Send {
            key: KEY,
            values: values.to_vec(),
            offset,
            ..Send::default()
        })
    }

    fn poll(records: &[(i64, Value)], is_final: bool) -> Action {
        let read = Read {
            records: records.to_vec(),
            ..Read::default()
        };
        Action::Poll(Poll {
            reads: [(KEY, read)].into(),
            is_final,
            ..Poll::default()
        })
    }

    fn recorder() -> Recorder {
        Recorder::new(|| Duration::ZERO)
    }

    fn did(recorder: &Recorder, invoked: Action, ended: Action) {
        let pending = recorder.invoke(Process::Client(0), None, invoked);
        recorder.ok(pending, ended);
    }

    fn unread(recorder: &Recorder, name: &str) -> Vec<Value> {
        let header = Header {
            keys: [(KEY, name.to_owned())].into(),
            ..Header::default()
        };
        let ops = recorder.take();
        let mut values: Vec<Value> = of(&History { header, ops })
            .into_iter()
            .map(|it| it.1)
            .collect();
        values.sort_unstable();
        values
    }

    /// A gap below what was read is a loss all the same.
    #[test]
    fn the_end_of_a_deleted_topic() {
        for (name, deleted, is_final, expected) in [
            ("fleeting-1#2-0", "fleeting-1", false, vec![9]),
            ("fleeting-1-0", "fleeting-1", false, vec![9]),
            ("fleeting-1#2-0", "fleeting-1", true, vec![]),
            ("fleeting-1#2-0", "fleeting", false, vec![]),
        ] {
            let recorder = recorder();
            did(
                &recorder,
                send(&[6, 7, 8, 9], None),
                send(&[6, 7, 8, 9], Some(0)),
            );
            did(
                &recorder,
                poll(&[], is_final),
                poll(&[(0, 6), (2, 8)], is_final),
            );
            let topic = Action::DeleteTopic(Topic {
                topic: deleted.to_owned(),
                partitions: 1,
            });
            let pending = recorder.invoke(Process::Client(0), None, topic.clone());
            let _in_doubt = recorder.info(pending, topic, "no answer");
            assert_eq!(
                unread(&recorder, name),
                expected,
                "{name} {deleted} {is_final}"
            );
        }
    }
}
