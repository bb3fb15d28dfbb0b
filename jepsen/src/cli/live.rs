//! `run --live`: real processes.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use seriatim_jepsen::{
    history::{Action, Kind as OpKind},
    live::{self, Options, Outcome as Run, schedule},
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
    /// Records per second that the clients send.
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u64).range(1..=50_000))]
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
    keep(&out, &ran)?;
    Ok(report(&ran))
}

fn keep(out: &Path, run: &Run) -> anyhow::Result<()> {
    let path = out.join("history.jsonl");
    let what = || format!("write {}", path.display());
    let mut file = BufWriter::new(File::create(&path).with_context(what)?);
    serde_json::to_writer(&mut file, &run.header).with_context(what)?;
    for op in &run.ops {
        file.write_all(b"\n").with_context(what)?;
        serde_json::to_writer(&mut file, op).with_context(what)?;
    }
    file.write_all(b"\n").with_context(what)?;
    file.flush().with_context(what)
}

fn report(run: &Run) -> Clean {
    for why in &run.left_out {
        println!("left out: {why}");
    }
    println!(
        "{} faults, {} left out because another had the node",
        run.struck, run.skipped
    );
    let mut clean = run.failures.is_empty();
    for failure in &run.failures {
        println!("FAILED {failure}");
    }
    let mut asked = 0;
    for op in &run.ops {
        match (&op.action, op.kind) {
            (Action::Impossible(what), _) => {
                println!("IMPOSSIBLE at {:.3} s: {what}", seconds(op.time));
                clean = false;
            }
            (Action::Recover, OpKind::Invoke) => asked = op.time,
            (Action::Recover, _) => println!("recovered in {:.3} s", seconds(op.time - asked)),
            _ => {}
        }
    }
    Clean(clean)
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}
