//! `check`: judges a history alone.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use seriatim_jepsen::{check::check, history::History};

use super::{Clean, Outcome};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        seriatim-jepsen check DIR/history.jsonl\n  \
        seriatim-jepsen check DIR/history.jsonl --json > verdict.json\n  \
        seriatim-jepsen check DIR/history.jsonl --edn history.edn")]
pub(crate) struct Args {
    /// The history: JSON lines, the header first.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the verdict as JSON, as it stands in verdict.json.
    #[arg(long)]
    json: bool,
    /// Write the history for Jepsen's own checker too, in the form of jepsen.tests.kafka.
    #[arg(long, value_name = "OUT")]
    edn: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let history = History::load(&args.file)?;
    if let Some(path) = &args.edn {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        history
            .write_edn(BufWriter::new(file))
            .with_context(|| format!("write {}", path.display()))?;
    }
    let verdict = check(&history);
    if args.json {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &verdict)?;
        out.write_all(b"\n")?;
    } else {
        println!("{verdict}");
    }
    Ok(Clean(verdict.holds))
}
