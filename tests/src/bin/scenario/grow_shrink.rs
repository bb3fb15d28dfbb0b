//! A cluster that grows and shrinks while a client writes.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;
use seriatim_tests::{
    cluster::{Cluster, Setup},
    flow::{Flow, Load},
    wait,
    watching::LeaderWatch,
};
use tokio::time::{Instant, sleep};

use crate::report::{Report, milliseconds, number, progress};

const TOPIC: &str = "grown";
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Partitions of the topic
    #[arg(long, default_value_t = 12)]
    partitions: i32,
    /// MB written a second
    #[arg(long, default_value_t = 20)]
    megabytes: u32,
    /// Size of a record
    #[arg(long, default_value_t = 4_096)]
    bytes: u32,
    /// Seconds of writing before the cluster changes
    #[arg(long, default_value_t = 5)]
    lead: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Report> {
    let mut cluster = Setup::nodes(3).later(2).start().await?;
    let client = cluster.client().await?;
    let load = Load {
        topic: TOPIC.to_owned(),
        partitions: args.partitions,
        replicas: 3,
        rate: args.megabytes * 1_000_000 / args.bytes,
        bytes: usize::try_from(args.bytes)?,
    };
    let flow = Flow::start(&client, load).await?;
    let leaders = LeaderWatch::start(client.clone(), TOPIC);
    sleep(Duration::from_secs(args.lead)).await;

    let began = Instant::now();
    for id in [4, 5] {
        let node = cluster.node_mut(id)?;
        node.start()?;
        node.ready().await?;
        progress(&format!("node {id} has joined"));
    }
    let text = cluster.cli().ok(&["cluster", "rebalance"]).await?;
    progress(text.lines().last().unwrap_or_default());
    let grown = began.elapsed();
    ensure!(held(&cluster, 4).await? > 0, "node 4 holds nothing");

    let began = Instant::now();
    for id in [4, 5] {
        let node = id.to_string();
        let text = cluster
            .cli()
            .ok(&["cluster", "decommission", &node])
            .await?;
        progress(text.trim());
        let node = cluster.node_mut(id)?;
        node.signal(Signal::TERM)?;
        let status = node.wait().await?;
        ensure!(status.success(), "node {id} ended with {status}");
        wait::until("the node is forgotten", LIMIT, async || {
            let status = cluster.client().await?.admin().cluster_status().await?;
            let known = status.nodes.iter().any(|node| node.node == id);
            Ok((!known).then_some(()))
        })
        .await?;
    }
    let shrunk = began.elapsed();
    let leaderless = leaders.finish().await?;
    progress("reading everything back");
    let figures = flow.finish(&client).await?;
    cluster.stop_and_check().await?;
    let mut report = Report::new("grow-shrink");
    report.note("records", number(figures.acknowledged));
    report.note("megabytes_a_second", f64::from(args.megabytes));
    report.note("grown_s", grown.as_secs_f64());
    report.note("shrunk_s", shrunk.as_secs_f64());
    // Whatever is lost, repeated or out of order has ended the run before.
    report.note("latency_p99_ms", milliseconds(figures.latency_p99));
    report.note("latency_max_ms", milliseconds(figures.latency_max));
    report.at_most("gap_max_ms", milliseconds(figures.gap_max), 2_000.0);
    report.at_most("leaderless_max_ms", milliseconds(leaderless), 2_000.0);
    Ok(report)
}

/// Replicas that a node is to hold.
async fn held(cluster: &Cluster, id: u64) -> anyhow::Result<usize> {
    let status = cluster.client().await?.admin().cluster_status().await?;
    let node = status.nodes.iter().find(|node| node.node == id);
    Ok(node.map_or(0, |node| node.assigned))
}
