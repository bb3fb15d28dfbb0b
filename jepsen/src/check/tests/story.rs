//! Histories by hand: what happened, line by line.

use crate::history::{
    Action, Commit, Committed, Header, History, Key, Kind, Op, Poll, Process, Read, Register,
    RegisterOp, Replica, Send, Trim, Value,
};

/// A history in the making. Every entry is a second after the one before.
#[derive(Debug, Clone)]
pub(super) struct Story(pub(super) History);

/// An operation under way.
#[derive(Debug, Clone)]
pub(super) struct Open {
    process: u64,
    node: Option<u64>,
    action: Action,
}

/// The only key.
pub(super) const KEY: Key = 0;

impl Story {
    pub(super) fn new() -> Self {
        Self(History {
            header: Header {
                world: "story".to_owned(),
                keys: [(KEY, "events-0".to_owned())].into(),
                nodes: 3,
                recovery_max_ms: Some(100_000),
                ..Header::default()
            },
            ops: Vec::new(),
        })
    }

    pub(super) fn push(&mut self, process: Process, kind: Kind, action: Action, node: Option<u64>) {
        let index = u64::try_from(self.0.ops.len()).unwrap();
        self.0.ops.push(Op {
            index,
            time: index * 1_000_000_000,
            process,
            kind,
            action,
            node,
            error: None,
        });
    }

    pub(super) fn begin(&mut self, process: u64, node: Option<u64>, action: Action) -> Open {
        self.push(Process::Client(process), Kind::Invoke, action.clone(), node);
        Open {
            process,
            node,
            action,
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "an operation ends once")]
    pub(super) fn end(&mut self, open: Open, kind: Kind, action: Action) {
        self.push(Process::Client(open.process), kind, action, open.node);
    }

    /// Invoked and completed at once.
    pub(super) fn did(&mut self, process: u64, node: Option<u64>, action: Action) {
        let open = self.begin(process, node, action.clone());
        self.end(open, Kind::Ok, action);
    }

    pub(super) fn fault(&mut self, action: Action) {
        self.push(Process::NEMESIS, Kind::Info, action, None);
    }

    /// A send that is acknowledged by node 1 at once.
    pub(super) fn sent(&mut self, process: u64, values: &[Value], offset: i64) {
        let open = self.sending(process, values);
        self.acknowledge(open, offset);
    }

    pub(super) fn sending(&mut self, process: u64, values: &[Value]) -> Open {
        self.begin(process, Some(1), Action::Send(send(values)))
    }

    pub(super) fn acknowledge(&mut self, open: Open, offset: i64) {
        let Action::Send(mut send) = open.action.clone() else {
            panic!("no send");
        };
        send.offset = Some(offset);
        self.end(open, Kind::Ok, Action::Send(send));
    }

    /// A send that certainly did not happen.
    pub(super) fn refused(&mut self, process: u64, values: &[Value]) {
        let open = self.sending(process, values);
        let action = open.action.clone();
        self.end(open, Kind::Fail, action);
    }

    /// A send of which nothing was heard.
    pub(super) fn unanswered(&mut self, process: u64, values: &[Value]) {
        let open = self.sending(process, values);
        let action = open.action.clone();
        self.end(open, Kind::Info, action);
    }

    /// A poll that node 1 answers at once.
    pub(super) fn polled(&mut self, process: u64, records: &[(i64, Value)], high_watermark: i64) {
        self.read(process, 1, read(records, high_watermark));
    }

    pub(super) fn read(&mut self, process: u64, node: u64, read: Read) {
        let open = self.begin(process, Some(node), Action::Poll(Poll::default()));
        self.end(open, Kind::Ok, poll(read));
    }

    /// The final read of everything.
    pub(super) fn finally(&mut self, start: i64, values: &[Value]) {
        let records: Vec<_> = (start..).zip(values.iter().copied()).collect();
        let end = records.last().map_or(start, |&(offset, _)| offset + 1);
        let read = Read {
            log_start: Some(start),
            ..read(&records, end)
        };
        let Action::Poll(mut last) = poll(read) else {
            panic!("no poll");
        };
        last.is_final = true;
        let asked = Poll {
            is_final: true,
            ..Poll::default()
        };
        let open = self.begin(900, None, Action::Poll(asked));
        self.end(open, Kind::Ok, Action::Poll(last));
    }

    pub(super) fn trimmed(&mut self, process: u64, before: i64, log_start: i64) {
        let trim = Trim {
            key: KEY,
            before,
            log_start: Some(log_start),
        };
        self.did(process, Some(1), Action::Trim(trim));
    }

    pub(super) fn committed(&mut self, process: u64, granted: u64, offset: i64) {
        self.did(process, None, commit(process, granted, offset));
    }

    pub(super) fn saw(&mut self, process: u64, offset: Option<i64>) {
        let committed = Committed {
            group: "g".to_owned(),
            offsets: [(KEY, offset)].into(),
        };
        self.did(process, None, Action::Committed(committed));
    }

    pub(super) fn replica(&mut self, node: u64, digest: &str) {
        let replica = Replica {
            key: KEY,
            node,
            start: 0,
            end: 4,
            digest: Some(digest.to_owned()),
        };
        self.did(901, Some(node), Action::Replica(replica));
    }

    /// What a group gave a member to read.
    pub(super) fn given(&mut self, member: u64, granted: u64, records: &[(i64, Value)]) {
        let open = self.begin(member, Some(1), Action::Poll(Poll::default()));
        self.end(open, Kind::Ok, given(member, granted, records));
    }

    pub(super) fn verdict(&self) -> super::super::Verdict {
        super::super::check(&self.0)
    }

    /// The names of the properties that do not hold.
    pub(super) fn broken(&self) -> Vec<String> {
        let verdict = self.verdict();
        verdict.broken().map(|found| found.name.clone()).collect()
    }
}

pub(super) fn send(values: &[Value]) -> Send {
    Send {
        key: KEY,
        values: values.to_vec(),
        ..Send::default()
    }
}

pub(super) fn read(records: &[(i64, Value)], high_watermark: i64) -> Read {
    Read {
        records: records.to_vec(),
        high_watermark: Some(high_watermark),
        ..Read::default()
    }
}

pub(super) fn poll(read: Read) -> Action {
    Action::Poll(Poll {
        reads: [(KEY, read)].into(),
        ..Poll::default()
    })
}

pub(super) fn given(member: u64, granted: u64, records: &[(i64, Value)]) -> Action {
    Action::Poll(Poll {
        reads: [(
            KEY,
            Read {
                records: records.to_vec(),
                granted: Some(granted),
                ..Read::default()
            },
        )]
        .into(),
        group: Some("g".to_owned()),
        member: Some(member.to_string()),
        ..Poll::default()
    })
}

pub(super) fn commit(member: u64, granted: u64, offset: i64) -> Action {
    Action::Commit(Commit {
        group: "g".to_owned(),
        member: member.to_string(),
        granted: [(KEY, granted)].into(),
        offsets: [(KEY, offset)].into(),
    })
}

pub(super) fn register(op: RegisterOp) -> Action {
    Action::Register(Register { key: KEY, op })
}
