//! `seriatim consume --group` and `seriatim group`: the fixed forms, what is refused, and how they
//! end.
#![expect(clippy::unwrap_used, reason = "a test fails where it is wrong")]

mod common;

use std::process::Stdio;

use common::{Dev, Ended, ended, eventually, signal};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

/// A node with a topic of two partitions and ten records in one of them.
async fn filled() -> Dev {
    let node = Dev::start().await;
    let create = ["topic", "create", "t", "--partitions", "2"];
    let _created = node.run(&create).await.ok();
    // The same key, the same partition.
    let lines: String = (0..10)
        .map(|n| format!("{{\"k\":\"a\",\"n\":{n}}}\n"))
        .collect();
    let args = ["produce", "t", "--key-field", "k"];
    let _produced = node.feed(&args, lines.as_bytes()).await.ok();
    node
}

async fn describe(node: &Dev, group: &str) -> Value {
    let args = ["group", "describe", group, "--output", "json"];
    node.run(&args).await.ok().json()
}

/// Committed offset, end and lag of the partition that has the records.
fn progress(described: &Value) -> (Value, Value, Value) {
    let partitions = described["partitions"].as_array().unwrap();
    let full = partitions.iter().find(|p| p["end"] == 10).unwrap();
    let of = |name: &str| full[name].clone();
    (of("committed"), of("end"), of("lag"))
}

fn start(node: &Dev, args: &[&str]) -> Child {
    node.command(&[&["consume", "t", "--group", "g"], args].concat())
        .spawn()
        .unwrap()
}

/// Ends a member, which must leave and say that it was interrupted.
async fn interrupt(child: Child, with: Signal, code: i32) -> Ended {
    signal(&child, with);
    let ended = ended(child).await;
    assert_eq!(ended.code, Some(code), "{ended:?}");
    ended
}

#[tokio::test]
async fn a_group_goes_on_where_it_was() {
    let node = filled().await;
    let first = node
        .run(&["consume", "t", "--group", "g", "--count", "4"])
        .await
        .ok();
    assert_eq!(first.text().lines().count(), 4);
    assert!(
        first.text().starts_with("{\"k\":\"a\",\"n\":0}\n"),
        "{first:?}"
    );
    assert_eq!(
        progress(&describe(&node, "g").await),
        (json!(4), json!(10), json!(6))
    );

    let args = ["--output", "json"];
    let mut second = node
        .command(&[&["consume", "t", "--group", "g"], &args[..]].concat())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(second.stdout.take().unwrap()).lines();
    for offset in 4..10 {
        let line = lines.next_line().await.unwrap().unwrap();
        let record: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["offset"], offset);
    }
    // What was printed is committed, by itself and at the latest on the way out.
    let _ended = interrupt(second, Signal::TERM, 143).await;
    let described = describe(&node, "g").await;
    assert_eq!(progress(&described), (json!(10), json!(10), json!(0)));
    assert_eq!(
        (&described["state"], &described["members"]),
        (&json!("empty"), &json!([]))
    );
}

#[tokio::test]
async fn members_are_shown_with_what_they_own() {
    let node = filled().await;
    let members = [
        start(&node, &["--instance-id", "w1", "--session-timeout", "3s"]),
        start(&node, &["--reset", "end"]),
    ];
    let described = eventually("both own one", async || {
        let args = ["group", "describe", "g", "--output", "json"];
        let described = node.run(&args).await;
        let described = (described.code == Some(0)).then(|| described.json())?;
        let members = described["members"].as_array()?;
        let one = |m: &Value| m["assigned"].as_array().is_some_and(|all| all.len() == 1);
        (members.len() == 2 && members.iter().all(one)).then_some(described)
    })
    .await;
    let partitions = described["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 2);
    for partition in partitions {
        assert_eq!(
            (&partition["topic"], &partition["state"]),
            (&json!("t"), &json!("assigned"))
        );
        assert!(partition["member"].is_string());
    }
    let named = described["members"].as_array().unwrap();
    let named = named.iter().find(|m| m["instance"] == "w1").unwrap();
    assert_eq!(named["session_timeout_ms"], 3_000);
    assert_eq!(named["topics"], json!(["t"]));
    let table = node.run(&["group", "describe", "g"]).await.ok();
    for word in ["COMMITTED", "LAG", "2 members", "w1", "assigned"] {
        assert!(table.text().contains(word), "{word}: {table:?}");
    }
    let listed = node
        .run(&["group", "list", "--output", "json"])
        .await
        .ok()
        .json();
    assert_eq!(
        (&listed[0]["group"], &listed[0]["members"]),
        (&json!("g"), &json!(2))
    );

    // With members, only they move its offsets.
    let reset = ["group", "reset", "g", "--topic", "t", "--to-start"];
    let hint = "group describe";
    let _refused = node.run(&reset).await.failed(&["has members", hint]);
    let _refused = node
        .run(&["group", "delete", "g"])
        .await
        .failed(&["has members", hint]);
    for (member, (with, code)) in members
        .into_iter()
        .zip([(Signal::INT, 130), (Signal::TERM, 143)])
    {
        let ended = interrupt(member, with, code).await;
        assert!(ended.err.contains("assigned: t-"), "{ended:?}");
    }
    // The one with a name keeps its place for its session timeout.
    eventually("the group is empty", async || {
        (describe(&node, "g").await["state"] == "empty").then_some(())
    })
    .await;
    let deleted = node
        .run(&["group", "delete", "g", "--output", "json"])
        .await
        .ok();
    assert_eq!(deleted.json(), json!({"group": "g", "deleted": true}));
}

#[tokio::test]
async fn offsets_are_reset() {
    let node = filled().await;
    let read = ["consume", "t", "--group", "g", "--count", "7"];
    let _read = node.run(&read).await.ok();
    let full = |json: &Value| {
        let changes = json["changes"].as_array().unwrap().clone();
        let full = changes.into_iter().find(|c| !c["before"].is_null());
        let full = full.unwrap();
        (
            full["before"].clone(),
            full["after"].clone(),
            full["nearest"].clone(),
        )
    };
    for (to, after, nearest) in [
        (&["--to-start"][..], 0, false),
        (&["--to-end"], 10, false),
        (&["--to-offset", "4"], 4, false),
        (&["--to-offset", "99"], 10, true),
        (&["--to-time", "2013-01-15"], 0, false),
        (&["--to-time", "2999-01-01"], 10, false),
        (&["--by-duration", "1h"], 0, false),
        (&["--shift-by", "-3"], 4, false),
        (&["--shift-by", "100"], 10, true),
    ] {
        let base = [
            "group",
            "reset",
            "g",
            "--topic",
            "t",
            "--output",
            "json",
            "--dry-run",
        ];
        let dry = node.run(&[&base[..], to].concat()).await.ok();
        assert!(dry.err.contains("nothing was changed"), "{dry:?}");
        assert_eq!(
            full(&dry.json()),
            (json!(7), json!(after), json!(nearest)),
            "{to:?}"
        );
    }
    assert_eq!(
        progress(&describe(&node, "g").await).0,
        7,
        "all of that was a rehearsal"
    );
    let reset = ["group", "reset", "g", "--topic", "t", "--shift-by", "-3"];
    let table = node.run(&reset).await.ok();
    assert!(
        table.text().contains("BEFORE") && table.text().contains('7'),
        "{table:?}"
    );
    let (committed, _, lag) = progress(&describe(&node, "g").await);
    assert_eq!((committed, lag), (json!(4), json!(6)));
    let one = node
        .run(&["consume", "t", "--group", "g", "--count", "1"])
        .await
        .ok();
    assert!(one.text().contains("\"n\":4"), "{one:?}");
}

/// A command line as its words.
fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[tokio::test]
async fn what_cannot_be_says_why() {
    let node = filled().await;
    for (line, parts) in [
        ("group describe nope", &["no such group", "group list"][..]),
        ("group delete nope", &["no such group"]),
        ("group describe ", &["not a group id"]),
        (
            "group reset g --topic nope --to-start",
            &["topic 'nope' does not exist", "topic list"],
        ),
        (
            "group reset g --topic t --partition 9 --to-end",
            &["partition 9 does not exist"],
        ),
        ("consume nope --group g", &["topic 'nope' does not exist"]),
        (
            "consume t --group g --session-timeout 1s",
            &["session timeout is 3s to 1800s"],
        ),
        (
            "consume t --group g --reset fail",
            &["has no offset for t-", "reset policy"],
        ),
    ] {
        let _failed = node.run(&words(line)).await.failed(parts);
    }
    let gone = words("group delete nope --if-exists --output json");
    let gone = node.run(&gone).await.ok().json();
    assert_eq!(gone, json!({"group": "nope", "deleted": false}));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_asked() {
    let node = filled().await;
    for line in [
        "group reset g --topic t",
        "group reset g --to-start",
        "group reset g --topic t --to-start --to-end",
        "group reset g --topic t --to-offset -1",
        "group reset g --topic t --to-time tomorrow",
        "consume t --group g --from start",
        "consume t --group g --partition 1",
        "consume t --reset end",
        "consume t --instance-id x",
    ] {
        let refused = node.run(&words(line)).await;
        assert_eq!(refused.code, Some(2), "{line}");
    }
}

/// A member that nobody reads from keeps its session, and gives up what it could not print.
#[tokio::test]
async fn a_reader_that_goes_away_ends_the_member() {
    let node = filled().await;
    let mut member = start(&node, &[]);
    let mut lines = BufReader::new(member.stdout.take().unwrap()).lines();
    let _first = lines.next_line().await.unwrap().unwrap();
    drop(lines);
    let ended = ended(member).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(describe(&node, "g").await["state"], "empty");
}
