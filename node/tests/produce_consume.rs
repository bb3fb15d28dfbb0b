//! `seriatim produce` and `seriatim consume`: the fixed forms, what is refused, and how they end.

mod common;

use std::{fs, process::Stdio};

use common::{Dev, Ended, acknowledged, ended, eventually, signal};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

async fn read_all(node: &Dev, topic: &str) -> Vec<Value> {
    let args = [
        "consume", topic, "--from", "start", "--until", "end", "--output", "json",
    ];
    node.run(&args).await.ok().lines()
}

#[tokio::test]
async fn records_have_the_fixed_form() {
    let node = Dev::start().await;
    let create = ["topic", "create", "t", "--partitions", "3"];
    let _created = node.run(&create).await.ok();
    let file = node.folder.path().join("acked");
    let args = [
        "produce",
        "t",
        "--key-field",
        "k",
        "--acknowledged",
        file.to_str().unwrap(),
    ];
    let input = b"{\"k\":\"a\",\"n\":0}\n{\"k\":7}\r\n{\"k\":null}\n{\"k\":\"a\",\"n\":3}";
    let produced = node.feed(&args, input).await.ok();
    assert!(
        produced.text().contains("4 records acknowledged"),
        "{produced:?}"
    );

    let acked = acknowledged(&fs::read_to_string(&file).unwrap());
    assert_eq!(acked.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
    let records = read_all(&node, "t").await;
    assert_eq!(records.len(), 4);
    let at = |line: u64| {
        let (partition, offset) = acked[&line];
        let here = |r: &&Value| r["partition"] == partition && r["offset"] == offset;
        records.iter().find(here).unwrap()
    };
    assert_eq!(at(0)["key"], "a");
    assert_eq!(at(0)["value"], "{\"k\":\"a\",\"n\":0}");
    assert_eq!(at(1)["key"], "7");
    assert_eq!(at(1)["value"], "{\"k\":7}");
    assert_eq!(at(2)["key"], Value::Null);
    assert_eq!(at(3)["partition"], at(0)["partition"]);
    assert_eq!(at(0)["headers"], json!([]));
    assert!(at(0)["timestamp"].as_i64().unwrap() > 1_500_000_000_000);
    let fields: Vec<_> = at(0).as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "headers",
            "key",
            "offset",
            "partition",
            "timestamp",
            "value"
        ]
    );

    // What is not UTF-8 comes as base64.
    let _created = node.run(&["topic", "create", "bytes"]).await.ok();
    let _produced = node.feed(&["produce", "bytes"], b"\xff\xfe\n\n").await.ok();
    let records = read_all(&node, "bytes").await;
    assert_eq!(records[0]["value_base64"], "//4=");
    assert_eq!(records[0].get("value"), None);
    assert_eq!(records[1]["value"], "");
}

#[tokio::test]
async fn positions_and_counts() {
    let node = Dev::start().await;
    let _created = node.run(&["topic", "create", "t"]).await.ok();
    let _produced = node.feed(&["produce", "t"], b"a\nb\nc\nd\n").await.ok();
    for (from, expected) in [
        (&["--from", "start", "--until", "end"][..], "a\nb\nc\nd\n"),
        (&["--from", "2", "--until", "end"], "c\nd\n"),
        (&["--from", "start", "--count", "3"], "a\nb\nc\n"),
        (&["--from", "1", "--count", "1"], "b\n"),
        (&["--from", "end", "--until", "end"], ""),
        (&["--from", "2013-01-15", "--count", "1"], "a\n"),
        (&["--from", "@1358208000", "--count", "1"], "a\n"),
        (&["--from", "-1h", "--until", "end"], "a\nb\nc\nd\n"),
        (&["--from", "2999-01-01T00:00:00Z", "--until", "end"], ""),
        (
            &["--from", "start", "--partition", "0", "--count", "1"],
            "a\n",
        ),
    ] {
        let read = node.run(&[&["consume", "t"], from].concat()).await.ok();
        assert_eq!(read.text(), expected, "{from:?}");
    }
    let bad = node.run(&["consume", "t", "--from", "-5"]).await;
    assert_eq!(bad.code, Some(2));
    assert!(bad.err.contains("an offset is 0 or more"), "{bad:?}");
    let args = ["consume", "t", "--partition", "3"];
    let _none = node
        .run(&args)
        .await
        .failed(&["has no partition 3", "0 to 0"]);
    let args = ["consume", "t", "--from", "99", "--count", "1"];
    let _beyond = node.run(&args).await.failed(&["offset 99 is outside"]);
}

#[tokio::test]
async fn what_cannot_be_a_record_is_named() {
    let node = Dev::start().await;
    let _created = node.run(&["topic", "create", "t"]).await.ok();
    let file = node.folder.path().join("acked");
    let keyed = [
        "produce",
        "t",
        "--key-field",
        "k",
        "--acknowledged",
        file.to_str().unwrap(),
    ];

    let bad = node.feed(&keyed, b"{\"k\":1}\nno\n{\"k\":2}\n").await;
    let _bad = bad.failed(&["line 1", "not a JSON object", "column 2"]);
    assert_eq!(acknowledged(&fs::read_to_string(&file).unwrap()).len(), 1);
    let missing = node.feed(&keyed, b"{\"k\":1}\n{\"j\":2}\n").await;
    let _missing = missing.failed(&["line 1", "no field 'k'", "--key-optional"]);
    let optional = [&keyed[..], &["--key-optional"]].concat();
    let _accepted = node.feed(&optional, b"{\"k\":1}\n{\"j\":2}\n").await.ok();

    let mut huge = b"first\n".to_vec();
    huge.resize(17 << 20, b'x');
    huge.extend_from_slice(b"\nafter\n");
    let refused = node.feed(&["produce", "t"], &huge).await;
    let refused = refused.failed(&["line 1", "the limit is"]);
    assert!(
        refused.text().contains("1 records acknowledged"),
        "{refused:?}"
    );
    let values: Vec<_> = read_all(&node, "t").await;
    assert_eq!(values.len(), 5);
    assert_eq!(values[4]["value"], "first");

    let folder = node.folder.path().to_str().unwrap();
    let _folder = node
        .run(&["produce", "t", "--file", folder])
        .await
        .failed(&["is a folder"]);
    let _none = node
        .run(&["produce", "t", "--file", "/nope"])
        .await
        .failed(&["open /nope"]);
    let args = ["produce", "t", "--acknowledged", "/nope/x"];
    let _none = node.run(&args).await.failed(&["create /nope/x"]);
}

#[tokio::test]
async fn an_unknown_topic_names_the_command_that_creates_it() {
    let node = Dev::start().await;
    let hint = "seriatim topic create nosuch";
    let produced = node.feed(&["produce", "nosuch"], b"x\n").await;
    let produced = produced.failed(&["topic 'nosuch' does not exist", hint]);
    assert_eq!(produced.text(), "");
    for verb in [&["consume", "nosuch"][..], &["topic", "describe", "nosuch"]] {
        let _failed = node
            .run(verb)
            .await
            .failed(&["topic 'nosuch' does not exist", hint]);
    }
}

/// A record that the file names is in the log, whenever the producer died.
#[tokio::test]
async fn acknowledgements_survive_a_kill_of_the_producer() {
    let node = Dev::start().await;
    let _created = node
        .run(&["topic", "create", "t", "--partitions", "2"])
        .await
        .ok();
    let file = node.folder.path().join("acked");
    let args = [
        "produce",
        "t",
        "--rate",
        "200",
        "--acknowledged",
        file.to_str().unwrap(),
    ];
    let mut child = node.command(&args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = (0..2000).map(|n| format!("event {n}\n")).collect();
    stdin.write_all(lines.as_bytes()).await.unwrap();
    eventually("some are acknowledged", async || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        (text.lines().count() >= 20).then_some(())
    })
    .await;
    signal(&child, Signal::KILL);
    assert_eq!(ended(child).await.code, None);
    let text = fs::read_to_string(&file).unwrap();
    let complete = text.rsplit_once('\n').map_or("", |(lines, _cut)| lines);
    let records = read_all(&node, "t").await;
    for (line, (partition, offset)) in acknowledged(complete) {
        let here = |r: &&Value| r["partition"] == partition && r["offset"] == offset;
        let record = records.iter().find(here).unwrap();
        assert_eq!(record["value"], format!("event {line}"));
    }
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_command_quietly() {
    let node = Dev::start().await;
    let _created = node.run(&["topic", "create", "t"]).await.ok();
    let _produced = node.feed(&["produce", "t"], b"a\nb\n").await.ok();
    // It waits for more records when its reader leaves: nothing will be written.
    let mut child = node
        .command(&["consume", "t", "--from", "start"])
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(out.next_line().await.unwrap().as_deref(), Some("a"));
    drop(out);
    let left = ended(child).await.ok();
    assert_eq!(left.err, "");
}

#[tokio::test]
async fn ctrl_c_ends_with_130_and_whole_lines() {
    let node = Dev::start().await;
    let _created = node.run(&["topic", "create", "t"]).await.ok();
    let interrupted = |ended: Ended| {
        assert_eq!(
            (ended.code, ended.err.as_str()),
            (Some(130), "interrupted\n")
        );
        ended
    };

    let args = ["produce", "t", "--output", "json"];
    let mut producer = node.command(&args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = producer.stdin.take().unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    let mut consumer = node
        .command(&["consume", "t", "--from", "start"])
        .spawn()
        .unwrap();
    let mut out = BufReader::new(consumer.stdout.take().unwrap()).lines();
    // A typed line goes out at once.
    assert_eq!(out.next_line().await.unwrap().as_deref(), Some("one"));

    signal(&producer, Signal::INT);
    let produced = interrupted(ended(producer).await);
    assert_eq!(produced.json()["acknowledged"], 1);
    signal(&consumer, Signal::INT);
    let _consumed = interrupted(ended(consumer).await);
}
