//! `run --sim`: seeds in simulation.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{ops::Range, path::PathBuf, time::Duration};

use anyhow::Context as _;
use seriatim_jepsen::{
    history::Action,
    sim::{
        run::{Options, Verdict, run as run_seed},
        schedule::Schedule,
    },
};

use super::{Clean, Outcome};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Simulation")]
#[group(skip)]
pub(crate) struct Args {
    /// Seeds, the last one excluded.
    #[arg(long, value_parser = seeds, default_value = "0..20", value_name = "A..B")]
    seeds: Range<u64>,
    /// Virtual seconds in which faults begin.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u64,
    /// Run each seed twice and compare the histories bit by bit, to find what does not follow
    /// from the seed.
    #[arg(long)]
    twice: bool,
    /// Break what this file says instead of what the seeds say; `--print-schedule` writes such a file.
    #[arg(long, value_name = "FILE")]
    pub(super) schedule: Option<PathBuf>,
    /// Print what the first seed breaks, and run nothing.
    #[arg(long)]
    print_schedule: bool,
    /// Plant a bug, to see it found: disks that answer a sync and do nothing.
    #[arg(long)]
    plant_lying_disks: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text
        .split_once("..")
        .ok_or("write A..B, such as 0..100 for the seeds 0 to 99")?;
    let parse = |part: &str| {
        part.parse::<u64>()
            .map_err(|e| format!("`{part}` is no seed: {e}"))
    };
    let range = parse(from)?..parse(to)?;
    if range.is_empty() {
        return Err(format!("no seed lies in {from}..{to}: the end is excluded"));
    }
    Ok(range)
}

pub(crate) fn run(args: Args) -> Outcome {
    let Args {
        seeds,
        seconds,
        twice,
        schedule,
        print_schedule,
        plant_lying_disks,
    } = args;
    let mut options = Options {
        faults_for: Duration::from_secs(seconds),
        lying_disks: plant_lying_disks,
        ..Options::default()
    };
    if let Some(path) = schedule {
        let nodes = options.of_seed(seeds.start).nodes;
        let schedule = Schedule::read(&path, nodes).map_err(anyhow::Error::msg)?;
        options.schedule = Some(schedule);
    }
    if print_schedule {
        let seed = seeds.start;
        print!("{}", options.of_seed(seed).schedule_of(seed).to_json());
        return Ok(Clean(true));
    }
    println!(
        "{:>8} {:>8} {:>8} {:>8} {:>7} {:>9} {:>9}  verdict",
        "seed", "acked", "read", "commits", "faults", "virtual", "recovered"
    );
    let (mut failed, total) = (Vec::new(), seeds.clone().count());
    for seed in seeds {
        let options = options.of_seed(seed);
        let verdict = run_seed(seed, &options).context("run a seed")?;
        let mut good = print(&verdict);
        if twice {
            let again = run_seed(seed, &options).context("run a seed again")?;
            if again.history != verdict.history {
                println!("    the second run of seed {seed} differs");
                good = false;
            }
        }
        if !good {
            failed.push(seed);
        }
    }
    println!("{} of {total} seeds held", total - failed.len());
    if !failed.is_empty() {
        println!("failed: {failed:?}");
    }
    Ok(Clean(failed.is_empty()))
}

/// Prints one line, and what was violated; says whether all held.
fn print(verdict: &Verdict) -> bool {
    let totals = &verdict.verdict.totals;
    let recovered = verdict.verdict.finding("recovery");
    let recovered = recovered.and_then(|found| found.figures.get("recovered_seconds"));
    println!(
        "{:>8} {:>8} {:>8} {:>8} {:>7} {:>8.1}s {:>9}  {}",
        verdict.seed,
        totals.acknowledged,
        totals.read,
        totals.committed,
        totals.faults(),
        verdict.took.as_secs_f64(),
        recovered.map_or("never".to_owned(), |seconds| format!("{seconds:.1}s")),
        if verdict.holds() { "ok" } else { "VIOLATED" }
    );
    if !verdict.holds() {
        println!("{}", verdict.verdict);
        for op in &verdict.history.ops {
            if let Action::Fault(fault) = &op.action {
                let at = Duration::from_nanos(op.time).as_secs_f64();
                println!("  {at:>8.3}s {:?} {}", fault.phase, fault.detail);
            }
        }
    }
    verdict.holds()
}
