//! Flipped bits are found, named, never served, and repaired from the peers.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use seriatim_client::ProducerRecord;
use seriatim_tests::{
    cli::Cli,
    cluster::{Cluster, Setup},
    grpc::Api,
    story::{Load, Outcome, story},
    wait,
};

const TOPIC: &str = "t";
const RECORDS: usize = 3_000;
const LIMIT: Duration = Duration::from_secs(40);

/// A frame of a log, as `log dump` shows it.
#[derive(Debug, Clone)]
struct Frame {
    file: PathBuf,
    position: u64,
    bytes: u64,
}

/// Three nodes and a partition of several segments in many batches.
async fn filled() -> anyhow::Result<Cluster> {
    let cluster = Setup::nodes(3).start().await?;
    let create = [
        "topic",
        "create",
        TOPIC,
        "--replicas",
        "3",
        "--set",
        "segment.bytes=1048576",
    ];
    let _created = cluster.cli().ok(&create).await?;
    let client = cluster.client().await?;
    let producer = client.producer().batch_bytes(8 << 10).build().await?;
    let mut deliveries = Vec::new();
    for number in 0..RECORDS {
        deliveries.push(
            producer
                .send(ProducerRecord::new(TOPIC, value(number)))
                .await?,
        );
    }
    for delivery in deliveries {
        let _stored = delivery.await?;
    }
    producer.close().await?;
    cluster.settle().await?;
    Ok(cluster)
}

fn value(number: usize) -> String {
    format!("{number:06} {}", "abcdefgh".repeat(100))
}

/// The batches of the topic's log in a stopped node's folder, by file.
async fn frames(cli: &Cli, data: &Path) -> anyhow::Result<Vec<Vec<Frame>>> {
    let folder = data.to_str().context("the path is not UTF-8")?;
    let text = cli.ok(&["log", "dump", folder, "--output", "json"]).await?;
    let mut files: Vec<Vec<Frame>> = Vec::new();
    for line in text.lines() {
        let frame: Value = serde_json::from_str(line)?;
        if frame["kind"] != "batch" {
            continue;
        }
        let frame = Frame {
            file: frame["file"].as_str().context("no file")?.into(),
            position: frame["position"].as_u64().context("no position")?,
            bytes: frame["bytes"].as_u64().context("no length")?,
        };
        match files.last_mut() {
            Some(last) if last.first().is_some_and(|first| first.file == frame.file) => {
                last.push(frame);
            }
            _ => files.push(vec![frame]),
        }
    }
    ensure!(files.len() >= 3, "{} segments are too few", files.len());
    Ok(files)
}

/// Flips a bit in the middle of a frame in the middle of a file.
fn damage(file: &[Frame]) -> anyhow::Result<Frame> {
    let frame = file.get(file.len() / 2).context("no frame")?;
    ensure!(file.len() >= 4, "too few frames to be in the middle");
    let mut bytes = fs::read(&frame.file)?;
    let at = usize::try_from(frame.position + frame.bytes / 2)?;
    *bytes.get_mut(at).context("the frame is beyond the file")? ^= 0x10;
    fs::write(&frame.file, bytes)?;
    Ok(frame.clone())
}

/// The state and the reason of node 2's replica, as `cluster status` of some servers has it.
async fn replica_on_2(cli: &Cli) -> anyhow::Result<(String, String)> {
    let status = cli.json(&["cluster", "status"]).await?;
    let replicas = status["partitions"][0]["replicas"].as_array().cloned();
    let of_2 = replicas
        .unwrap_or_default()
        .into_iter()
        .find(|r| r["node"] == 2);
    let of_2 = of_2.context("node 2 has no replica")?;
    let text = |field: &str| of_2[field].as_str().unwrap_or_default().to_owned();
    Ok((text("state"), text("reason")))
}

#[test]
fn damage_in_sealed_and_active_files_is_named_and_repaired_from_the_peers() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = filled().await?;
        cluster.stop().await?;
        let data = cluster.node(2)?.data.clone();
        let files = frames(cluster.cli(), &data).await?;
        let sealed = damage(files.first().context("no sealed file")?)?;
        let active = damage(files.last().context("no active file")?)?;

        let folder = data.to_str().context("the path is not UTF-8")?;
        let verify = ["log", "verify", folder, "--output", "json"];
        let verified = cluster.cli().run(&verify).await?;
        assert_eq!(verified.status.code(), Some(1));
        let report: Value = serde_json::from_str(&verified.stdout)?;
        let places: Vec<(&Value, &Value)> = report["damage"]
            .as_array()
            .context("no damage")?
            .iter()
            .map(|place| (&place["file"], &place["position"]))
            .collect();
        let expected = [&sealed, &active].map(|f| (json!(f.file), json!(f.position)));
        assert_eq!(
            places,
            expected.each_ref().map(|(file, at)| (file, at)),
            "{report}"
        );

        // Alone, the node cannot repair anything. It says what it found and serves none of it.
        cluster.node_mut(2)?.start()?;
        let alone = Cli::new(&cluster.node(2)?.addresses.grpc);
        wait::until("node 2 tells of the damage", LIMIT, async || {
            let (state, reason) = replica_on_2(&alone).await?;
            ensure!(state == "damaged", "node 2 says {state}: {reason}");
            let named = [&sealed, &active].map(|f| f.file.to_string_lossy().into_owned());
            ensure!(named.iter().any(|file| reason.contains(file)), "{reason}");
            Ok(Some(()))
        })
        .await?;
        let mut api = Api::connect(&cluster.node(2)?.addresses.grpc).await?;
        let fetched = api.fetch((TOPIC, 0, 0), (1, 0, 500)).await?;
        assert!(
            fetched.error.is_some() && fetched.record_batches.is_empty(),
            "{fetched:?}"
        );

        // With its peers it is rebuilt, and what is read is what was written.
        cluster.start_all()?;
        cluster.ready_all().await?;
        cluster.settle().await?;
        read_back(&cluster).await?;
        // Also by the rebuilt replica, with one peer gone.
        cluster.node_mut(1)?.kill().await?;
        read_back(&cluster).await?;
        cluster.node_mut(1)?.start()?;
        cluster.ready_all().await?;
        cluster.stop_and_check().await
    })
}

#[test]
fn damage_under_a_running_node_is_never_served() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = filled().await?;
        let leader = cluster.leader(TOPIC, 0).await?;
        // The places are known from a stopped copy: the replicas' files need not be alike.
        cluster.stop().await?;
        let data = cluster.node(leader)?.data.clone();
        let files = frames(cluster.cli(), &data).await?;
        cluster.start_all()?;
        cluster.ready_all().await?;
        cluster.settle().await?;
        let _damaged = damage(files.first().context("no sealed file")?)?;
        // Whoever leads, and whatever is found while it is read: the client sees every record.
        read_back(&cluster).await?;
        cluster.settle().await?;
        read_back(&cluster).await?;
        Ok(())
    })
}

async fn read_back(cluster: &Cluster) -> anyhow::Result<()> {
    let read = cluster
        .cli()
        .ok(&["consume", TOPIC, "--from", "start", "--until", "end"])
        .await?;
    let mut lines = read.lines();
    for number in 0..RECORDS {
        let line = lines
            .next()
            .with_context(|| format!("record {number} is lost"))?;
        ensure!(line == value(number), "record {number} reads {line}");
    }
    ensure!(lines.next().is_none(), "more was read than written");
    Ok(())
}
