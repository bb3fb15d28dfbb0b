//! Topics, cluster status, offline logs, the configuration of a node: through the command line.

mod common;

use std::fs;

use common::{Dev, command, ended, free_addresses, signal};
use rustix::process::Signal;
use serde_json::{Value, json};

#[tokio::test]
async fn topics_from_create_to_delete() {
    let node = Dev::start().await;
    let create = [
        "topic",
        "create",
        "t",
        "--partitions",
        "2",
        "--set",
        "durability=os",
    ];
    let created = node.run(&create).await.ok();
    assert!(
        created.text().contains("2 partitions and 1 replicas"),
        "{created:?}"
    );
    let _again = node
        .run(&create)
        .await
        .failed(&["topic 't' exists already"]);
    let unless = [&create[..], &["--if-not-exists", "--output", "json"]].concat();
    let again = node.run(&unless);
    let expected = json!({"topic": "t", "partitions": 2, "replicas": 1, "created": false});
    assert_eq!(again.await.ok().json(), expected);

    let described = node
        .run(&["topic", "describe", "t", "--output", "json"])
        .await
        .ok()
        .json();
    assert_eq!(described["settings"]["durability"], "os");
    assert_eq!(described["partitions"][1]["leader"], 1);
    let altered = node.run(&[
        "topic",
        "alter",
        "t",
        "--set",
        "durability=",
        "--output",
        "json",
    ]);
    assert_eq!(altered.await.ok().json()["settings"]["durability"], "fsync");
    let listed = node
        .run(&["topic", "list", "--output", "json"])
        .await
        .ok()
        .json();
    assert_eq!(listed[0]["topic"], "t");

    let _deleted = node.run(&["topic", "delete", "t"]).await.ok();
    let gone = node
        .run(&["topic", "delete", "t", "--if-exists", "--output", "json"])
        .await;
    assert_eq!(gone.ok().json()["deleted"], false);
}

#[tokio::test]
async fn topics_that_cannot_be_say_why() {
    let node = Dev::start().await;
    for (args, expected) in [
        (
            &["create", "x", "--replicas", "3"][..],
            "3 replicas need 3 nodes",
        ),
        (&["create", "a/b"], "'/' is none"),
        (
            &["create", "x", "--set", "durabilty=os"],
            "unknown topic setting 'durabilty'",
        ),
        (&["create", "x", "--set", "durability=no"], "fsync or os"),
        (&["alter", "x", "--set", "durability=os"], "no topic 'x'"),
        (&["delete", "x"], "seriatim topic list"),
    ] {
        let _failed = node
            .run(&[&["topic"], args].concat())
            .await
            .failed(&[expected]);
    }
    for args in [
        &["create", "x", "--partitions", "0"][..],
        &["create", "x", "--partitions", "10001"],
        &["create", "x", "--replicas", "0"],
        &["create", "x", "--set", "durability"],
        &["alter", "x"],
    ] {
        assert_eq!(
            node.run(&[&["topic"], args].concat()).await.code,
            Some(2),
            "{args:?}"
        );
    }
}

#[tokio::test]
async fn status_has_the_fixed_form() {
    let node = Dev::start().await;
    let _created = node
        .run(&["topic", "create", "t", "--partitions", "2"])
        .await
        .ok();
    let _produced = node.feed(&["produce", "t"], b"a\n").await.ok();
    let status = node
        .run(&["cluster", "status", "--output", "json"])
        .await
        .ok()
        .json();
    let partitions = status["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 2);
    for (number, partition) in partitions.iter().enumerate() {
        assert_eq!(partition["topic"], "t");
        assert_eq!(partition["partition"], number);
        assert_eq!(partition["leader"], 1);
        assert!(partition["term"].as_i64().unwrap() >= 1);
        assert_eq!(partition["replicas"][0]["node"], 1);
        assert_eq!(partition["replicas"][0]["lag"], 0);
        assert_eq!(partition["replicas"][0]["state"], "running");
        assert_eq!(partition["available"], true);
    }
    let ends: i64 = partitions
        .iter()
        .map(|p| p["high_watermark"].as_i64().unwrap())
        .sum();
    assert_eq!(ends, 1);
    assert_eq!(
        (&status["under_replicated"], &status["leaderless"]),
        (&json!(0), &json!(0))
    );
    let table = node.run(&["cluster", "status"]).await.ok();
    assert!(
        table.text().contains("2 partitions, 0 under-replicated"),
        "{table:?}"
    );
}

#[tokio::test]
async fn nobody_there_is_told_in_time() {
    let [nobody] = free_addresses();
    let args = ["topic", "list", "--servers", nobody.as_str()];
    let failed = ended(command(&args).spawn().unwrap()).await;
    let failed = failed.failed(&[&nobody, "refused", "seriatim start", "SERIATIM_SERVERS"]);
    assert_eq!(failed.text(), "");
}

#[tokio::test]
async fn offline_logs_are_verified_and_dumped() {
    let node = Dev::start().await;
    let _created = node.run(&["topic", "create", "t"]).await.ok();
    let lines: String = (0..2000).map(|n| format!("event {n}\n")).collect();
    let _produced = node.feed(&["produce", "t"], lines.as_bytes()).await.ok();
    let data = node.data_dir();
    let dir = data.to_str().unwrap();
    let _in_use = node
        .run(&["log", "verify", dir])
        .await
        .failed(&["in use by another process"]);
    let (folder, stopped) = node.stop().await;
    // Its log is JSON, a line an event.
    assert_eq!((stopped.code, stopped.out.len()), (Some(0), 0));
    for line in stopped.err.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        for field in ["timestamp", "level", "target", "message"] {
            assert!(event[field].is_string(), "{field}: {line}");
        }
    }

    let run = async |args: &[&str]| ended(command(args).spawn().unwrap()).await;
    let clean = run(&["log", "verify", dir, "--output", "json"])
        .await
        .ok()
        .json();
    assert_eq!(
        (&clean["clean"], &clean["damage"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(clean["records"], 2000);
    let frames = run(&["log", "dump", dir, "--log", "g1-r2", "--output", "json"]).await;
    let _unknown = run(&["log", "dump", dir, "--log", "g9-r9"])
        .await
        .failed(&["no log g9-r9"]);
    let _other = run(&["log", "verify", "/tmp"])
        .await
        .failed(&["not the data folder of a node"]);
    // A reader that leaves is no error.
    let mut dump = command(&["log", "dump", dir]).spawn().unwrap();
    drop(dump.stdout.take());
    assert_eq!(ended(dump).await.ok().err, "");

    // A flipped bit is named by file and byte.
    let batch = frames
        .ok()
        .lines()
        .into_iter()
        .find(|f| f["kind"] == "batch")
        .unwrap();
    let file = batch["file"].as_str().unwrap();
    let at = batch["position"].as_u64().unwrap();
    let last = at + batch["bytes"].as_u64().unwrap() - 1;
    let mut bytes = fs::read(file).unwrap();
    bytes[usize::try_from(last).unwrap()] ^= 1;
    fs::write(file, bytes).unwrap();
    let damaged = run(&["log", "verify", dir, "--output", "json"])
        .await
        .failed(&["1 damaged"]);
    assert_eq!(damaged.json()["damage"][0]["file"], file);
    assert_eq!(damaged.json()["damage"][0]["position"], at);
    drop(folder);
}

/// The file is below the environment, and that below the flags.
#[tokio::test]
async fn precedence_of_the_sources() {
    let folder = tempfile::tempdir().unwrap();
    let [of_file, of_env, of_flag, grpc, replication] = free_addresses();
    let file = folder.path().join("node.toml");
    let data = folder.path().join("data");
    let text = |http: &str| {
        format!(
            "node_id = 1\ndata_dir = \"{}\"\n[listen]\ngrpc = \"{grpc}\"\n\
             replication = \"{replication}\"\nhttp = \"{http}\"\n",
            data.display()
        )
    };
    fs::write(&file, text(&of_file)).unwrap();
    let start = ["start", "--config", file.to_str().unwrap()];
    let flag = ["--listen-http", of_flag.as_str()];
    for (env, flags, expected) in [
        (false, &[][..], &of_file),
        (true, &[][..], &of_env),
        (true, &flag[..], &of_flag),
    ] {
        let mut node = command(&[&start[..], flags].concat());
        if env {
            let _node = node.env("SERIATIM_LISTEN_HTTP", &of_env);
        }
        let node = node.spawn().unwrap();
        common::ready(expected).await;
        signal(&node, Signal::TERM);
        let stopped = ended(node).await.ok();
        assert!(
            !stopped.err.contains('\u{1b}'),
            "colours in a file: {stopped:?}"
        );
    }

    fs::write(&file, format!("nod_id = 2\n{}", text(&of_file))).unwrap();
    let unknown = ended(command(&start).spawn().unwrap()).await;
    let _unknown = unknown.failed(&["node.toml", "unknown key 'nod_id'", "'node_id'"]);
    fs::remove_file(&file).unwrap();
    let missing = ended(command(&start).spawn().unwrap()).await;
    let _missing = missing.failed(&["read the configuration file", "node.toml"]);
}

#[tokio::test]
async fn what_needs_no_node() {
    let run = async |args: &[&str]| ended(command(args).spawn().unwrap()).await;
    assert!(
        run(&["--version"])
            .await
            .ok()
            .text()
            .starts_with("seriatim 0.")
    );
    assert!(
        run(&["help", "produce"])
            .await
            .ok()
            .text()
            .contains("Examples:")
    );
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            run(&["completions", shell])
                .await
                .ok()
                .text()
                .contains("key-field")
        );
    }
    let wrong = run(&["topc", "list"]).await;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("'topic'"), "{wrong:?}");
}
