//! Nodes that come, go, restart one after the other, or lose their disks.

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use seriatim_tests::{
    cluster::{Cluster, Setup},
    flow::{Flow, Load as Stream},
    rolling,
    story::{Load, Outcome, story},
    wait,
    watching::{Follower, LeaderWatch},
};

const LIMIT: Duration = Duration::from_secs(60);

fn stream(topic: &str, partitions: i32) -> Stream {
    Stream {
        topic: topic.to_owned(),
        partitions,
        replicas: 3,
        rate: 300,
        bytes: 512,
    }
}

async fn create(cluster: &Cluster, topic: &str, partitions: &str) -> anyhow::Result<()> {
    let args = [
        "topic",
        "create",
        topic,
        "--partitions",
        partitions,
        "--replicas",
        "3",
    ];
    let _created = cluster.cli().ok(&args).await?;
    Ok(())
}

async fn produce(cluster: &Cluster, topic: &str, lines: usize) -> anyhow::Result<()> {
    let text: String = (0..lines)
        .map(|number| format!("line {number}\n"))
        .collect();
    let produced = cluster
        .cli()
        .run_with(&["produce", topic], text.as_bytes())
        .await?;
    ensure!(produced.status.success(), "{}", produced.stderr);
    Ok(())
}

/// How many records there are, as a reader counts them.
async fn count(cluster: &Cluster, topic: &str) -> anyhow::Result<usize> {
    let args = ["consume", topic, "--from", "start", "--until", "end"];
    Ok(cluster.cli().ok(&args).await?.lines().count())
}

fn node(status: &Value, id: u64) -> anyhow::Result<&Value> {
    let nodes = status["nodes"].as_array().context("no nodes")?;
    let found = nodes.iter().find(|node| node["node"] == id);
    found.with_context(|| format!("no node {id} in {status}"))
}

#[test]
fn a_rolling_restart_is_not_noticed() -> Outcome {
    story(Load::Alone, async {
        let mut cluster = Cluster::of_three().await?;
        let client = cluster.client().await?;
        let flow = Flow::start(&client, stream("rolling", 6)).await?;
        let follower = Follower::start(&client, "rolling", 6).await?;
        for id in 1..=3 {
            let took = rolling::restart(&mut cluster, id).await?;
            ensure!(
                took < Duration::from_secs(10),
                "node {id} took {took:?} to stop"
            );
        }
        // Fails where a record fails, is lost, is there twice or is out of order.
        let figures = flow.finish(&client).await?;
        ensure!(
            figures.latency_max < Duration::from_secs(1),
            "{:?}",
            figures.latency_max
        );
        follower.finish(figures.acknowledged).await?;
        cluster.stop_and_check().await
    })
}

#[test]
fn a_cluster_grows_and_shrinks_under_load() -> Outcome {
    story(Load::Alone, async {
        let mut cluster = Setup::nodes(3).later(1).start().await?;
        let client = cluster.client().await?;
        let flow = Flow::start(&client, stream("grown", 6)).await?;
        let leaders = LeaderWatch::start(client.clone(), "grown");
        cluster.node_mut(4)?.start()?;
        cluster.node_mut(4)?.ready().await?;
        let planned = cluster
            .cli()
            .json(&["cluster", "rebalance", "--dry-run"])
            .await?;
        let moves = planned["moves"].as_array().context("no moves")?.len();
        ensure!(moves > 0, "{planned}");
        let moved = cluster.cli().json(&["cluster", "rebalance"]).await?;
        ensure!(moved["moves"] == planned["moves"], "{moved}");
        let status = cluster.status().await?;
        ensure!(
            node(&status, 4)?["assigned_replicas"] != json!(0),
            "{status}"
        );
        ensure!(status["moving"] == json!(0), "{status}");

        let left = cluster
            .cli()
            .json(&["cluster", "decommission", "4"])
            .await?;
        ensure!(left == json!({"node": 4, "safe_to_stop": true}), "{left}");
        cluster.node(4)?.signal(Signal::TERM)?;
        let ended = cluster.node_mut(4)?.wait().await?;
        ensure!(ended.success(), "{ended}");
        wait::until("node 4 is forgotten", LIMIT, async || {
            Ok(node(&cluster.status().await?, 4).is_err().then_some(()))
        })
        .await?;
        let leaderless = leaders.finish().await?;
        ensure!(leaderless < Duration::from_secs(2), "{leaderless:?}");
        let figures = flow.finish(&client).await?;
        ensure!(
            figures.gap_max < Duration::from_secs(2),
            "{:?}",
            figures.gap_max
        );
        cluster.stop_and_check().await
    })
}

#[test]
fn a_lost_disk_is_noticed_and_rebuilt() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Cluster::of_three().await?;
        create(&cluster, "t", "3").await?;
        produce(&cluster, "t", 2_000).await?;
        cluster.node_mut(2)?.kill().await?;
        fs::remove_dir_all(&cluster.node(2)?.data)?;
        cluster.node_mut(2)?.start()?;
        cluster.node_mut(2)?.ready().await?;
        cluster.settle().await?;
        let status = cluster.status().await?;
        let node2 = node(&status, 2)?;
        ensure!(
            node2["data_lost_ms"].as_u64().is_some_and(|ms| ms > 0),
            "{node2}"
        );
        ensure!(node(&status, 1)?["data_lost_ms"].is_null(), "{status}");
        let text = cluster.cli().ok(&["cluster", "status"]).await?;
        ensure!(
            text.contains("node 2: came back without its data at"),
            "{text}"
        );
        let told = cluster.node(1)?.log_text()?;
        ensure!(
            told.contains("a node came back without its data"),
            "node 1 says nothing"
        );
        ensure!(count(&cluster, "t").await? == 2_000, "records are missing");
        cluster.stop_and_check().await
    })
}

#[test]
fn partitions_are_moved_by_hand() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Setup::nodes(3).later(1).start().await?;
        create(&cluster, "t", "1").await?;
        produce(&cluster, "t", 500).await?;
        cluster.node_mut(4)?.start()?;
        cluster.node_mut(4)?.ready().await?;
        let reassign = ["topic", "reassign", "--topic", "t", "--partition", "0"];
        let to = |nodes| [&reassign[..], &["--replicas", nodes]].concat();
        let moved = cluster.cli().json(&to("4,2,3")).await?;
        ensure!(moved["moves"][0]["to"] == json!([4, 2, 3]), "{moved}");
        let again = cluster.cli().json(&to("4,2,3")).await?;
        ensure!(again["moves"] == json!([]), "{again}");
        // Another node may hear of it a moment later.
        wait::until("the move is described", LIMIT, async || {
            let described = cluster.cli().json(&["topic", "describe", "t"]).await?;
            let replicas = &described["partitions"][0]["replicas"];
            Ok((*replicas == json!([4, 2, 3])).then_some(()))
        })
        .await?;
        ensure!(count(&cluster, "t").await? == 500, "records are missing");
        for (args, why) in [
            (to("1,1"), "each only once"),
            (to("9"), "node 9 is not registered"),
            (
                [&to("1")[..5], &["7", "--replicas", "1"]].concat(),
                "no partition 7",
            ),
            (
                vec!["topic", "alter", "t", "--replication-factor", "5"],
                "5 replicas need 5 nodes",
            ),
            (
                vec!["cluster", "decommission", "9"],
                "node 9 is not registered",
            ),
        ] {
            let failed = cluster.cli().run(&args).await?;
            ensure!(failed.status.code() == Some(1), "{args:?}: {failed:?}");
            ensure!(failed.stderr.contains(why), "{args:?}: {}", failed.stderr);
        }
        let nothing = cluster
            .cli()
            .json(&[&reassign[..], &["--cancel"]].concat())
            .await?;
        ensure!(nothing["moves"] == json!([]), "{nothing}");
        Ok(())
    })
}

#[test]
fn topics_are_resized_in_use() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Cluster::of_three().await?;
        let args = [
            "topic",
            "create",
            "t",
            "--partitions",
            "2",
            "--replicas",
            "1",
        ];
        let _created = cluster.cli().ok(&args).await?;
        produce(&cluster, "t", 300).await?;
        let alter = ["topic", "alter", "t", "--partitions", "4"];
        let _altered = cluster.cli().ok(&alter).await?;
        let alter = ["topic", "alter", "t", "--replication-factor", "3"];
        let altered = cluster.cli().json(&alter).await?;
        ensure!(
            altered["moves"]
                .as_array()
                .is_some_and(|moves| moves.len() == 4),
            "{altered}"
        );
        cluster.settle().await?;
        let status = cluster.status().await?;
        for partition in status["partitions"].as_array().context("no partitions")? {
            let replicas = partition["replicas"].as_array().context("no replicas")?;
            ensure!(replicas.len() == 3, "{partition}");
        }
        let fewer = cluster
            .cli()
            .run(&["topic", "alter", "t", "--partitions", "3"])
            .await?;
        ensure!(fewer.stderr.contains("can only grow"), "{}", fewer.stderr);
        produce(&cluster, "t", 300).await?;
        ensure!(count(&cluster, "t").await? == 600, "records are missing");
        cluster.stop_and_check().await
    })
}
