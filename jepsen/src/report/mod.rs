//! What people read: the verdict on a terminal ([`table()`]), a page about one run ([`write`]), and
//! figures of many runs.

mod calls;
mod context;
mod escape;
pub mod judged;
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

use self::judged::Verdict;
use crate::history::History;

/// Writes `report.html` into the directory of a run; says where.
pub fn write(dir: &Path, history: &History, verdict: &Verdict) -> anyhow::Result<PathBuf> {
    let path = dir.join("report.html");
    let page = page::page(history, verdict).context("make the report")?;
    fs::write(&path, page).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
