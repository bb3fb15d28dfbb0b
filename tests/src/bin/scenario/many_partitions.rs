//! A topic of very many partitions.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use seriatim_tests::{
    cluster::{Cluster, Setup},
    procfs,
};
use tokio::time::{Instant, sleep};

use crate::{
    report::{Report, mebibytes, progress},
    writes,
};

const TOPIC: &str = "many";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Partitions, each with 3 replicas
    #[arg(long, default_value_t = 1_000)]
    partitions: i32,
    /// How long the idle cluster is watched, in seconds
    #[arg(long, default_value_t = 20)]
    idle: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Report> {
    let mut report = Report::new("many-partitions");
    report.note("partitions", f64::from(args.partitions));
    let mut cluster = Setup::nodes(3).start().await?;
    let client = cluster.client().await?;

    let began = Instant::now();
    writes::create(&client, TOPIC, args.partitions).await?;
    report.at_most("created_and_led_s", began.elapsed().as_secs_f64(), 10.0);
    cluster.settle().await?;
    report.note("caught_up_s", began.elapsed().as_secs_f64());

    progress("watching the idle cluster");
    let idle = idle_percent(&cluster, Duration::from_secs(args.idle)).await?;
    report.at_most("idle_cpu_percent_per_node", idle, 15.0);
    let mut largest = 0;
    let mut memory = 0;
    for node in cluster.nodes() {
        largest = largest.max(disk_bytes(&node.data)?);
        memory = memory.max(procfs::resident_bytes(node.pid()?)?);
    }
    // 64 KiB for each.
    let next_to_nothing = f64::from(args.partitions) / 16.0;
    report.at_most(
        "empty_disk_mib_per_node",
        mebibytes(largest),
        next_to_nothing,
    );
    report.note("resident_mib_per_node", mebibytes(memory));

    progress("killing all nodes");
    let seconds = writes::after_kill(&mut cluster, &client, (TOPIC, args.partitions)).await?;
    report.at_most("writable_after_restart_s", seconds, 10.0);
    cluster.ready_all().await?;
    cluster.stop_and_check().await?;
    Ok(report)
}

/// Processor time of the busiest node, in percent of one core.
async fn idle_percent(cluster: &Cluster, time: Duration) -> anyhow::Result<f64> {
    let times = || -> anyhow::Result<Vec<Duration>> {
        let nodes = cluster.nodes().iter();
        nodes.map(|node| procfs::cpu_time(node.pid()?)).collect()
    };
    let (began, before) = (Instant::now(), times()?);
    sleep(time).await;
    let (passed, after) = (began.elapsed(), times()?);
    let used = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after.saturating_sub(*before));
    let most = used.max().unwrap_or_default();
    Ok(100.0 * most.as_secs_f64() / passed.as_secs_f64())
}

/// What a folder occupies on disk.
pub(crate) fn disk_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            bytes += disk_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}
