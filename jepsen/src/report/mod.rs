//! What people read: the verdict on a terminal ([`table()`]), a page about one run ([`write()`]), and
//! figures of many runs.

mod calls;
pub mod campaign;
mod context;
mod escape;
mod lanes;
mod page;
mod parts;
mod series;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

pub use table::table;

use crate::{check::Verdict, history::History};

/// Writes `verdict.json` and `report.html` into the directory of a run, beside its history.
pub fn save(dir: &Path, history: &History, verdict: &Verdict) -> anyhow::Result<()> {
    let path = dir.join("verdict.json");
    let text = serde_json::to_string_pretty(verdict)?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    write(dir, history, verdict).map(drop)
}

/// Writes `report.html` into the directory of a run; says where.
pub fn write(dir: &Path, history: &History, verdict: &Verdict) -> anyhow::Result<PathBuf> {
    let path = dir.join("report.html");
    let page = page::page(history, verdict).context("make the report")?;
    fs::write(&path, page).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
