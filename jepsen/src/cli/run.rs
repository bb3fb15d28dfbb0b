//! `run`: in one world or the other.

use clap::ArgGroup;

use super::{Outcome, live, plan::Given, sim};

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(
    group = ArgGroup::new("world").required(true).args(["sim", "live"]),
    after_help = "Examples:\n  \
        seriatim-jepsen run --sim --seeds 1..1000\n  \
        seriatim-jepsen run --sim --seed 42 --out /tmp/seed-42\n  \
        seriatim-jepsen run --live --nemesis all --time 300 --out /tmp/live\n  \
        seriatim-jepsen run --live --nemesis kill,pause,partition --time 60 --out /tmp/live"
)]
pub(crate) struct Args {
    /// In simulation: whole clusters in one thread under virtual time, a run for each seed.
    #[arg(long)]
    sim: bool,
    #[command(flatten)]
    in_sim: sim::Args,
    /// Live: real processes in network namespaces.
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    in_live: live::Args,
    /// The seed: in simulation a single one, of which everything is told; live 1 unless given.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    #[command(flatten)]
    given: Given,
}

pub(crate) fn run(args: Args) -> Outcome {
    debug_assert!(args.sim != args.live, "the group demands one world");
    if args.live {
        live::run(args.in_live, args.seed, args.given)
    } else {
        sim::run(&args.in_sim, args.seed, &args.given)
    }
}
