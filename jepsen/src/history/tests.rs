//! Histories survive being written and read, and what is no history is refused with its place.

use std::time::Duration;

use super::{
    Action, Commit, Committed, Fault, FaultPhase, Header, History, Kind, Poll, Process, Read,
    Recorder, Register, RegisterOp, Replica, Send, Topic, Trim, Workload, operations,
};

fn header() -> Header {
    Header {
        world: "test".to_owned(),
        keys: [(0, "events-0".to_owned()), (7, "events-1".to_owned())].into(),
        nodes: 3,
        seed: Some(5),
        workloads: [Workload::Append, Workload::GroupConsume].into(),
        ..Header::default()
    }
}

fn poll() -> Poll {
    Poll {
        reads: [(
            7,
            Read {
                records: vec![(4, 1), (5, 2)],
                high_watermark: Some(6),
                log_start: Some(0),
                granted: Some(2),
            },
        )]
        .into(),
        from: [(7, 4)].into(),
        sought: true,
        is_final: true,
        group: Some("g".to_owned()),
        member: Some("m".to_owned()),
    }
}

/// An action of every kind but the two most frequent.
fn others() -> Vec<Action> {
    let commit = Commit {
        group: "g".to_owned(),
        member: "m".to_owned(),
        granted: [(7, 2)].into(),
        offsets: [(7, 6)].into(),
    };
    let committed = Committed {
        group: "g".to_owned(),
        offsets: [(0, None), (7, Some(6))].into(),
    };
    let register = |op| Action::Register(Register { key: 0, op });
    let topic = Topic {
        topic: "t".to_owned(),
        partitions: 3,
    };
    let trim = Trim {
        key: 0,
        before: 3,
        log_start: Some(3),
    };
    let replica = Replica {
        key: 0,
        node: 1,
        start: 3,
        end: 9,
        digest: Some("abc".to_owned()),
    };
    vec![
        Action::Assign(vec![0, 7]),
        Action::Subscribe(vec![7]),
        Action::Crash,
        Action::Commit(commit),
        Action::Committed(committed),
        Action::Trim(trim),
        register(RegisterOp::Read(None)),
        register(RegisterOp::Write(3)),
        register(RegisterOp::Cas(Some(3), 4)),
        Action::CreateTopic(topic.clone()),
        Action::DeleteTopic(topic),
        Action::Replica(replica),
        Action::Recover,
    ]
}

/// One entry or more of every kind.
fn everything() -> History {
    let recorder = Recorder::new(|| Duration::from_millis(3));
    let a = recorder.process();
    let send = |offset| {
        Action::Send(Send {
            key: 7,
            values: vec![1, 2],
            offset,
            expected_end: Some(4),
            producer: Some(9),
            found_end: None,
        })
    };
    let pending = recorder.invoke(a, Some(1), send(None));
    recorder.ok(pending.at(2), send(Some(4)));
    let pending = recorder.invoke(a, Some(1), Action::Poll(Poll::default()));
    recorder.ok(pending, Action::Poll(poll()));
    for action in others() {
        let pending = recorder.invoke(a, None, action.clone());
        recorder.ok(pending, action);
    }
    let pending = recorder.invoke(a, None, send(None));
    recorder.fail(pending, send(None), "no leader");
    let pending = recorder.invoke(a, None, send(None));
    let b = recorder.info(pending, send(None), "no answer");
    assert_ne!(
        a, b,
        "a process whose operation may yet take effect is over"
    );
    recorder.fault(Fault {
        id: recorder.fault_id(),
        what: "kill".to_owned(),
        detail: "n1".to_owned(),
        phase: FaultPhase::Begin,
    });
    recorder.impossible("two and two make five");
    History {
        header: header(),
        ops: recorder.take(),
    }
}

fn text(history: &History) -> String {
    let mut bytes = Vec::new();
    history.write(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn refused(text: &str) -> String {
    let error = History::read("h.jsonl", text.as_bytes()).expect_err("no history");
    error.to_string()
}

/// A history of these lines after a header.
fn lines(lines: &[&str]) -> String {
    let header = serde_json::to_string(&header()).unwrap();
    [&[header.as_str()], lines].concat().join("\n")
}

#[test]
fn what_is_written_is_read_again() {
    let history = everything();
    let text = text(&history);
    let again = History::read("h", text.as_bytes()).unwrap();
    assert_eq!(again, history);
    let line = text.lines().nth(2).unwrap();
    assert_eq!(
        line,
        r#"{"index":1,"time":3000000,"process":0,"type":"ok","f":"send","value":{"key":7,"values":[1,2],"offset":4,"expected_end":4,"producer":9},"node":2}"#
    );
}

#[test]
fn completions_find_their_invocations() {
    let history = everything();
    let operations = operations(&history.ops);
    assert_eq!(operations.len(), 17);
    let first = operations.first().unwrap();
    assert_eq!((first.end(), first.over_at()), (Kind::Ok, 1));
    assert_eq!(first.node(), Some(2), "the node that answered");
    let last = operations.last().unwrap();
    assert_eq!((last.end(), last.over_at()), (Kind::Info, u64::MAX));
    assert_eq!(last.process(), Process::Client(0));
}

#[test]
fn what_is_no_history_is_refused_with_its_place() {
    assert_eq!(
        refused(""),
        "h.jsonl:1: the file is empty; its first line is the header"
    );
    let foreign = refused(r#"{"format":"x","version":1,"world":"w","keys":{},"nodes":1}"#);
    assert_eq!(
        foreign,
        r#"h.jsonl:1: the format is "x", expected "seriatim-history""#
    );
    let newer =
        refused(r#"{"format":"seriatim-history","version":9,"world":"w","keys":{},"nodes":1}"#);
    assert_eq!(
        newer,
        "h.jsonl:1: version 9 of the format, this program reads version 1"
    );
    let garbage = refused(&lines(&["{"]));
    assert!(
        garbage.starts_with("h.jsonl:2: not an entry: EOF"),
        "{garbage}"
    );
    let unknown =
        lines(&[r#"{"index":0,"time":0,"process":0,"type":"invoke","f":"fly","value":1}"#]);
    let unknown = refused(&unknown);
    assert!(
        unknown
            .starts_with("h.jsonl:2: not an entry: unknown variant `fly`, expected one of `send`"),
        "{unknown}"
    );
    let key =
        lines(&[r#"{"index":0,"time":0,"process":0,"type":"invoke","f":"assign","value":[3]}"#]);
    assert_eq!(
        refused(&key),
        "h.jsonl:2: key 3 is not among the header's [0, 7]"
    );
}

#[test]
fn entries_out_of_order_are_refused() {
    let entry = |index: u64, time: u64, process: &str, kind: &str, f: &str| {
        let value = if f == "crash" { "" } else { r#","value":[0]"# };
        format!(
            r#"{{"index":{index},"time":{time},"process":{process},"type":"{kind}","f":"{f}"{value}}}"#
        )
    };
    let refuse = |entries: &[String]| {
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        refused(&lines(&entries))
    };
    let first = entry(0, 5, "0", "invoke", "assign");
    assert_eq!(
        refuse(&[entry(1, 5, "0", "invoke", "assign")]),
        "h.jsonl:2: index 1 where 0 was expected"
    );
    assert_eq!(
        refuse(&[first.clone(), entry(1, 4, "0", "ok", "assign")]),
        "h.jsonl:3: time 4 after 5: times never go back"
    );
    assert_eq!(
        refuse(&[first.clone(), entry(1, 5, "0", "invoke", "assign")]),
        "h.jsonl:3: process 0 invokes an operation while that of entry 0 is under way"
    );
    assert_eq!(
        refuse(&[first.clone(), entry(1, 5, "1", "ok", "assign")]),
        "h.jsonl:3: process 1 completes an operation that it did not invoke"
    );
    assert_eq!(
        refuse(&[first.clone(), entry(1, 5, "0", "ok", "crash")]),
        "h.jsonl:3: the operation that process 0 invoked in entry 0 has another f"
    );
    let info = entry(1, 5, "0", "info", "assign");
    let again = refuse(&[first, info, entry(2, 5, "0", "invoke", "assign")]);
    assert!(
        again.starts_with("h.jsonl:4: process 0 acts again"),
        "{again}"
    );
    let nemesis = refuse(&[entry(0, 0, r#""nemesis""#, "ok", "crash")]);
    assert_eq!(
        nemesis,
        "h.jsonl:2: entries of the nemesis are of type info"
    );
}
