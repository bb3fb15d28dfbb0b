//! `seriatim log verify` and `seriatim log dump`: offline, on a data folder.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use seriatim_storage::{
    LogKey,
    disk::{Disk, PosixDisk},
    verify::{self, DumpedFrame, VerifyReport},
};

use super::common::{Output, print};

pub(super) const EXAMPLES: &str = "Examples:
  seriatim log verify ./seriatim-data
  seriatim log dump ./seriatim-data --log g1-r4";

/// Work on the logs of a data folder
#[derive(Debug, clap::Subcommand)]
pub(super) enum LogCommand {
    /// Read every frame and verify every checksum
    ///
    /// Damage is named by file and byte position, and the exit code is 1 then.
    #[command(after_help = "Examples:
  seriatim log verify ./seriatim-data
  seriatim log verify /var/lib/seriatim --output json")]
    Verify {
        /// The data folder of a node that does not run
        data_dir: PathBuf,
        /// How to print the result
        #[arg(long, value_enum, default_value_t, value_name = "FORM")]
        output: Output,
    },
    /// Show every frame
    #[command(after_help = "Examples:
  seriatim log dump ./seriatim-data
  seriatim log dump ./seriatim-data --log g1-r4 --output json")]
    Dump {
        /// The data folder of a node that does not run
        data_dir: PathBuf,
        /// Only this log, as its folder below logs/ is named
        #[arg(long, value_name = "LOG")]
        log: Option<LogKey>,
        /// How to print a frame; JSON gives one object a line
        #[arg(long, value_enum, default_value_t, value_name = "FORM")]
        output: Output,
    },
}

pub(super) fn run(command: LogCommand) -> anyhow::Result<()> {
    match command {
        LogCommand::Verify { data_dir, output } => verify(&data_dir, output),
        LogCommand::Dump {
            data_dir,
            log,
            output,
        } => dump(&data_dir, log, output),
    }
}

fn open(dir: &Path) -> anyhow::Result<Arc<dyn Disk>> {
    if !dir.is_dir() {
        bail!("{} is no folder", dir.display());
    }
    if !dir.join("logs").is_dir() {
        bail!(
            "{} is not the data folder of a node: there is no folder 'logs' in it",
            dir.display()
        );
    }
    Ok(Arc::new(PosixDisk))
}

fn verify(dir: &Path, output: Output) -> anyhow::Result<()> {
    let disk = open(dir)?;
    let bar = indicatif::ProgressBar::new(0);
    bar.set_style(indicatif::ProgressStyle::with_template(
        "{bar:40} {bytes}/{total_bytes}",
    )?);
    let report = verify::verify_dir(&disk, dir, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report.with_context(|| format!("verify {}", dir.display()))?;
    match output {
        Output::Json => print(&format!("{}\n", json(&report)))?,
        Output::Table => print(&table(&report))?,
    }
    if !report.is_clean() {
        bail!(
            "{} damaged places; the node rebuilds such a replica from its peers when it starts",
            report.damage.len()
        );
    }
    Ok(())
}

fn json(report: &VerifyReport) -> serde_json::Value {
    let damage: Vec<_> = report
        .damage
        .iter()
        .map(|d| serde_json::json!({"file": d.file, "position": d.position, "what": d.what}))
        .collect();
    serde_json::json!({
        "clean": report.is_clean(),
        "logs": report.logs,
        "files": report.files,
        "frames": report.frames,
        "batches": report.batches,
        "records": report.records,
        "bytes": report.bytes,
        "torn_bytes": report.torn_bytes,
        "damage": damage,
    })
}

fn table(report: &VerifyReport) -> String {
    let VerifyReport {
        logs,
        files,
        frames,
        batches,
        records,
        bytes,
        torn_bytes,
        damage,
    } = report;
    let mut text = format!(
        "{logs} logs, {files} files, {bytes} bytes\n\
         {frames} frames, {batches} batches, {records} records verified\n"
    );
    if *torn_bytes > 0 {
        text += &format!("{torn_bytes} bytes of torn tails, which the next start cuts\n");
    }
    for place in damage {
        text += &format!(
            "DAMAGE {} at byte {}: {}\n",
            place.file.display(),
            place.position,
            place.what
        );
    }
    if damage.is_empty() {
        text += "clean\n";
    }
    text
}

fn dump(dir: &Path, only: Option<LogKey>, output: Output) -> anyhow::Result<()> {
    let disk = open(dir)?;
    if let Some(log) = only
        && !dir.join("logs").join(log.to_string()).is_dir()
    {
        bail!("there is no log {log} in {}", dir.join("logs").display());
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    verify::dump(&disk, dir, only, &mut |frame| {
        let line = match output {
            Output::Json => frame_json(&frame).to_string(),
            Output::Table => frame_line(&frame),
        };
        written = writeln!(out, "{line}");
        written.is_ok()
    })
    .with_context(|| format!("dump {}", dir.display()))?;
    match written.and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            // What is still in the buffer is for nobody.
            let (_stdout, _rest) = out.into_parts();
            Ok(())
        }
        other => other.context("write the frames"),
    }
}

fn frame_line(frame: &DumpedFrame) -> String {
    let header = &frame.header;
    let records = frame.batch.map_or(0, |batch| batch.record_count);
    format!(
        "{} {}@{} {:?} term={} index={} offset={} records={records} bytes={}",
        frame.log,
        frame.file.display(),
        frame.position,
        header.kind,
        header.log_id.term,
        header.log_id.index,
        header.base_offset,
        header.total_bytes(),
    )
}

fn frame_json(frame: &DumpedFrame) -> serde_json::Value {
    let header = &frame.header;
    serde_json::json!({
        "log": frame.log.to_string(),
        "file": frame.file,
        "position": frame.position,
        "kind": format!("{:?}", header.kind).to_lowercase(),
        "term": header.log_id.term,
        "index": header.log_id.index,
        "offset": header.base_offset.0,
        "records": frame.batch.map_or(0, |batch| batch.record_count),
        "bytes": header.total_bytes(),
        "crc": header.crc,
    })
}
