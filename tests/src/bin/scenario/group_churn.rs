//! A group whose members are killed, stopped and added while the nodes are killed.

use std::time::Duration;

pub(crate) use seriatim_tests::group_churn::member::{MemberArgs, run as member};
use seriatim_tests::group_churn::{self, Plan};

use crate::report::{Report, number, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Events
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Events a second
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Partitions of the topic
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Members at the beginning
    #[arg(long, default_value_t = 6)]
    members: usize,
    /// Seconds between two disturbances of members
    #[arg(long, default_value_t = 2)]
    member_every: u64,
    /// Seconds between two kills of nodes
    #[arg(long, default_value_t = 10)]
    node_every: u64,
    /// Seconds after which a silent member is given up
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..))]
    session_timeout: u64,
    /// Makes the same choices again
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Report> {
    let this = std::env::current_exe()?;
    let plan = Plan {
        program: vec![
            this.to_string_lossy().into_owned(),
            "group-member".to_owned(),
        ],
        events: args.events,
        partitions: args.partitions,
        members: args.members,
        rate: args.rate,
        member_every: Duration::from_secs(args.member_every),
        node_every: Duration::from_secs(args.node_every),
        session_timeout: Duration::from_secs(args.session_timeout),
        seed: args.seed,
    };
    let done = group_churn::run(&plan, progress).await?;
    for violation in &done.verdict.violations {
        progress(&format!("VIOLATION {violation}"));
    }
    let mut report = Report::new("group-churn");
    report.note("events", number(args.events));
    report.note("members_killed", f64::from(done.killed));
    report.note("members_stopped_briefly", f64::from(done.paused));
    report.note("members_stopped_for_long", f64::from(done.evicted));
    report.note("members_added", f64::from(done.added));
    report.note("nodes_killed", f64::from(done.nodes_killed));
    report.note("partitions_acquired", number(done.verdict.acquisitions));
    report.note("processed", number(done.verdict.processed));
    report.note(
        "processed_again_after_a_death",
        number(done.verdict.repeated),
    );
    report.note("catch_up_s", done.catch_up.as_secs_f64());
    report.at_most("missing", number(done.verdict.missing), 0.0);
    report.at_most("violations", number(done.verdict.violation_count), 0.0);
    Ok(report)
}
