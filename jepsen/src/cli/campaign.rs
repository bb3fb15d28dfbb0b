//! `campaign`: many seeds, in as many sittings as it takes; and figures of campaigns and of runs.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{cell::RefCell, fs, io, ops::Range, path::PathBuf, time::Duration};

use anyhow::Context as _;
use seriatim_jepsen::{
    report::campaign::{Campaign, Ledger, Run, Terms, of_campaign, of_runs},
    sim::fleet::{Done, Fleet},
};
use tokio::runtime::Builder;

use super::{
    Clean, Outcome, mixes,
    plan::{Given, Plan},
    progress::Progress,
    sim::seeds,
};

/// Failures that are told at once; all of them stand in the summary.
const TOLD_MAX: usize = 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    seriatim-jepsen campaign --seeds 0..20000 --out /var/tmp/campaign\n  \
    seriatim-jepsen campaign --summary /var/tmp/campaign\n  \
    seriatim-jepsen campaign --live --bin target/release/seriatim --out /var/tmp/live\n  \
    seriatim-jepsen campaign --summary /tmp/live-1 /tmp/live-2\n\n\
    A campaign that was stopped goes on when the same command is given again.")]
pub(crate) struct Args {
    /// Seeds, the last one excluded.
    #[arg(long, value_parser = seeds, value_name = "A..B", requires = "out",
          required_unless_present_any = ["summary", "live"])]
    seeds: Option<Range<u64>>,
    #[command(flatten)]
    plan: Plan,
    #[command(flatten)]
    given: Given,
    /// Seeds that run at the same time; as many as there are cores unless given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Real seconds after which a seed counts as hanging.
    #[arg(long, default_value_t = 300, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Run nothing; print tables of these campaigns, and of these directories of runs, in Markdown.
    #[arg(long, num_args = 1.., value_name = "DIR", conflicts_with = "seeds")]
    summary: Vec<PathBuf>,
    #[command(flatten)]
    mixes: mixes::Args,
}

pub(crate) fn run(args: &Args) -> Outcome {
    match (&args.seeds, &args.given.out) {
        (Some(seeds), _) => sit(args, seeds.clone()),
        (None, Some(dir)) if args.mixes.live => mixes::run(&args.mixes, dir),
        _ => summary(&args.summary),
    }
}

/// Runs the seeds that are missing.
fn sit(args: &Args, seeds: Range<u64>) -> Outcome {
    let dir = args
        .given
        .out
        .as_deref()
        .context("--out says where the campaign is kept")?;
    let program = std::env::current_exe().context("find this program")?;
    let decisive = args.plan.decisive(&args.given).into_iter();
    let decisive = decisive.map(|arg| arg.to_string_lossy().into_owned());
    let terms = Terms::new(&program, decisive.collect())?;
    let mut ledger = Ledger::open(dir, &terms, |_done| {})?;
    let missing: Vec<u64> = seeds.clone().filter(|seed| !ledger.has(*seed)).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut child = vec!["seed".into()];
    child.extend(args.plan.args(&args.given));
    let fleet = Fleet {
        program,
        args: child,
        jobs: args.jobs.map_or(cores, usize::from),
        limit: Duration::from_secs(args.limit),
        twice: false,
        trace: None,
        loud: false,
    };
    let progress = Progress::new(u64::try_from(missing.len()).unwrap_or(u64::MAX));
    let failed = RefCell::new(0);
    let each = |done: Done| -> io::Result<()> {
        ledger.add(&done)?;
        let wrong = done.wrong();
        if let Some(first) = wrong.first() {
            *failed.borrow_mut() += 1;
            if *failed.borrow() <= TOLD_MAX {
                progress.say(&format!(
                    "{}\n  {first}",
                    args.plan.replay(done.seed, &args.given)
                ));
            }
        }
        progress.done(*failed.borrow());
        Ok(())
    };
    let executor = Builder::new_current_thread().enable_all().build()?;
    let stopped = executor.block_on(async {
        tokio::select! {
            biased;
            ended = fleet.run(missing.into_iter(), each) => ended.map(|()| false),
            _ = tokio::signal::ctrl_c() => Ok(true),
            () = progress.lines() => Ok(false),
        }
    });
    progress.end();
    let stopped = stopped.context("run a seed")?;
    let campaign = Campaign::load(dir)?;
    let path = dir.join("campaign.json");
    fs::write(&path, serde_json::to_string_pretty(&campaign)?)
        .with_context(|| format!("write {}", path.display()))?;
    println!("{}", of_campaign(&campaign));
    let left = seeds.filter(|seed| !ledger.has(*seed)).count();
    if stopped {
        println!("stopped: {left} seeds are left; the same command goes on with them");
    }
    Ok(Clean(campaign.holds() && left == 0))
}

/// Prints tables of campaigns and of runs.
fn summary(dirs: &[PathBuf]) -> Outcome {
    let (mut runs, mut clean) = (Vec::new(), true);
    for dir in dirs {
        let ledger = dir.join(Ledger::FILE);
        let is_campaign = ledger.try_exists();
        if is_campaign.with_context(|| format!("look for {}", ledger.display()))? {
            let campaign = Campaign::load(dir)?;
            clean &= campaign.holds();
            println!("{}", of_campaign(&campaign));
        } else {
            runs.push(Run::load(dir)?);
        }
    }
    if !runs.is_empty() {
        clean &= runs.iter().all(Run::is_clean);
        println!("{}", of_runs(&runs));
    }
    Ok(Clean(clean))
}
