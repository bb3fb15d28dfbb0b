//! The processes of the members: started, stopped, killed.

use std::{
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::journal::{Event, Journal};
use crate::{guardian::Guardian, wait};

/// How long a member may take to leave.
const LEAVE: Duration = Duration::from_secs(60);

/// A member's process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    // Dropped before the guardian is dismissed.
    child: Child,
    _guardian: Guardian,
    /// Stopped until then.
    pub(super) paused_until: Option<Instant>,
}

impl Process {
    pub(super) fn start(
        program: &[String],
        args: &[(&str, &str)],
        name: String,
    ) -> anyhow::Result<Self> {
        let (first, rest) = program.split_first().context("no program")?;
        let mut command = Command::new(first);
        let _command = command.args(rest).args(["--name", &name]);
        for (option, value) in args {
            let _command = command.args([option, value]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("start a member: {}", PathBuf::from(first).display()))?;
        let _guardian = Guardian::of(child.id())?;
        Ok(Self {
            name,
            child,
            _guardian,
            paused_until: None,
        })
    }

    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("not a process id")?, signal)
            .with_context(|| format!("signal member {}", self.name))
    }

    /// How the process has ended, if it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// SIGKILL, noted before, because what the process does until then may be in the journal.
    pub(super) fn kill(mut self, journal: &Journal) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        journal.append(&Event::Killed(self.name.clone()))?;
        self.signal(Signal::KILL)?;
        let _status = self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; the member leaves by itself.
    pub(super) async fn leave(mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)?;
        self.signal(Signal::TERM)?;
        let what = format!("member {} leaves", self.name);
        let status = wait::until(&what, LEAVE, async || self.ended()).await?;
        anyhow::ensure!(status.success(), "member {} ended with {status}", self.name);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}
