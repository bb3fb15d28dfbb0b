//! `run`: in one world or the other.

use clap::ArgGroup;

use super::{Outcome, sim};

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(
    group = ArgGroup::new("world").required(true).args(["sim"]),
    after_help = "Examples:\n  \
        seriatim-jepsen run --sim --seeds 1..1000\n  \
        seriatim-jepsen run --sim --seed 42 --out /tmp/seed-42"
)]
pub(crate) struct Args {
    /// In simulation: whole clusters in one thread under virtual time, a run for each seed.
    #[arg(long)]
    sim: bool,
    #[command(flatten)]
    in_sim: sim::Args,
}

pub(crate) fn run(args: &Args) -> Outcome {
    debug_assert!(args.sim, "the group demands one world");
    sim::run(&args.in_sim)
}
