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

use super::common::Output;

/// Work on the logs of a data folder.
#[derive(Debug, clap::Subcommand)]
pub(super) enum LogCommand {
    /// Read every frame and verify every checksum; damage is named by file and byte position.
    #[command(after_help = "Example:\n  seriatim log verify ./seriatim-data --output json")]
    Verify {
        /// The data folder of a node that does not run.
        data_dir: PathBuf,
        /// Form of the result.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show every frame.
    #[command(after_help = "Example:\n  seriatim log dump ./seriatim-data --log g1-r4")]
    Dump {
        /// The data folder of a node that does not run.
        data_dir: PathBuf,
        /// Only this log, as its folder is named.
        #[arg(long)]
        log: Option<LogKey>,
        /// Form of the result; JSON gives one object a line.
        #[arg(long, value_enum, default_value_t)]
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
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", json(&report))?,
        Output::Table => table(&mut out, &report)?,
    }
    out.flush()?;
    if !report.is_clean() {
        bail!("{} damaged places", report.damage.len());
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

fn table(out: &mut impl std::io::Write, report: &VerifyReport) -> anyhow::Result<()> {
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
    writeln!(out, "{logs} logs, {files} files, {bytes} bytes")?;
    writeln!(
        out,
        "{frames} frames, {batches} batches, {records} records verified"
    )?;
    if *torn_bytes > 0 {
        writeln!(
            out,
            "{torn_bytes} bytes of torn tails, which the next start cuts"
        )?;
    }
    for place in damage {
        writeln!(
            out,
            "DAMAGE {} at byte {}: {}",
            place.file.display(),
            place.position,
            place.what
        )?;
    }
    if damage.is_empty() {
        writeln!(out, "clean")?;
    }
    Ok(())
}

fn dump(dir: &Path, only: Option<LogKey>, output: Output) -> anyhow::Result<()> {
    let disk = open(dir)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut failed = None;
    verify::dump(&disk, dir, only, &mut |frame| {
        let line = match output {
            Output::Json => frame_json(&frame).to_string(),
            Output::Table => frame_line(&frame),
        };
        failed = writeln!(out, "{line}").err();
        failed.is_none()
    })
    .with_context(|| format!("dump {}", dir.display()))?;
    if let Some(error) = failed.filter(|e| e.kind() != std::io::ErrorKind::BrokenPipe) {
        return Err(error.into());
    }
    out.flush()?;
    Ok(())
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
