//! Full-size runs of what a cluster must hold, with their figures. For figures that mean anything:
//! `cargo run --release -p seriatim-tests --bin scenario -- failover`
//!
//! Data goes to the folder for temporary files (`TMPDIR`). The exit code is 0 if every target was
//! met.

mod big_restart;
mod failover;
mod group_churn;
mod grow_shrink;
mod kill_all;
mod leader_moves;
mod many_groups;
mod many_partitions;
mod memory;
mod report;
mod retention;
mod rolling_restart;
mod writes;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;

/// Full-size runs of what a cluster must hold
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// Print one JSON object instead of a table
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Scenario(Scenario),
    /// One member, in a process of its own
    #[command(hide = true)]
    GroupMember(group_churn::MemberArgs),
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// The leader is killed again and again: how long do writes stop?
    Failover(failover::Args),
    /// All nodes are killed again and again while events are written: is anything lost?
    KillAll(kill_all::Args),
    /// A topic of very many partitions: created, idle, restarted
    ManyPartitions(many_partitions::Args),
    /// Very many consumer groups: committing at a steady rate, restarted
    ManyGroups(many_groups::Args),
    /// Much data, and all nodes killed: how long until all of it can be written to?
    BigRestart(big_restart::Args),
    /// Members of a group are killed, stopped and added while nodes are killed: is every event
    /// processed, and none again without a reason?
    GroupChurn(group_churn::Args),
    /// Very many clients that write as fast as they can: how much memory does a node take?
    Memory(memory::Args),
    /// Much is written and little kept: does the disk stay small, and are readers told the truth?
    Retention(retention::Args),
    /// Leaders are moved to and fro under load: what does a transfer cost a producer?
    LeaderMoves(leader_moves::Args),
    /// Three nodes are restarted one after the other under load: does a client notice?
    RollingRestart(rolling_restart::Args),
    /// Three nodes become five and three again under load: is anything lost, or without a leader?
    GrowShrink(grow_shrink::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.verb {
        Verb::Scenario(scenario) => Box::pin(run(scenario))
            .await
            .and_then(|report| report.print(args.json)),
        Verb::GroupMember(member) => group_churn::member(member).await.map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(scenario: Scenario) -> anyhow::Result<Report> {
    // Building is no part of any figure.
    let _binary = seriatim_tests::binary::seriatim()?;
    match scenario {
        Scenario::Failover(args) => failover::run(args).await,
        Scenario::KillAll(args) => kill_all::run(args).await,
        Scenario::ManyPartitions(args) => many_partitions::run(args).await,
        Scenario::ManyGroups(args) => many_groups::run(args).await,
        Scenario::BigRestart(args) => big_restart::run(args).await,
        Scenario::GroupChurn(args) => group_churn::run(args).await,
        Scenario::Memory(args) => memory::run(args).await,
        Scenario::Retention(args) => retention::run(args).await,
        Scenario::LeaderMoves(args) => leader_moves::run(args).await,
        Scenario::RollingRestart(args) => rolling_restart::run(args).await,
        Scenario::GrowShrink(args) => grow_shrink::run(args).await,
    }
}
