//! `run --sim`: seeds in simulation.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{
    cell::RefCell,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::ArgAction;
use seriatim_jepsen::sim::{
    fleet::{Done, Fleet},
    run::Options,
    summary::Summary,
};
use tokio::runtime::Builder;

use super::{
    Clean, Outcome,
    plan::{Given, Plan},
    progress::Progress,
    shrink, table,
};

/// Most failures that are shrunk.
const SHRUNK_MAX: usize = 2;

/// Most failures that are printed with all that is known of them.
const SHOWN_MAX: usize = 5;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Simulation")]
#[group(skip)]
pub(crate) struct Args {
    /// Seeds, the last one excluded.
    #[arg(long, conflicts_with = "seed", value_parser = seeds, default_value = "0..20", value_name = "A..B")]
    seeds: Range<u64>,
    #[command(flatten)]
    plan: Plan,
    /// Seeds that run at the same time; as many as there are cores unless given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Run each seed twice and compare everything that happened, to find what does not follow from
    /// the seed.
    #[arg(long, action = ArgAction::SetTrue)]
    twice: bool,
    /// Write each event of a single seed to this file as a line; with --twice those of the second
    /// run to the same name with `.again` behind it, and say where they part.
    #[arg(long, value_name = "FILE", requires = "seed")]
    trace: Option<PathBuf>,
    /// Real seconds after which a seed counts as hanging.
    #[arg(long, default_value_t = 300, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print what the first seed breaks, and run nothing.
    #[arg(long)]
    print_schedule: bool,
    /// Pass over the seeds in which clients of the real library work over gRPC, a third of all.
    #[arg(long, conflicts_with = "seed")]
    no_real_clients: bool,
    /// Run those seeds only.
    #[arg(long, conflicts_with_all = ["seed", "no_real_clients"])]
    only_real_clients: bool,
    /// Do not look for the least that must be broken for a seed to fail.
    #[arg(long)]
    no_shrink: bool,
}

impl Args {
    /// Whether a seed of the range is run.
    fn runs(&self, seed: u64) -> bool {
        let real = Options::default().of_seed(seed).real;
        !(self.no_real_clients && real || self.only_real_clients && !real)
    }

    /// How many of them are.
    fn count(&self, seeds: &Range<u64>) -> u64 {
        if self.no_real_clients || self.only_real_clients {
            let count = seeds.clone().filter(|&seed| self.runs(seed)).count();
            return u64::try_from(count).unwrap_or(u64::MAX);
        }
        seeds.end - seeds.start
    }
}

pub(super) fn seeds(text: &str) -> Result<Range<u64>, String> {
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

pub(crate) fn run(args: &Args, single: Option<u64>, given: &Given) -> Outcome {
    let seeds = match single {
        Some(seed) => seed..seed.saturating_add(1),
        None => args.seeds.clone(),
    };
    if args.print_schedule {
        let options = args.plan.options(seeds.start, given)?;
        print!("{}", options.schedule_of(seeds.start).to_json());
        return Ok(Clean(true));
    }
    let mut child: Vec<std::ffi::OsString> = vec!["seed".into()];
    child.extend(args.plan.args(given));
    if single.is_some() {
        child.push("--keep".into());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let fleet = Fleet {
        program: std::env::current_exe().context("find this program")?,
        args: child,
        jobs: args.jobs.map_or(cores, usize::from),
        limit: Duration::from_secs(args.limit),
        twice: args.twice,
        trace: args.trace.clone(),
        loud: single.is_some(),
    };
    let mut record = Record::new(given.out.as_deref())?;
    let progress = Progress::new(args.count(&seeds));
    #[expect(
        clippy::disallowed_methods,
        reason = "how long the command takes is real"
    )]
    let began = Instant::now();
    let executor = Builder::new_current_thread().enable_all().build()?;
    let all = RefCell::new(Summary::default());
    let mut failed = Vec::new();
    let interrupted = executor.block_on(async {
        let each = |done: Done| {
            let mut all = all.borrow_mut();
            record.add(&done)?;
            all.add(&done);
            progress.done(all.failures.len());
            tell(&progress, &done, all.failures.len(), single.is_some());
            if !args.no_shrink && failed.len() < SHRUNK_MAX && done.fails() {
                failed.push(done);
            }
            Ok(())
        };
        tokio::select! {
            biased;
            ended = fleet.run(seeds.filter(|seed| args.runs(*seed)), each) => ended.map(|()| false),
            _ = tokio::signal::ctrl_c() => Ok(true),
            () = progress.lines() => Ok(false),
        }
    });
    progress.end();
    let (summary, took) = (all.into_inner(), began.elapsed());
    record.end(&summary)?;
    if interrupted.context("run a process for a seed")? {
        println!("interrupted: what follows is of the seeds that were done");
    }
    if let (Some(trace), true) = (&args.trace, args.twice) {
        println!("{}", parting(trace)?);
    }
    if single.is_none() {
        table::print_checks(&summary);
    }
    table::print(&summary, took, |seed| args.plan.replay(seed, given));
    for done in &failed {
        shrink::run(done, &fleet, &args.plan, given)?;
    }
    Ok(Clean(summary.holds() && summary.seeds > 0))
}

/// Says at once what failed, and of a single seed everything.
fn tell(progress: &Progress, done: &Done, failed: usize, single: bool) {
    if single {
        progress.say(&table::seed(done));
    } else if !done.wrong().is_empty() && failed <= SHOWN_MAX {
        let (seed, wrong) = (done.seed, done.wrong().join("\n  "));
        progress.say(&format!("seed {seed}: {wrong}"));
    }
}

/// Where two traces part.
fn parting(trace: &Path) -> anyhow::Result<String> {
    let open = |path: &Path| -> anyhow::Result<_> {
        let file = fs::OpenOptions::new().read(true).open(path);
        let file = file.with_context(|| format!("read {}", path.display()))?;
        Ok(BufReader::new(file).lines())
    };
    let (mut first, mut second) = (open(trace)?, open(&Fleet::again(trace))?);
    let mut line = 0_u64;
    loop {
        line += 1;
        match (first.next().transpose()?, second.next().transpose()?) {
            (None, None) => return Ok(format!("both traces are the same {} lines", line - 1)),
            (a, b) if a == b => {}
            (a, b) => {
                let [a, b] = [a, b].map(|line| line.unwrap_or_else(|| "(its end)".to_owned()));
                return Ok(format!("the traces part in line {line}:\n  {a}\n  {b}"));
            }
        }
    }
}

/// Keeps the results of all seeds in a folder, if one was given.
struct Record {
    dir: Option<PathBuf>,
    seeds: Option<fs::File>,
}

impl Record {
    fn new(dir: Option<&Path>) -> anyhow::Result<Self> {
        let Some(dir) = dir else {
            return Ok(Self {
                dir: None,
                seeds: None,
            });
        };
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let path = dir.join("seeds.jsonl");
        let seeds = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(Self {
            dir: Some(dir.to_owned()),
            seeds: Some(seeds),
        })
    }

    fn add(&mut self, done: &Done) -> io::Result<()> {
        match &mut self.seeds {
            Some(seeds) => writeln!(seeds, "{}", serde_json::to_string(done)?),
            None => Ok(()),
        }
    }

    fn end(self, summary: &Summary) -> anyhow::Result<()> {
        if let Some(dir) = self.dir {
            let path = dir.join("summary.json");
            let text = serde_json::to_string_pretty(summary)?;
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_make_no_sense_are_refused_with_a_reason() {
        assert_eq!(seeds("1..1000"), Ok(1..1000));
        for (text, reason) in [
            ("7", "write A..B"),
            ("5..5", "the end is excluded"),
            ("9..2", "the end is excluded"),
            ("a..3", "`a` is no seed"),
            ("0..", "`` is no seed"),
            ("-1..4", "`-1` is no seed"),
        ] {
            let refused = seeds(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }

    #[test]
    fn the_first_line_in_which_traces_differ_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("trace");
        let again = Fleet::again(&trace);
        fs::write(&trace, "a\nb\nc\n").unwrap();
        fs::write(&again, "a\nb\nc\n").unwrap();
        assert_eq!(parting(&trace).unwrap(), "both traces are the same 3 lines");
        fs::write(&again, "a\nx\nc\n").unwrap();
        assert!(parting(&trace).unwrap().contains("line 2:\n  b\n  x"));
        fs::write(&again, "a\nb\n").unwrap();
        assert!(
            parting(&trace)
                .unwrap()
                .contains("line 3:\n  c\n  (its end)")
        );
    }
}
