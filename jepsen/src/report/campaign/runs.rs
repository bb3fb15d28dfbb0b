//! Directories of single runs.

use std::{
    fs,
    io::{self, BufRead as _},
    path::Path,
};

use anyhow::Context as _;

use crate::{check::Verdict, history::Header, live::Notes};

/// One run, as its directory tells it.
#[derive(Debug, Clone)]
pub struct Run {
    /// The name of the directory.
    pub name: String,
    /// What the history is about.
    pub header: Header,
    /// What came of it.
    pub verdict: Verdict,
    /// Of a live run, what its history does not tell.
    pub notes: Notes,
}

impl Run {
    /// Whether every promise was kept, and the run proves it.
    pub fn is_clean(&self) -> bool {
        self.verdict.holds && self.notes.failures.is_empty()
    }

    /// What came of it, and which faults could not be made, in words.
    pub fn in_words(&self) -> String {
        let (outcome, left_out) = (self.outcome(), self.notes.left_out.join("; "));
        match left_out.is_empty() {
            true => outcome,
            false => format!("{outcome} (left out: {left_out})"),
        }
    }

    fn outcome(&self) -> String {
        let broken: Vec<&str> = self.verdict.broken().map(|one| one.name.as_str()).collect();
        match (self.verdict.holds, broken.is_empty()) {
            (true, _) if self.is_clean() => "held".to_owned(),
            (true, _) => format!("proves nothing: {}", self.notes.failures.join("; ")),
            (false, false) => format!("broken: {}", broken.join(", ")),
            (false, true) => "not clean".to_owned(),
        }
    }

    /// Reads a directory.
    pub fn load(dir: &Path) -> anyhow::Result<Self> {
        let (history, verdict) = (dir.join("history.jsonl"), dir.join("verdict.json"));
        let file = fs::OpenOptions::new().read(true).open(&history);
        let file = file.with_context(|| format!("read {}", history.display()))?;
        let mut line = String::new();
        let _bytes = std::io::BufReader::new(file)
            .read_line(&mut line)
            .with_context(|| format!("read {}", history.display()))?;
        let header = serde_json::from_str(&line);
        let text = fs::read(&verdict);
        let text = text.with_context(|| {
            format!(
                "read {}: `seriatim-jepsen check` judges a history that has no verdict",
                verdict.display()
            )
        })?;
        let judged = serde_json::from_slice(&text);
        Ok(Self {
            name: dir.file_name().map_or_else(
                || dir.display().to_string(),
                |name| name.to_string_lossy().into_owned(),
            ),
            header: header
                .with_context(|| format!("{}:1: the header was expected", history.display()))?,
            verdict: judged.with_context(|| format!("read {}", verdict.display()))?,
            notes: notes(&dir.join(Notes::FILE))?,
        })
    }

    /// The largest figure of a checker whose name begins like this.
    pub(super) fn figure(&self, checker: &str, name: &str) -> Option<f64> {
        crate::report::parts::figure(&self.verdict, checker, name).map(|(_, value)| value)
    }
}

/// What stands in this file; nothing, if there is none.
fn notes(path: &Path) -> anyhow::Result<Notes> {
    let what = || format!("read {}", path.display());
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).with_context(what),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Notes::default()),
        Err(error) => Err(error).with_context(what),
    }
}
