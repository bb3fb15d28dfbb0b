//! One node process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{cli, guardian::Guardian, http, story, wait};

/// How long a node may take to be part of its cluster.
const READY: Duration = Duration::from_secs(30);
/// How long a node may take to end.
const END: Duration = Duration::from_secs(20);
/// Lines of its log that are shown when a story fails.
const LOG_LINES: usize = 80;

/// Where a node listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The native API.
    pub grpc: String,
    /// The replication lane.
    pub replication: String,
    /// Health and metrics.
    pub http: String,
}

/// A node: its files, and its process while it runs.
#[derive(Debug)]
pub struct Node {
    /// Its node id.
    pub id: u64,
    /// Where it listens.
    pub addresses: Addresses,
    /// Its data folder.
    pub data: PathBuf,
    config: PathBuf,
    log: PathBuf,
    prefix: Vec<String>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    // Dropped before the guardian is dismissed.
    child: Child,
    _guardian: Guardian,
}

impl Node {
    /// Writes the node's configuration; starts nothing. `data` is the data folder, `folder` holds
    /// configuration and log.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(
        id: u64,
        addresses: Addresses,
        seeds: &[String],
        (folder, data): (&Path, &Path),
        settings: &str,
    ) -> anyhow::Result<Self> {
        let config = folder.join(format!("node{id}.toml"));
        let text = format!(
            "node_id = {id}\ndata_dir = {data:?}\nseeds = {seeds:?}\n{settings}\n\n[listen]\n\
             grpc = \"{}\"\nreplication = \"{}\"\nhttp = \"{}\"\n",
            addresses.grpc, addresses.replication, addresses.http
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        Ok(Self {
            id,
            addresses,
            data: data.to_owned(),
            log: folder.join(format!("node{id}.log")),
            config,
            prefix: Vec::new(),
            running: None,
        })
    }

    /// Starts the process through another program, such as `nsenter`.
    #[must_use]
    pub fn through(mut self, prefix: &[String]) -> Self {
        self.prefix = prefix.to_vec();
        self
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Starts the process; does not wait until it is ready.
    ///
    /// # Errors
    /// If it runs already or cannot be started.
    pub fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.running.is_none(), "node {} runs already", self.id);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let mut command = cli::command(&self.prefix)?.into_std();
        let child = command
            .arg("start")
            .arg("--config")
            .arg(&self.config)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start node {}", self.id))?;
        let _guardian = Guardian::of(child.id())?;
        self.running = Some(Running { child, _guardian });
        Ok(())
    }

    /// Waits until the node is part of its cluster.
    ///
    /// # Errors
    /// If it ends before, or is not in time.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let what = format!("node {} is ready", self.id);
        let ready = wait::until(&what, READY, async || {
            if let Some(status) = self.ended()? {
                return Ok(Some(Err(status)));
            }
            let (code, _) = http::get(&self.addresses.http, "/readyz").await?;
            Ok((code == 200).then_some(Ok(())))
        });
        match ready.await? {
            Ok(()) => Ok(()),
            Err(status) => bail!("node {} ended ({status}) before it was ready", self.id),
        }
    }

    /// The process id, while it runs.
    ///
    /// # Errors
    /// If it does not.
    pub fn pid(&self) -> anyhow::Result<u32> {
        let running = self.running.as_ref();
        let running = running.with_context(|| format!("node {} does not run", self.id))?;
        Ok(running.child.id())
    }

    /// Whether a process was started that nobody has waited for.
    pub const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// How the process has ended, if it has by itself.
    ///
    /// # Errors
    /// If there is none.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let running = self.running.as_mut();
        let running = running.with_context(|| format!("node {} does not run", self.id))?;
        Ok(running.child.try_wait()?)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the node does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()?).ok().and_then(Pid::from_raw);
        kill_process(pid.context("not a process id")?, signal)
            .with_context(|| format!("signal node {}", self.id))
    }

    /// SIGKILL; the process is gone on return.
    ///
    /// # Errors
    /// If the node does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        let _status = self.wait().await?;
        Ok(())
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let what = format!("node {} ends", self.id);
        let status = wait::until(&what, END, async || self.ended()).await?;
        self.running = None;
        Ok(status)
    }

    /// Everything that its processes have logged.
    ///
    /// # Errors
    /// If it never started.
    pub fn log_text(&self) -> anyhow::Result<String> {
        let text = fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _already_gone = running.child.kill();
            let _status = running.child.wait();
        }
        if let Ok(text) = self.log_text() {
            let mut lines: Vec<&str> = text.lines().rev().take(LOG_LINES).collect();
            lines.reverse();
            story::keep_log(format!(
                "--- end of the log of node {}\n{}",
                self.id,
                lines.join("\n")
            ));
        }
    }
}
