//! Leaders moved to and fro while a client writes.

use std::time::Duration;

use anyhow::Context as _;
use seriatim_client::{Admin, Client};
use seriatim_tests::{
    cluster::Setup,
    failover::median,
    flow::{Figures, Flow, Load, SLOT},
    wait,
};
use tokio::time::sleep;

use crate::report::{Report, milliseconds, number, progress};

const TOPIC: &str = "moves";
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each leader is moved
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Partitions of the topic
    #[arg(long, default_value_t = 3)]
    partitions: i32,
    /// Records a second
    #[arg(long, default_value_t = 3_000)]
    rate: u32,
    /// Size of a record
    #[arg(long, default_value_t = 1_024)]
    bytes: usize,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Report> {
    let setup = Setup::nodes(3).setting("leader_balance_interval_ms = 200");
    let mut cluster = setup.start().await?;
    let client = cluster.client().await?;
    progress("writing without moves, for comparison");
    let quiet = quiet(&client, &args).await?;
    let flow = Flow::start(&client, load(&args, TOPIC)).await?;
    let admin = client.admin();
    let mut windows = Vec::new();
    for round in 1..=args.rounds {
        let from = flow.elapsed();
        for partition in 0..args.partitions {
            let node = u64::try_from((round + usize::try_from(partition)?) % 3)? + 1;
            prefer(&admin, partition, node).await?;
        }
        for partition in 0..args.partitions {
            led_by_preferred(&admin, partition).await?;
        }
        windows.push((from, flow.elapsed()));
        progress(&format!("round {round}: every leader was moved"));
    }
    let figures = flow.finish(&client).await?;
    cluster.stop_and_check().await?;
    let mut report = Report::new("leader-moves");
    let moves = args.rounds * usize::try_from(args.partitions)?;
    report.note("moves", number(moves));
    report.note("records", number(figures.acknowledged));
    report.at_most("produce_errors", number(figures.failed.0), 0.0);
    report.note("latency_p50_ms", milliseconds(figures.latency_p50));
    report.note("latency_p99_ms", milliseconds(figures.latency_p99));
    report.note("latency_max_ms", milliseconds(figures.latency_max));
    let (worst, without) = (
        worst(&figures, &windows),
        worst(&quiet, &alike(&windows, &quiet)),
    );
    report.note("worst_of_a_round_median_ms", milliseconds(worst));
    report.note("worst_without_moves_median_ms", milliseconds(without));
    let cost = worst.saturating_sub(without);
    report.at_most("cost_of_a_move_median_ms", milliseconds(cost), 50.0);
    Ok(report)
}

type Window = (Duration, Duration);

/// Windows of the same lengths in a stream without moves, one after the other from its start.
fn alike(windows: &[Window], quiet: &Figures) -> Vec<Window> {
    let slots = quiet.slots.iter().map(Vec::len).max().unwrap_or(0);
    let end = SLOT * u32::try_from(slots).unwrap_or(u32::MAX);
    let mut from = Duration::ZERO;
    let alike = windows.iter().map(|(began, ended)| {
        let length = *ended - *began;
        if from + length > end {
            from = Duration::ZERO;
        }
        let window = (from, from + length);
        from += length;
        window
    });
    alike.collect()
}

/// The largest latency in each window, and of these the median.
fn worst(figures: &Figures, windows: &[Window]) -> Duration {
    let slot = |time: Duration| usize::try_from(time.as_millis() / SLOT.as_millis()).unwrap_or(0);
    let largest = windows.iter().map(|(from, to)| {
        let within = |slots: &Vec<Duration>| {
            let slots = slots.iter().take(slot(*to) + 1).skip(slot(*from));
            slots.max().copied().unwrap_or_default()
        };
        figures.slots.iter().map(within).max().unwrap_or_default()
    });
    median(&largest.collect::<Vec<_>>())
}

fn load(args: &Args, topic: &str) -> Load {
    Load {
        topic: topic.to_owned(),
        partitions: args.partitions,
        replicas: 3,
        rate: args.rate,
        bytes: args.bytes,
    }
}

async fn quiet(client: &Client, args: &Args) -> anyhow::Result<Figures> {
    let flow = Flow::start(client, load(args, "quiet")).await?;
    sleep(Duration::from_secs(10)).await;
    flow.finish(client).await
}

/// Makes a node the preferred leader of a partition.
async fn prefer(admin: &Admin, partition: i32, node: u64) -> anyhow::Result<()> {
    let mut nodes: Vec<u64> = (1..=3).filter(|other| *other != node).collect();
    nodes.insert(0, node);
    let _moved = admin.reassign(TOPIC, partition, &nodes).await?;
    Ok(())
}

async fn led_by_preferred(admin: &Admin, partition: i32) -> anyhow::Result<()> {
    let at = usize::try_from(partition)?;
    wait::until("the preferred node leads", LIMIT, async || {
        let described = admin.describe(TOPIC).await?;
        let partition = described.partitions.get(at).context("no such partition")?;
        let preferred = partition.replicas.first().copied();
        Ok((partition.leader == preferred && preferred.is_some()).then_some(()))
    })
    .await
}
