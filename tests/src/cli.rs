//! The command line, as another program calls it.

use std::{
    ffi::OsStr,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::{io::AsyncWriteExt as _, process::Child, process::Command};

use crate::binary;

/// Longest that a command may take.
const LIMIT: Duration = Duration::from_secs(150);

/// `seriatim` with the servers of a cluster.
#[derive(Debug, Clone)]
pub struct Cli {
    servers: String,
    /// Program and arguments before the binary; empty for none.
    prefix: Vec<String>,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Cli {
    /// A command line that finds its servers in `SERIATIM_SERVERS`.
    pub fn new(servers: impl Into<String>) -> Self {
        Self {
            servers: servers.into(),
            prefix: Vec::new(),
        }
    }

    /// Runs every command through another program, such as `nsenter`.
    #[must_use]
    pub fn through(mut self, prefix: &[String]) -> Self {
        self.prefix = prefix.to_vec();
        self
    }

    /// The command, not yet started; it dies when its handle is dropped.
    ///
    /// # Errors
    /// If there is no binary.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> anyhow::Result<Command> {
        let mut command = command(&self.prefix)?;
        let _command = command
            .args(args)
            .env("SERIATIM_SERVERS", &self.servers)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Starts a command that runs on; [`finish`] waits for it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn<S: AsRef<OsStr>>(&self, args: &[S]) -> anyhow::Result<Child> {
        self.command(args)?.spawn().context("start a command")
    }

    /// Runs a command to its end, whatever that is.
    ///
    /// # Errors
    /// If it cannot be started or does not end.
    pub async fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> anyhow::Result<Finished> {
        finish(self.spawn(args)?).await
    }

    /// Runs a command with text on its standard input.
    ///
    /// # Errors
    /// If it cannot be started or does not end.
    pub async fn run_with<S: AsRef<OsStr>>(
        &self,
        args: &[S],
        input: &[u8],
    ) -> anyhow::Result<Finished> {
        let mut child = self.command(args)?.stdin(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(input).await?;
        drop(stdin);
        finish(child).await
    }

    /// Standard output of a command that must succeed.
    ///
    /// # Errors
    /// If it fails.
    pub async fn ok<S: AsRef<OsStr>>(&self, args: &[S]) -> anyhow::Result<String> {
        let finished = self.run(args).await?;
        let words: Vec<_> = args
            .iter()
            .map(|arg| arg.as_ref().to_string_lossy())
            .collect();
        ensure!(
            finished.status.success(),
            "seriatim {}: {}, {}",
            words.join(" "),
            finished.status,
            finished.stderr
        );
        Ok(finished.stdout)
    }

    /// The one JSON value that a command prints with `--output json`.
    ///
    /// # Errors
    /// If it fails or prints anything else.
    pub async fn json(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let with_output: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        let text = self.ok(&with_output).await?;
        serde_json::from_str(&text).with_context(|| format!("not one JSON value: {text}"))
    }
}

/// Waits for the end of a command.
///
/// # Errors
/// If it does not end.
pub async fn finish(child: Child) -> anyhow::Result<Finished> {
    let output = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .with_context(|| format!("a command did not end within {LIMIT:?}"))??;
    Ok(Finished {
        status: output.status,
        stdout: String::from_utf8(output.stdout).context("standard output is not UTF-8")?,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The binary behind a prefix, with nothing in its environment but what it needs to be found.
pub(crate) fn command(prefix: &[String]) -> anyhow::Result<Command> {
    let binary = binary::seriatim()?;
    let mut command = match prefix.split_first() {
        None => Command::new(binary),
        Some((program, args)) => {
            let mut command = Command::new(program);
            let _command = command.args(args).arg(binary);
            command
        }
    };
    let _command = command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        let _command = command.env("PATH", path);
    }
    Ok(command)
}
