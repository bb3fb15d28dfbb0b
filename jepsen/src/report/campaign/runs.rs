//! Directories of single runs.

use std::{fs, io::BufRead as _, path::Path};

use anyhow::Context as _;

use crate::{check::Verdict, history::Header};

/// One run, as its directory tells it.
#[derive(Debug, Clone)]
pub struct Run {
    /// The name of the directory.
    pub name: String,
    /// What the history is about.
    pub header: Header,
    /// What came of it.
    pub verdict: Verdict,
}

impl Run {
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
        })
    }

    /// The largest figure of a checker whose name begins like this.
    pub(super) fn figure(&self, checker: &str, name: &str) -> Option<f64> {
        crate::report::parts::figure(&self.verdict, checker, name).map(|(_, value)| value)
    }
}
