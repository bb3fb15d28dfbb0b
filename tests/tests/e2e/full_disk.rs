//! A full disk stops the writing and nothing else, and only for as long as it is full.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use seriatim_client::{Producer, ProducerRecord};
use seriatim_proto::v1::{self, ErrorCode};
use seriatim_tests::{
    cluster::{Cluster, Setup},
    grpc::{Api, batch, request, to},
    small_disk::SmallDisk,
    story::{Load, Outcome, story},
    wait,
};
use tokio::time::timeout;

const TOPIC: &str = "t";
const LIMIT: Duration = Duration::from_secs(40);
const MIB: u64 = 1 << 20;

/// Three nodes on one disk with a topic that has ten records.
async fn on_a_small_disk() -> anyhow::Result<(Cluster, Producer)> {
    let disk = SmallDisk::of(320 * MIB)?;
    let cluster = Setup::nodes(3).on(disk).start().await?;
    let _created = cluster.cli().ok(&["topic", "create", TOPIC]).await?;
    let producer = cluster.client().await?.producer().build().await?;
    for number in 0..10 {
        let delivery = producer.send(record(number)).await?;
        ensure!(delivery.await?.offset.0 == number);
    }
    Ok((cluster, producer))
}

fn record(number: i64) -> ProducerRecord {
    ProducerRecord::new(TOPIC, format!("{number} {}", "x".repeat(100_000))).partition(0)
}

/// A file that leaves so many bytes of the disk.
fn fill(disk: &SmallDisk, leave: u64) -> anyhow::Result<PathBuf> {
    let path = disk.seen_from_outside()?.join("ballast");
    let bytes = disk.free_bytes()?.saturating_sub(leave);
    fs::write(&path, vec![7; usize::try_from(bytes)?]).or_else(|error| {
        // Others write meanwhile: what fits is enough.
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        if full { Ok(()) } else { Err(error) }
    })?;
    Ok(path)
}

/// What a produce request with a short timeout is refused with.
async fn refusal(cluster: &Cluster) -> anyhow::Result<Option<v1::Error>> {
    let leader = cluster.leader(TOPIC, 0).await?;
    let mut api = Api::connect(&cluster.node(leader)?.addresses.grpc).await?;
    let mut produce = request(1, vec![to(TOPIC, batch(0, &["refused"])?)]);
    produce.timeout_ms = 1_000;
    let response = timeout(LIMIT, api.log.produce(produce))
        .await??
        .into_inner();
    Ok(response.results.first().context("no result")?.error.clone())
}

/// Values at the offsets from 0 on that begin with a number, in order.
async fn read(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let consume = ["consume", TOPIC, "--from", "start", "--until", "end"];
    let text = cluster.cli().ok(&consume).await?;
    let first_word = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    Ok(text.lines().map(first_word).collect())
}

/// What was acknowledged before is read while the disk is full, and all of it afterwards.
async fn full_and_free_again(leave: u64) -> anyhow::Result<()> {
    let (mut cluster, producer) = on_a_small_disk().await?;
    let ballast = fill(cluster.disk()?, leave)?;
    let error = wait::until("the disk counts as full", LIMIT, async || {
        refusal(&cluster).await
    });
    let error = error.await?;
    ensure!(error.code() == ErrorCode::DiskFull, "{error:?}");
    ensure!(
        error.retryable && error.message.contains("disk"),
        "{error:?}"
    );
    let status = cluster.status().await?;
    ensure!(status["nodes"][0]["state"] == "disk full", "{status}");

    // Reads go on; a producer waits.
    let numbers: Vec<String> = (0..10).map(|number: i64| number.to_string()).collect();
    let now = read(&cluster).await?;
    ensure!(now.starts_with(&numbers), "read {now:?}");
    let waiting = producer.send(record(10)).await?;
    ensure!(waiting.poll_now().is_none(), "acknowledged without room");

    // Room is made: what waited is stored, without anybody doing anything.
    fs::remove_file(ballast)?;
    let stored = timeout(LIMIT, waiting).await.context("it still waits")??;
    let after = read(&cluster).await?;
    let at = usize::try_from(stored.offset.0)?;
    ensure!(after.starts_with(&numbers), "read {after:?}");
    ensure!(
        after.get(at).is_some_and(|first| first == "10"),
        "read {after:?} at {at}"
    );
    ensure!(
        after.iter().filter(|first| *first == "10").count() == 1,
        "read {after:?}"
    );
    producer.close().await?;
    cluster.stop_and_check().await
}

#[test]
fn writes_stop_before_the_last_byte_and_resume_by_themselves() -> Outcome {
    // Less than a node keeps free, but there is still room for its own books.
    story(Load::Shared, full_and_free_again(24 * MIB))
}

#[test]
fn a_disk_without_a_single_free_byte_is_survived() -> Outcome {
    story(Load::Shared, full_and_free_again(0))
}
