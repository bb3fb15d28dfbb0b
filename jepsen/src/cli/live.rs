//! `run --live`: real processes.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use seriatim_jepsen::{
    check::check,
    live::{self, Notes, Options, Outcome as Run, schedule},
    report,
};

use super::{Clean, Outcome, plan::Given};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Live")]
#[group(skip)]
pub(crate) struct Args {
    /// What is broken: all, none, or a list such as kill,pause,partition.
    #[arg(long, default_value = "all", value_parser = schedule::parse, value_name = "LIST")]
    nemesis: std::vec::Vec<schedule::Kind>,
    /// How long, in seconds.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    time: u64,
    /// Nodes at the beginning.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: u64,
    /// Records per second that the clients send; members of groups fall behind far above the default.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=50_000))]
    rate: u64,
    /// The `seriatim` binary that nodes run; built or found beside this one if it is not named.
    #[arg(long, value_name = "FILE")]
    bin: Option<PathBuf>,
    /// An older build, which nodes run until they are upgraded.
    #[arg(long, value_name = "FILE")]
    old_bin: Option<PathBuf>,
    /// Keeps to addresses of loopback, as without root.
    #[arg(long)]
    loopback: bool,
}

/// Where a run leaves what it leaves, unless told otherwise.
const OUT: &str = "jepsen-out";

pub(crate) fn run(args: Args, seed: Option<u64>, given: Given) -> Outcome {
    let out = given.out.unwrap_or_else(|| PathBuf::from(OUT));
    let options = Options {
        nodes: args.nodes,
        kinds: args.nemesis,
        time: Duration::from_secs(args.time),
        out: out.clone(),
        seed: seed.unwrap_or(1),
        binary: args.bin,
        old_binary: args.old_bin,
        rate: args.rate,
        schedule: given.schedule,
        loopback: args.loopback,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let ran = runtime.block_on(live::run(options))?;
    drop(runtime);
    judge(&out, ran)
}

/// Writes what the run leaves, and prints what it came to.
fn judge(out: &Path, run: Run) -> Outcome {
    let Run { history, notes } = run;
    let path = out.join("history.jsonl");
    let what = || format!("write {}", path.display());
    history.save(&path).with_context(what)?;
    let path = out.join("history.edn");
    let what = || format!("write {}", path.display());
    let file = File::create(&path).with_context(what)?;
    history.write_edn(BufWriter::new(file)).with_context(what)?;
    let verdict = check(&history);
    report::save(out, &history, &verdict)?;
    // The last file: a run that has it is complete.
    let path = out.join(Notes::FILE);
    fs::write(&path, serde_json::to_string_pretty(&notes)?)
        .with_context(|| format!("write {}", path.display()))?;
    print(&notes);
    println!("{}", report::table(&verdict, &history.ops));
    for finding in &verdict.checkers {
        for (name, value) in &finding.figures {
            println!("{}: {name} {value:.3}", finding.name);
        }
    }
    for failure in &notes.failures {
        println!("FAILED {failure}");
    }
    if !notes.failures.is_empty() {
        println!("the run proves nothing: a fault was not what it should have been");
    }
    Ok(Clean(verdict.holds && notes.failures.is_empty()))
}

fn print(notes: &Notes) {
    for why in &notes.left_out {
        println!("left out: {why}");
    }
    println!(
        "{} faults, {} left out because another one had the node",
        notes.struck, notes.skipped
    );
}
