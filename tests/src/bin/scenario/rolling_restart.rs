//! Nodes restarted one after the other while a client writes.

use std::time::Duration;

use seriatim_tests::{
    cluster::Cluster,
    flow::{Flow, Load},
    rolling,
    watching::{Follower, LeaderWatch},
};
use tokio::time::sleep;

use crate::report::{Report, milliseconds, number, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often every node is restarted
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Partitions of the topic
    #[arg(long, default_value_t = 12)]
    partitions: i32,
    /// Records a second
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Size of a record
    #[arg(long, default_value_t = 1_024)]
    bytes: usize,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Report> {
    let mut cluster = Cluster::of_three().await?;
    let client = cluster.client().await?;
    let load = Load {
        topic: "rolling".to_owned(),
        partitions: args.partitions,
        replicas: 3,
        rate: args.rate,
        bytes: args.bytes,
    };
    let flow = Flow::start(&client, load).await?;
    let follower = Follower::start(&client, "rolling", args.partitions).await?;
    let leaders = LeaderWatch::start(client.clone(), "rolling");
    // The time without restarts that the stream shows as well.
    sleep(Duration::from_secs(2)).await;
    let mut slowest = Duration::ZERO;
    for round in 1..=args.rounds {
        for id in 1..=3 {
            let took = rolling::restart(&mut cluster, id).await?;
            slowest = slowest.max(took);
            progress(&format!(
                "round {round}: node {id} stopped in {took:?} and is back"
            ));
            // Leaders come back after two looks, 5 s apart; half of the restarts do not wait for it.
            if (round + u32::try_from(id)?).is_multiple_of(2) {
                sleep(Duration::from_secs(12)).await;
            }
        }
    }
    let leaderless = leaders.finish().await?;
    progress("reading everything back");
    let figures = flow.finish(&client).await?;
    follower.finish(figures.acknowledged).await?;
    cluster.stop_and_check().await?;
    let mut report = Report::new("rolling-restart");
    report.note("restarts", f64::from(3 * args.rounds));
    report.note("records", number(figures.acknowledged));
    report.at_most("stop_max_ms", milliseconds(slowest), 10_000.0);
    report.at_most("produce_errors", number(figures.failed.0), 0.0);
    report.note("latency_p50_ms", milliseconds(figures.latency_p50));
    report.note("latency_p99_ms", milliseconds(figures.latency_p99));
    report.at_most("latency_max_ms", milliseconds(figures.latency_max), 1_000.0);
    report.note("gap_max_ms", milliseconds(figures.gap_max));
    report.note("leaderless_max_ms", milliseconds(leaderless));
    Ok(report)
}
