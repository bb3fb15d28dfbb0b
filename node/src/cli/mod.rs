//! The command line.

mod cluster;
pub(crate) mod common;
mod consume;
mod consume_group;
mod fail;
mod group;
mod input;
mod log;
mod moving;
mod position;
mod produce;
mod record;
mod resize;
mod start;
mod tally;
mod topic;
mod trim;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub(crate) use self::fail::{Interrupted, fail, interrupted};
use crate::config;

const EXAMPLES: &str = "Examples:
  seriatim demo
  seriatim dev
  seriatim topic create flights --partitions 6
  seriatim produce flights --file flights.ndjson --key-field tailnum
  seriatim consume flights --from start --until end --output json
  seriatim consume flights --group billing
  seriatim group describe billing
  seriatim cluster status

'seriatim help COMMAND' shows the options and examples of a command.";

/// An event log cluster in one binary: Raft-replicated partitions, acknowledged after fsync on a
/// majority.
#[derive(Debug, Parser)]
#[command(name = "seriatim", version, about, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what Seriatim does: three nodes, real events, a killed leader, everything checked
    Demo(crate::demo::DemoArgs),
    /// Run a node of a cluster
    Start(Box<start::StartArgs>),
    /// Run a single node with sensible defaults and data in ./seriatim-data
    Dev(Box<start::DevArgs>),
    /// Create, show, change and delete topics
    Topic(topic::Args),
    /// Append lines or NDJSON to a topic
    Produce(produce::Args),
    /// Read a topic
    Consume(consume::Args),
    /// List, show, reset and delete consumer groups
    Group(group::Args),
    /// Show the state of the cluster, spread what it holds, take a node out
    Cluster(cluster::Args),
    /// Check and show the logs of a data folder, offline
    #[command(subcommand, after_help = log::EXAMPLES)]
    Log(log::LogCommand),
    /// Print completions for a shell
    #[command(after_help = "Examples:
  seriatim completions bash > /etc/bash_completion.d/seriatim
  seriatim completions zsh > ~/.zfunc/_seriatim
  seriatim completions fish > ~/.config/fish/completions/seriatim.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Reads the command line; prints help, the version or what is wrong with it, and ends the process
/// then.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn command() -> clap::Command {
    Cli::command()
        .mut_subcommand("start", config::annotate)
        .mut_subcommand("dev", config::annotate)
}

/// Does what was asked.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Demo(args) => Box::pin(crate::demo::run(args)).await,
        Command::Start(args) => start::start(*args).await,
        Command::Dev(args) => start::dev(*args).await,
        Command::Topic(args) => topic::run(args).await,
        Command::Produce(args) => Box::pin(produce::run(args)).await,
        Command::Consume(args) => Box::pin(consume::run(args)).await,
        Command::Group(args) => Box::pin(group::run(args)).await,
        Command::Cluster(args) => cluster::run(args).await,
        Command::Log(command) => log::run(command),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command(), "seriatim", &mut text);
            common::print(&String::from_utf8_lossy(&text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        command().debug_assert();
    }

    /// Every command that does something shows how.
    #[test]
    fn every_help_has_an_example() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            let examples = command.get_after_help().map(ToString::to_string);
            let example = format!("seriatim {}", if name == "seriatim" { "" } else { name });
            let shown = examples.is_some_and(|text| text.contains("seriatim "));
            assert!(shown, "'{example}' has no example");
            for inner in command.get_subcommands().filter(|c| c.get_name() != "help") {
                check(inner);
            }
        }
        let mut command = command();
        command.build();
        check(&command);
    }
}
