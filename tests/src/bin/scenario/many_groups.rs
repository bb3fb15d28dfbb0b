//! Very many consumer groups: restarted, and committing at a steady rate.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use seriatim_proto::v1;
use seriatim_tests::{
    cluster::{Cluster, Setup},
    grpc::Api,
    members, procfs, wait,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    many_partitions::disk_bytes,
    report::{Report, mebibytes, milliseconds, number, progress},
    writes,
};

const TOPIC: &str = "many";
const LIMIT: Duration = Duration::from_secs(60);

/// Requests under way while groups are made and read back.
const AT_ONCE: usize = 64;

/// Groups in one question for coordinators.
const QUESTION: usize = 1_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Groups
    #[arg(long, default_value_t = 10_000)]
    groups: usize,
    /// Offsets of each group
    #[arg(long, default_value_t = 10)]
    offsets: i32,
    /// Commits per second, each of all offsets of one group
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// How long they are measured, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

/// Where each group is coordinated.
type Coordinators = BTreeMap<String, Api>;

pub(crate) async fn run(args: Args) -> anyhow::Result<Report> {
    let mut report = Report::new("many-groups");
    report.note("groups", number(args.groups));
    report.note("offsets_per_group", f64::from(args.offsets));
    let names: Vec<String> = (0..args.groups).map(|n| format!("group-{n:06}")).collect();
    let mut cluster = Setup::nodes(3).start().await?;
    let client = cluster.client().await?;
    writes::create(&client, TOPIC, args.offsets).await?;

    progress("making the groups");
    let coordinators = find(&cluster, &names).await?;
    let (empty, empty_meta) = sizes(&cluster)?;
    let began = Instant::now();
    fill(&coordinators, args.offsets).await?;
    report.note(
        "made_groups_per_s",
        number(args.groups) / began.elapsed().as_secs_f64(),
    );
    let (full, full_meta) = sizes(&cluster)?;
    report.note("resident_mib_per_node", mebibytes(full));
    report.note("resident_mib_added", mebibytes(full.saturating_sub(empty)));
    let added = full_meta.saturating_sub(empty_meta);
    report.note("metadata_store_mib_added", mebibytes(added));

    progress(&format!("committing {} times a second", args.rate));
    commit_at_rate(&coordinators, &args, &mut report).await?;

    progress("killing all nodes");
    let seconds = restart(&mut cluster, &names, args.offsets).await?;
    report.at_most("every_shard_serves_after_s", seconds, 10.0);
    cluster.ready_all().await?;
    let coordinators = find(&cluster, &names).await?;
    let began = Instant::now();
    read_back(&coordinators, args.offsets).await?;
    report.note("all_read_back_s", began.elapsed().as_secs_f64());
    let (restarted, _meta) = sizes(&cluster)?;
    report.note("resident_mib_after_restart", mebibytes(restarted));
    cluster.stop_and_check().await?;
    Ok(report)
}

/// The coordinators of all groups, one connection to each node.
async fn find(cluster: &Cluster, names: &[String]) -> anyhow::Result<Coordinators> {
    wait::until("every group has a coordinator", LIMIT, async || {
        let mut apis: BTreeMap<String, Api> = BTreeMap::new();
        let mut found = Coordinators::new();
        let node = cluster.nodes().first().context("no node")?;
        let mut any = Api::connect(&node.addresses.grpc).await?;
        for question in names.chunks(QUESTION) {
            let request = v1::FindCoordinatorsRequest {
                groups: question.to_vec(),
            };
            let answer = any.groups.find_coordinators(request).await?.into_inner();
            for coordinator in answer.coordinators {
                if let Some(error) = coordinator.error {
                    anyhow::bail!("{}: {}", coordinator.group, error.message);
                }
                let address = coordinator.grpc_address;
                let api = match apis.get(&address) {
                    Some(api) => api.clone(),
                    None => Api::connect(&address).await?,
                };
                let _same = apis.insert(address, api.clone());
                let _none = found.insert(coordinator.group, api);
            }
        }
        Ok(Some(found))
    })
    .await
}

fn request(group: &str, offsets: i32, offset: i64) -> v1::CommitOffsetsRequest {
    let commit = |partition| v1::OffsetCommit {
        topic: TOPIC.to_owned(),
        partition,
        offset,
        ..v1::OffsetCommit::default()
    };
    v1::CommitOffsetsRequest {
        group: group.to_owned(),
        offsets: (0..offsets).map(commit).collect(),
        ..v1::CommitOffsetsRequest::default()
    }
}

async fn commit(api: &Api, request: v1::CommitOffsetsRequest) -> anyhow::Result<()> {
    let committed = api.groups.clone().commit_offsets(request).await?;
    match committed.into_inner().error {
        None => Ok(()),
        Some(error) => anyhow::bail!("{}", error.message),
    }
}

async fn fill(coordinators: &Coordinators, offsets: i32) -> anyhow::Result<()> {
    let commits = coordinators
        .iter()
        .map(|(group, api)| commit(api, request(group, offsets, 1)));
    let commits = stream::iter(commits).buffer_unordered(AT_ONCE);
    commits.try_for_each(|()| async { Ok(()) }).await
}

/// Commits at a steady rate, whether or not earlier ones are answered; latency counts from when a
/// commit was due.
async fn commit_at_rate(
    coordinators: &Coordinators,
    args: &Args,
    report: &mut Report,
) -> anyhow::Result<()> {
    let pause = Duration::from_secs(1) / args.rate.max(1);
    let mut under_way = JoinSet::new();
    let groups = coordinators.iter().cycle();
    let (began, count) = (Instant::now(), args.rate * args.seconds);
    for (turn, (group, api)) in (0..count).zip(groups) {
        let due = began + pause * turn;
        sleep_until(due).await;
        let (api, request) = (api.clone(), request(group, args.offsets, 2));
        let _task = under_way.spawn(async move {
            let committed = commit(&api, request).await;
            committed.map(|()| due.elapsed())
        });
    }
    let mut latencies = Vec::new();
    let mut failed = 0_u64;
    while let Some(ended) = under_way.join_next().await {
        match ended? {
            Ok(latency) => latencies.push(latency),
            Err(error) => {
                progress(&format!("a commit failed: {error:#}"));
                failed += 1;
            }
        }
    }
    latencies.sort_unstable();
    let at = |part: usize| {
        let place = (latencies.len() * part).div_ceil(1_000).saturating_sub(1);
        milliseconds(latencies.get(place).copied().unwrap_or(Duration::MAX))
    };
    report.note("commits", number(latencies.len()));
    report.at_most("commits_failed", number(failed), 0.0);
    report.note("commit_p50_ms", at(500));
    report.at_most("commit_p99_ms", at(990), 20.0);
    report.note("commit_p999_ms", at(999));
    report.note("commit_max_ms", at(1_000));
    Ok(())
}

/// Seconds from the start of all nodes until every shard answers for one of its groups. Which
/// groups share a shard is not known here: enough of them are asked to meet each.
async fn restart(cluster: &mut Cluster, names: &[String], offsets: i32) -> anyhow::Result<f64> {
    let asked: Vec<String> = names.iter().take(200).cloned().collect();
    cluster.kill_all().await?;
    let began = Instant::now();
    cluster.start_all()?;
    let deadline = began + LIMIT;
    let mut waiting: BTreeSet<String> = asked.into_iter().collect();
    while !waiting.is_empty() {
        ensure!(
            Instant::now() < deadline,
            "{} groups are not served",
            waiting.len()
        );
        let names: Vec<String> = waiting.iter().cloned().collect();
        if let Ok(coordinators) = find(cluster, &names).await {
            for (group, api) in coordinators {
                if read(&api, &group, offsets).await.is_ok() {
                    let _served = waiting.remove(&group);
                }
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Reads the offsets of a group and checks them.
async fn read(api: &Api, group: &str, offsets: i32) -> anyhow::Result<()> {
    let stored = members::offsets(api, group).await?;
    let right = stored.iter().all(|(_, offset)| (1..=2).contains(offset));
    ensure!(
        right && stored.len() == usize::try_from(offsets)?,
        "{group}: {stored:?}"
    );
    Ok(())
}

async fn read_back(coordinators: &Coordinators, offsets: i32) -> anyhow::Result<()> {
    let reads = coordinators
        .iter()
        .map(|(group, api)| read(api, group, offsets));
    let reads = stream::iter(reads).buffer_unordered(AT_ONCE);
    reads.try_for_each(|()| async { Ok(()) }).await
}

/// Most memory of a node, and most that a metadata store takes on disk.
fn sizes(cluster: &Cluster) -> anyhow::Result<(u64, u64)> {
    let (mut memory, mut disk) = (0, 0);
    for node in cluster.nodes() {
        memory = memory.max(procfs::resident_bytes(node.pid()?)?);
        disk = disk.max(disk_bytes(&node.data.join("meta"))?);
    }
    Ok((memory, disk))
}
