//! All nodes killed again and again while real events are written.

use std::path::PathBuf;

use anyhow::Context as _;
use seriatim_tests::{cluster::Cluster, events, failover::median, producing::Producing};
use tokio::time::Instant;

use crate::report::{Report, milliseconds, number, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Packed lines with a `tailnum` each (default: the month of flights in the repository)
    #[arg(long)]
    file: Option<PathBuf>,
    /// Lines a second
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// How often all nodes are killed, spread evenly over the lines
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// fsync or os
    #[arg(long, default_value = "fsync")]
    durability: String,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Report> {
    let file = args.file.unwrap_or_else(events::file);
    let lines = events::lines(&file)?.len();
    let mut cluster = Cluster::of_three().await?;
    let durability = format!("durability={}", args.durability);
    let create = [
        "topic",
        "create",
        "flights",
        "--partitions",
        "6",
        "--replicas",
        "3",
    ];
    let args_of_create: Vec<&str> = create.into_iter().chain(["--set", &durability]).collect();
    let _created = cluster.cli().ok(&args_of_create).await?;
    let producing = Producing::start(&cluster, "flights", &file, args.rate)?;
    let mut outages = Vec::new();
    for round in 1..=args.rounds {
        let share = usize::try_from(round)? * lines / (usize::try_from(args.rounds)? + 1);
        producing.reach(share).await?;
        cluster.kill_all().await?;
        let before = producing.acknowledged()?.len();
        let began = Instant::now();
        cluster.start_all()?;
        producing
            .reach(before + 1)
            .await
            .with_context(|| format!("round {round}"))?;
        outages.push(began.elapsed());
        cluster.ready_all().await?;
        progress(&format!("round {round}: all killed at {before} lines"));
    }
    let checked = producing.finish(&mut cluster).await?;
    let mut report = Report::new("kill-all");
    report.note("events", number(checked));
    report.note("rounds", f64::from(args.rounds));
    report.note(
        "median_until_acknowledged_ms",
        milliseconds(median(&outages)),
    );
    let max = outages.iter().max().copied().unwrap_or_default();
    report.note("max_until_acknowledged_ms", milliseconds(max));
    // Whatever is lost, repeated or out of order has ended the run before.
    report.at_most("lost", number(lines.abs_diff(checked)), 0.0);
    Ok(report)
}
