//! `fuse-disk`: a disk of a live run, as a process of its own.

use std::path::PathBuf;

use seriatim_jepsen::live::disk;

use super::{Clean, Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it is mounted.
    mount: PathBuf,
    /// An empty folder for its bytes.
    store: PathBuf,
    /// What it forgets at a power loss follows from this.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(args: &Args) -> Outcome {
    disk::serve(&args.mount, &args.store, args.seed)?;
    Ok(Clean(true))
}
