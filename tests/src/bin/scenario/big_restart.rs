//! Starts: of three nodes with much data after SIGKILL, and of three new ones.

use std::time::Duration;

use anyhow::ensure;
use seriatim_client::{Client, ProducerRecord};
use seriatim_tests::{cluster::Setup, wait};
use tokio::time::Instant;

use crate::{
    report::{Report, number, progress},
    writes,
};

const TOPIC: &str = "big";
const GIB: u64 = 1 << 30;
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Data on each node, in GiB
    #[arg(long, default_value_t = 10)]
    gb: u64,
    /// Partitions, each with 3 replicas
    #[arg(long, default_value_t = 6)]
    partitions: i32,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Report> {
    let mut report = Report::new("big-restart");
    report.at_most("first_write_of_a_new_cluster_s", new_cluster().await?, 3.0);

    let mut cluster = Setup::nodes(3).start().await?;
    let disk = rustix::fs::statvfs(cluster.folder())?;
    let (free, need) = (disk.f_bavail * disk.f_frsize, args.gb * 3 * GIB + 2 * GIB);
    ensure!(
        free >= need,
        "{} GiB are free, {} are needed",
        free / GIB,
        need / GIB
    );
    let client = cluster.client().await?;
    writes::create(&client, TOPIC, args.partitions).await?;
    progress(&format!("writing {} GiB to each node", args.gb));
    let began = Instant::now();
    writes::fill(&client, (TOPIC, args.partitions), args.gb * GIB).await?;
    let seconds = began.elapsed().as_secs_f64();
    report.note("filled_gib_per_node", number(args.gb));
    report.note("fill_mib_per_s", number(args.gb * 1024) / seconds);

    progress("killing all nodes");
    let seconds = writes::after_kill(&mut cluster, &client, (TOPIC, args.partitions)).await?;
    report.at_most("writable_after_restart_s", seconds, 3.0);
    cluster.ready_all().await?;
    cluster.settle().await?;
    cluster.stop().await?;
    Ok(report)
}

/// Seconds from the start of three empty nodes to the first acknowledgement.
async fn new_cluster() -> anyhow::Result<f64> {
    let mut cluster = Setup::nodes(3).prepare()?;
    let began = Instant::now();
    cluster.start_all()?;
    let client = Client::connect(cluster.servers()).await?;
    // Refused until the nodes have registered.
    wait::until("the topic is created", LIMIT, async || {
        writes::create(&client, "first", 1).await.map(Some)
    })
    .await?;
    let producer = client.producer().build().await?;
    let _stored = producer
        .send(ProducerRecord::new("first", "x"))
        .await?
        .await?;
    Ok(began.elapsed().as_secs_f64())
}
