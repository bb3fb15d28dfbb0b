//! After a seed has failed: the least that must be broken for that.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::Context as _;
use seriatim_jepsen::sim::{
    fleet::{Done, End, Fleet},
    shrink::{Case, Shrunk, shrink},
};
use tokio::runtime::Builder;

use super::plan::{Given, Plan};

/// Most runs for one seed.
const TRIES_MAX: usize = 200;

/// Shrinks what was broken in a seed that failed; prints it, and how to run it.
pub(crate) fn run(done: &Done, fleet: &Fleet, plan: &Plan, given: &Given) -> anyhow::Result<()> {
    let seed = done.seed;
    let case = Case {
        schedule: plan.options(seed, given)?.schedule_of(seed),
        seconds: plan.seconds(),
    };
    let before = case.schedule.strikes.len();
    let temporary = tempfile::tempdir().context("make a folder for schedules")?;
    let tries = Tries {
        fleet,
        plan,
        seed,
        dir: temporary.path(),
        wrong: kinds(&done.end),
        count: AtomicUsize::new(0),
    };
    let executor = Builder::new_current_thread().enable_all().build()?;
    let shrunk = executor.block_on(async {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => None,
            shrunk = shrink(case, fleet.jobs, TRIES_MAX, |case| tries.fails(case)) => Some(shrunk),
        }
    });
    let Some(shrunk) = shrunk else {
        println!("shrinking was interrupted");
        return Ok(());
    };
    tell(seed, before, &shrunk, plan, given)
}

fn tell(
    seed: u64,
    before: usize,
    shrunk: &Shrunk,
    plan: &Plan,
    given: &Given,
) -> anyhow::Result<()> {
    let Shrunk {
        case,
        tries,
        is_least,
    } = shrunk;
    let least = if *is_least { "" } else { ", and perhaps fewer" };
    println!(
        "\nseed {seed} fails with {} of {before} strikes{least} ({tries} runs):",
        case.schedule.strikes.len()
    );
    print!("{}", case.schedule);
    let path = save(seed, case, given)?;
    let (plan, given) = plan.other(case.seconds, &path);
    println!("  {}", plan.replay(seed, &given));
    Ok(())
}

/// Leaves the schedule where it is found again.
fn save(seed: u64, case: &Case, given: &Given) -> anyhow::Result<PathBuf> {
    let path = match &given.out {
        Some(dir) => {
            let dir = dir.join(format!("seed-{seed}"));
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
            dir.join("shrunk.json")
        }
        None => std::env::temp_dir().join(format!("seriatim-seed-{seed}.json")),
    };
    case.schedule
        .write(&path)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Runs cases of one seed, each in a process of its own.
struct Tries<'a> {
    fleet: &'a Fleet,
    plan: &'a Plan,
    seed: u64,
    dir: &'a Path,
    /// What the first run failed with.
    wrong: Vec<String>,
    count: AtomicUsize,
}

impl Tries<'_> {
    /// Whether a case fails with one of those that the seed failed with.
    async fn fails(&self, case: Case) -> bool {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{number}.json"));
        if case.schedule.write(&path).is_err() {
            return false;
        }
        let (plan, given) = self.plan.other(case.seconds, &path);
        let mut args = vec!["seed".into()];
        args.extend(plan.args(&given));
        let fleet = Fleet {
            args,
            twice: false,
            trace: None,
            loud: false,
            ..self.fleet.clone()
        };
        let mut failed = false;
        let each = |done: Done| {
            failed = kinds(&done.end)
                .iter()
                .any(|kind| self.wrong.contains(kind));
            Ok(())
        };
        let ran = fleet.run(std::iter::once(self.seed), each).await;
        ran.is_ok() && failed
    }
}

/// What a run failed with, without what differs from run to run.
fn kinds(end: &End) -> Vec<String> {
    match end {
        End::Told(outcome) => {
            let broken = outcome.checks.iter().filter(|c| !c.violations.is_empty());
            broken.map(|check| check.checker.clone()).collect()
        }
        End::Died { .. } => vec!["died".to_owned()],
        End::Hung { .. } => vec!["hung".to_owned()],
    }
}
