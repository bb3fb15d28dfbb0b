//! How long writes stop when the leader is killed.

use seriatim_tests::{
    cluster::Cluster,
    failover::{Stop, measure, median},
};

use crate::report::{Report, milliseconds};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often the leader is killed
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Stop the leader with SIGSTOP, which breaks no connection, instead of SIGKILL
    #[arg(long)]
    freeze: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Report> {
    let mut cluster = Cluster::of_three().await?;
    let stop = if args.freeze {
        Stop::Freeze
    } else {
        Stop::Kill
    };
    let times = measure(&mut cluster, stop, args.rounds).await?;
    cluster.stop_and_check().await?;
    let mut report = Report::new("failover");
    report.note("rounds", f64::from(args.rounds));
    let (median, max) = (
        median(&times),
        times.iter().max().copied().unwrap_or_default(),
    );
    if args.freeze {
        report.note("median_ms", milliseconds(median));
    } else {
        report.at_most("median_ms", milliseconds(median), 2_000.0);
    }
    report.note("max_ms", milliseconds(max));
    Ok(report)
}
