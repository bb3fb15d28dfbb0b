//! A `seriatim produce` under way, and the check of everything that it was promised.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::process::Child;

use crate::{
    cli,
    cluster::Cluster,
    events,
    judge::{self, Acknowledged},
    wait,
};

/// Longest that so many more lines may take to be acknowledged.
const LIMIT: Duration = Duration::from_secs(60);

/// The command line writing the lines of a file, keyed by aircraft.
#[derive(Debug)]
pub struct Producing {
    child: Child,
    topic: String,
    file: PathBuf,
    acknowledged: PathBuf,
}

impl Producing {
    /// Starts to write the events of a file to a topic, so many lines a second.
    ///
    /// # Errors
    /// If the command cannot be started.
    pub fn start(cluster: &Cluster, topic: &str, file: &Path, rate: u32) -> anyhow::Result<Self> {
        let acknowledged = cluster.folder().join("acknowledged");
        let rate = rate.to_string();
        let files = (file.to_str(), acknowledged.to_str());
        let (Some(input), Some(acked)) = files else {
            anyhow::bail!("a path is not UTF-8");
        };
        let files = ["--file", input, "--acknowledged", acked];
        let how = ["--key-field", "tailnum", "--rate", &rate];
        let args: Vec<&str> = ["produce", topic]
            .into_iter()
            .chain(files)
            .chain(how)
            .collect();
        Ok(Self {
            child: cluster.cli().spawn(&args)?,
            topic: topic.to_owned(),
            file: file.to_owned(),
            acknowledged,
        })
    }

    /// What is acknowledged so far.
    ///
    /// # Errors
    /// If the command writes anything else.
    pub fn acknowledged(&self) -> anyhow::Result<Vec<Acknowledged>> {
        judge::acknowledged(&self.acknowledged)
    }

    /// Waits until so many lines are acknowledged.
    ///
    /// # Errors
    /// If they are not in time.
    pub async fn reach(&self, count: usize) -> anyhow::Result<()> {
        let what = format!("{count} lines are acknowledged");
        wait::until(&what, LIMIT, async || {
            Ok((self.acknowledged()?.len() >= count).then_some(()))
        })
        .await
    }

    /// Waits for the end and reads everything back. Every line was acknowledged; it is read once,
    /// at its offset, under its key and in the key's order; then the cluster is stopped, and the
    /// nodes' files are whole and alike. Returns the number of lines.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn finish(self, cluster: &mut Cluster) -> anyhow::Result<usize> {
        let finished = cli::finish(self.child).await?;
        ensure!(finished.status.success(), "produce: {}", finished.stderr);
        let lines = events::lines(&self.file)?;
        let acknowledged = judge::acknowledged(&self.acknowledged)?;
        ensure!(
            acknowledged.len() == lines.len(),
            "{} of {} lines are acknowledged",
            acknowledged.len(),
            lines.len()
        );
        let consume = ["consume", &self.topic, "--from", "start", "--until", "end"];
        let args: Vec<&str> = consume.into_iter().chain(["--output", "json"]).collect();
        let consumed = judge::consumed(&cluster.cli().ok(&args).await?)?;
        ensure!(
            consumed.len() == lines.len(),
            "{} of {} lines are read",
            consumed.len(),
            lines.len()
        );
        judge::exactly_once(&lines, &acknowledged, &consumed)?;
        for record in &consumed {
            let aircraft = events::tailnum(&record.value)?;
            ensure!(record.key == aircraft, "{record:?} has another key");
        }
        cluster
            .stop_and_check()
            .await
            .context("after all was read")?;
        Ok(lines.len())
    }
}
