//! The command line.

mod cluster;
mod common;
mod consume;
mod log;
mod produce;
mod start;
mod topic;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// An event log cluster in one binary: Raft-replicated partitions, acknowledged after fsync on a
/// majority.
#[derive(Debug, Parser)]
#[command(name = "seriatim", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what Seriatim does: three nodes, real events, a killed leader, everything checked.
    Demo(crate::demo::DemoArgs),
    /// Run a node of a cluster.
    Start(start::StartArgs),
    /// Run a single node with sensible defaults and data in ./seriatim-data.
    Dev(start::DevArgs),
    /// Create, show, change and delete topics.
    Topic(topic::Args),
    /// Append lines or NDJSON to a topic.
    Produce(produce::Args),
    /// Read a topic.
    Consume(consume::Args),
    /// Show the state of the cluster.
    Cluster(cluster::Args),
    /// Check and show the logs of a data folder, offline.
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Does what was asked.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Demo(args) => Box::pin(crate::demo::run(args)).await,
        Command::Start(args) => start::start(args).await,
        Command::Dev(args) => start::dev(args).await,
        Command::Topic(args) => topic::run(args).await,
        Command::Produce(args) => Box::pin(produce::run(args)).await,
        Command::Consume(args) => Box::pin(consume::run(args)).await,
        Command::Cluster(args) => cluster::run(args).await,
        Command::Log(command) => log::run(command),
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "seriatim", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// Says what went wrong.
#[expect(
    clippy::print_stderr,
    reason = "the one place that tells a person about a failure"
)]
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
