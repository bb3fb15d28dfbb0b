//! `report`: a page about a run.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use seriatim_jepsen::{history::History, report};

use super::{Clean, Outcome};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  seriatim-jepsen report /tmp/seed-42")]
pub(crate) struct Args {
    /// The directory that `run --out` wrote.
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let path = args.dir.join("history.jsonl");
    let history = History::load(&path)?;
    let path = args.dir.join("verdict.json");
    let verdict = fs::read(&path).with_context(|| {
        format!(
            "read {}, which `seriatim-jepsen run --out` writes",
            path.display()
        )
    })?;
    let verdict = serde_json::from_slice(&verdict);
    let verdict = verdict.with_context(|| format!("read {}", path.display()))?;
    let page = report::write(&args.dir, &history, &verdict)?;
    println!("{}", page.display());
    // Whether promises were kept stands in the page.
    Ok(Clean(true))
}
