//! The commands, one file each.
//!
//! Results go to standard output, everything else to standard error; the exit code is 0 only on a
//! clean verdict, 1 on a broken promise, 2 if the command could not do what it was asked for.

mod campaign;
mod check;
mod disk;
mod live;
mod mixes;
mod mutants;
mod plan;
mod progress;
mod report;
mod run;
mod seed;
mod shrink;
mod sim;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "seriatim-jepsen",
    version,
    about = "Breaks whole clusters and judges them"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Plant this bug; `mutants/` has them all.
    #[cfg(feature = "mutants")]
    #[arg(long, global = true, env = seriatim_jepsen::sim::fleet::MUTANT, value_name = "NAME")]
    mutant: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Break clusters under load and judge what their clients saw.
    Run(run::Args),
    /// Judge a history that a run has written.
    Check(check::Args),
    /// Write one page about a run: `DIR/report.html`.
    Report(report::Args),
    /// Run many seeds, stopping and going on at will, and sum up campaigns and runs.
    Campaign(campaign::Args),
    /// Plant bugs in the product, one after the other, and see each refused by a checker.
    Mutants(mutants::Args),
    /// Run one seed in this process and tell the result as JSON: what `run` starts.
    #[command(hide = true)]
    Seed(seed::Args),
    /// Be a disk that can be told to fail, for one node of a live run.
    #[command(hide = true)]
    FuseDisk(disk::Args),
}

/// What a command that could do its work came to.
pub(crate) type Outcome = anyhow::Result<Clean>;

/// Whether every promise was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clean(pub(crate) bool);

/// Reads the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_unset| "off".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    #[cfg(feature = "mutants")]
    if let Some(name) = &cli.mutant
        && let Err(error) = seriatim_runtime::mutant::choose(name)
    {
        say(&error.into());
        return ExitCode::from(2);
    }
    let outcome = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Campaign(args) => campaign::run(&args),
        Command::Mutants(args) => mutants::run(&args),
        Command::Seed(args) => seed::run(&args),
        Command::FuseDisk(args) => disk::run(&args),
    };
    match outcome {
        Ok(Clean(true)) => ExitCode::SUCCESS,
        Ok(Clean(false)) => ExitCode::FAILURE,
        Err(error) => {
            say(&error);
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stderr, reason = "an error of the command itself")]
fn say(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_world_must_be_chosen() {
        let error = Cli::try_parse_from(["seriatim-jepsen", "run"]).unwrap_err();
        assert!(error.to_string().contains("--sim"), "{error}");
    }
}
