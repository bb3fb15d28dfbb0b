//! `seed`: one seed in this process, for the one that started it.
#![expect(clippy::print_stdout, reason = "the result goes to standard output")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use rustix::process::{Signal, set_parent_process_death_signal};
use seriatim_jepsen::{
    panics,
    sim::{
        outcome::{Check, NO_PANICS, Outcome as SeedOutcome},
        run::{Trace, Verdict, run as run_seed},
    },
};

use super::{Clean, Outcome, plan::Plan};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    plan: Plan,
    /// Write a line for each event to this file.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// The seed.
    seed: u64,
}

pub(crate) fn run(args: &Args) -> Outcome {
    // Nobody would read the result of an orphan.
    set_parent_process_death_signal(Some(Signal::KILL)).context("ask to end with the parent")?;
    panics::remember();
    let lines = args.trace.as_ref().map(trace_to).transpose()?;
    let verdict = run_seed(args.seed, &args.plan.options(args.seed), lines);
    let verdict = verdict.context("run the seed")?;
    let outcome = outcome(&verdict, panics::take());
    println!("{}", serde_json::to_string(&outcome)?);
    // Whether promises were kept stands in the result.
    Ok(Clean(true))
}

fn trace_to(path: &PathBuf) -> anyhow::Result<Trace> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("write the trace to {}", path.display()))?;
    let mut file = BufWriter::new(file);
    Ok(Box::new(move |line| {
        // A trace that ends early shows.
        let _full = writeln!(file, "{line}").is_err();
    }))
}

/// Stands for what all clients saw.
fn digest(verdict: &Verdict) -> String {
    let ops = verdict.ops.iter();
    let ops = ops.flat_map(|op| serde_json::to_vec(op).unwrap_or_default());
    let of_ops = ops.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:016x}{of_ops:016x}", verdict.history.digest())
}

fn outcome(verdict: &Verdict, panics: Vec<String>) -> SeedOutcome {
    let history = &verdict.history;
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let mut checks: Vec<Check> = verdict
        .findings
        .iter()
        .map(|finding| Check {
            checker: finding.checker.to_owned(),
            looked_at: count(finding.looked_at),
            violations: finding.violations.clone(),
        })
        .collect();
    checks.push(Check {
        checker: NO_PANICS.to_owned(),
        looked_at: count(panics.len()),
        violations: panics,
    });
    let reads = history.reads.iter().map(|read| read.records.len()).sum();
    let counts = [
        ("records acknowledged", history.acknowledged()),
        ("records read", reads),
        ("offsets committed", history.committed()),
        ("appends", history.appends.len()),
        ("fetches", history.reads.len()),
        ("operations of real clients", verdict.ops.len()),
    ];
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for (_, fault) in &history.faults {
        let kind = fault.split_whitespace().take(2);
        let kind: Vec<_> = kind.filter(|word| !word.starts_with('n')).collect();
        *faults.entry(kind.join(" ")).or_default() += 1;
    }
    let timeline = history.faults.iter();
    let timeline = timeline.map(|(at, fault)| format!("{:>8.3} s {fault}", at.as_secs_f64()));
    let mut outcome = SeedOutcome {
        seed: verdict.seed,
        checks,
        counts: counts.map(|(name, n)| (name.to_owned(), count(n))).into(),
        faults,
        virtual_ms: u64::try_from(verdict.took.as_millis()).unwrap_or(u64::MAX),
        recovered_ms: history
            .recovered_after
            .map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        history: digest(verdict),
        trace: format!("{:016x}", verdict.trace.digest),
        events: verdict.trace.events,
        ..SeedOutcome::default()
    };
    if !outcome.holds() {
        outcome.timeline = timeline.collect();
    }
    outcome
}
