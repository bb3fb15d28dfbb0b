//! A disk that can be told to fail: a FUSE file system, served by a process of its own.
//!
//! It keeps what is written in two states, as it is and as a power loss would leave it, and moves
//! bytes and names from one to the other only when they are synced. It is a disk, not a cache: when
//! its process dies, its data are gone, and the run with them.

mod control;
mod fs;
mod image;
mod names;
mod pages;
mod serve;
mod syncs;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use seriatim_runtime::clock;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

use self::control::{Answer, Command};
pub use self::serve::serve;
use super::janitor::{Chore, Janitor, quoted};

/// How long a disk may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// Why there are no such disks here, if so.
pub(super) fn obstacle() -> Option<String> {
    let device = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    if let Err(error) = device {
        return Some(format!("/dev/fuse: {error}; load the kernel module fuse"));
    }
    let mounts = rustix::process::geteuid().is_root() || super::tool::find("fusermount3").is_some();
    (!mounts).then(|| "fusermount3 is missing: apt-get install fuse3".to_owned())
}

/// A disk. Dropped, it unmounts itself in its own time.
#[derive(Debug)]
pub(super) struct Disk {
    process: Child,
    chores: Vec<Chore>,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Disk {
    /// Mounts an empty one; its bytes lie in files below `store`.
    pub(super) async fn mount(
        mount: &Path,
        store: &Path,
        seed: u64,
        janitor: &Janitor,
    ) -> anyhow::Result<Self> {
        for folder in [mount, store] {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("make {}", folder.display()))?;
        }
        let umount = janitor.after(&format!("umount -l {}", quoted(mount)?))?;
        let mut process = tokio::process::Command::new(program()?)
            .arg("fuse-disk")
            .args([mount, store])
            .args(["--seed", &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("start a disk")?;
        let commands = process.stdin.take().context("no input")?;
        let output = process.stdout.take().context("no output")?;
        let pid = process.id().context("it has ended already")?;
        let kill = janitor.kill_after(pid)?;
        let mut disk = Self {
            process,
            chores: vec![umount, kill],
            commands,
            answers: BufReader::new(output).lines(),
        };
        let _mounted = disk.answer().await?;
        Ok(disk)
    }

    /// Unmounts it; its data are gone.
    pub(super) async fn unmount(mut self) -> anyhow::Result<()> {
        drop(self.commands);
        let status = clock::timeout(ANSWER, self.process.wait()).await;
        let status = status.context("a disk does not end")??;
        ensure!(status.success(), "a disk ended with {status}");
        self.chores.into_iter().for_each(Chore::done);
        Ok(())
    }

    async fn answer(&mut self) -> anyhow::Result<String> {
        let line = clock::timeout(ANSWER, self.answers.next_line()).await;
        let line = line.context("a disk does not answer")??;
        let Some(line) = line else {
            let status = self.process.wait().await?;
            bail!("the process of a disk ended ({status}), and its data with it");
        };
        match serde_json::from_str(&line)? {
            Answer::Done(what) => Ok(what),
            Answer::Failed(why) => bail!("{why}"),
        }
    }

    async fn tell(&mut self, command: &Command) -> anyhow::Result<String> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        self.commands.write_all(line.as_bytes()).await?;
        let told = self.answer().await;
        told.with_context(|| format!("tell a disk: {command:?}"))
    }

    /// Files can grow by so many bytes together, or as they like.
    pub(super) async fn room(&mut self, bytes: Option<u64>) -> anyhow::Result<()> {
        self.tell(&Command::Room(bytes)).await.map(drop)
    }

    /// Syncs take up to so many milliseconds.
    pub(super) async fn slow(&mut self, ms: u64) -> anyhow::Result<()> {
        self.tell(&Command::Slow(ms)).await.map(drop)
    }

    /// Syncs do not return, or do again.
    pub(super) async fn stuck(&mut self, stuck: bool) -> anyhow::Result<()> {
        self.tell(&Command::Stuck(stuck)).await.map(drop)
    }

    /// Syncs fail, or succeed again.
    pub(super) async fn failing(&mut self, failing: bool) -> anyhow::Result<()> {
        self.tell(&Command::Failing(failing)).await.map(drop)
    }

    /// The power fails; nobody may be using the disk. Says what was lost.
    pub(super) async fn power_loss(&mut self) -> anyhow::Result<String> {
        self.tell(&Command::PowerLoss).await
    }

    /// Bits flip in logs of partitions. Says where.
    pub(super) async fn rot(&mut self, flips: u32) -> anyhow::Result<String> {
        self.tell(&Command::Rot(flips)).await
    }
}

/// This program, which serves disks too.
fn program() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?)
}
