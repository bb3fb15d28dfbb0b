//! `seed`: one seed in this process, for the one that started it.
#![expect(clippy::print_stdout, reason = "the result goes to standard output")]

use std::{
    fs,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Signal, set_parent_process_death_signal};
use seriatim_jepsen::{
    check::Finding,
    history::{Action, FaultPhase, History, Kind},
    panics, report,
    sim::{
        outcome::{Check, NO_PANICS, Outcome as SeedOutcome},
        run::{Trace, Verdict, run as run_seed},
    },
};
use seriatim_runtime::{mark, sim::trace};

use super::{
    Clean, Outcome,
    plan::{Given, Plan},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    plan: Plan,
    #[command(flatten)]
    given: Given,
    /// Write a line for each event to this file.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Say what each checker found, and write the history even if nothing failed.
    #[arg(long)]
    keep: bool,
    /// The seed.
    seed: u64,
}

pub(crate) fn run(args: &Args) -> Outcome {
    // Nobody would read the result of an orphan.
    set_parent_process_death_signal(Some(Signal::KILL)).context("ask to end with the parent")?;
    panics::remember();
    let lines = args.trace.as_ref().map(trace_to).transpose()?;
    let options = args.plan.options(args.seed, &args.given)?;
    let verdict = run_seed(args.seed, &options, lines);
    let mut verdict = verdict.context("run the seed")?;
    verdict.history.header.replay = Some(args.plan.replay(args.seed, &args.given));
    let outcome = outcome(&verdict, panics::take());
    if args.keep {
        tell(&report::table(&verdict.verdict, &verdict.history.ops));
    }
    if let Some(dir) = &args.given.out
        && (args.keep || !outcome.holds())
    {
        save(&verdict, dir)?;
    }
    println!("{}", serde_json::to_string(&outcome)?);
    // Whether promises were kept stands in the result.
    Ok(Clean(true))
}

#[expect(clippy::print_stderr, reason = "standard output is for the result")]
fn tell(table: &str) {
    eprintln!("{table}");
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

fn outcome(verdict: &Verdict, panics: Vec<String>) -> SeedOutcome {
    let judged = &verdict.verdict;
    let check = |finding: &Finding| Check {
        checker: finding.name.clone(),
        looked_at: finding.looked_at,
        violations: finding.violations.iter().map(|v| v.text.clone()).collect(),
    };
    let mut checks: Vec<Check> = judged.checkers.iter().map(check).collect();
    checks.push(Check {
        checker: NO_PANICS.to_owned(),
        looked_at: u64::try_from(panics.len()).unwrap_or(u64::MAX),
        violations: panics,
    });
    let totals = &judged.totals;
    let counts = [
        ("operations", totals.operations),
        ("records acknowledged", totals.acknowledged),
        ("records read", totals.read),
        ("offsets committed", totals.committed),
    ];
    let mut outcome = SeedOutcome {
        seed: verdict.seed,
        checks,
        counts: counts.map(|(name, n)| (name.to_owned(), n)).into(),
        faults: totals.faults.clone(),
        marks: mark::visits()
            .map(|(name, visits)| (name.to_owned(), visits))
            .collect(),
        virtual_ms: u64::try_from(verdict.took.as_millis()).unwrap_or(u64::MAX),
        recovered_ms: recovered_ms(&verdict.history),
        history: format!("{:016x}", digest(&verdict.history)),
        trace: format!("{:016x}", verdict.trace.digest),
        events: verdict.trace.events,
        ..SeedOutcome::default()
    };
    if !outcome.holds() {
        outcome.timeline = timeline(&verdict.history);
    }
    outcome
}

/// Stands for every byte of a history.
fn digest(history: &History) -> u64 {
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _written = history.write(&mut bytes).is_ok();
    trace::hash(0, &bytes)
}

/// From the end of the last fault until everything worked again.
fn recovered_ms(history: &History) -> Option<u64> {
    let of = |kind: Kind| {
        let mut ops = history.ops.iter();
        ops.rfind(|op| op.action == Action::Recover && op.kind == kind)
    };
    let (began, ended) = (of(Kind::Invoke)?, of(Kind::Ok)?);
    Some(ended.time.saturating_sub(began.time) / 1_000_000)
}

fn timeline(history: &History) -> Vec<String> {
    let faults = history.ops.iter().filter_map(|op| match &op.action {
        Action::Fault(fault) => {
            let at = Duration::from_nanos(op.time).as_secs_f64();
            let phase = match fault.phase {
                FaultPhase::Begin => "begin",
                FaultPhase::End => "end",
                FaultPhase::Once => "once",
            };
            Some(format!(
                "{at:>8.3} s {phase:<5} {}: {}",
                fault.what, fault.detail
            ))
        }
        _ => None,
    });
    faults.collect()
}

/// Leaves what happened in the folder of the seed.
fn save(verdict: &Verdict, dir: &Path) -> anyhow::Result<()> {
    let folder = dir.join(format!("seed-{}", verdict.seed));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let history = folder.join("history.jsonl");
    verdict
        .history
        .save(&history)
        .with_context(|| format!("write {}", history.display()))?;
    report::save(&folder, &verdict.history, &verdict.verdict)
}
