//! A disk that is small enough to fill.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

/// Mounts, says so, and keeps the namespace alive until its standard input ends.
const HOLD: &str = "mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" && echo mounted && read end";

/// Ways into a mount namespace of one's own: as root, and without being root.
const WAYS: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];

/// A tmpfs of limited size in a mount namespace of its own: nobody else sees it, and it goes with
/// the last process that does, however that ends.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    prefix: Vec<String>,
    mount: TempDir,
}

impl SmallDisk {
    /// A disk of so many bytes.
    ///
    /// # Errors
    /// If this machine lets nobody mount anything, not even in a namespace of its own.
    pub fn of(bytes: u64) -> anyhow::Result<Self> {
        let mount = tempfile::Builder::new()
            .prefix("seriatim-disk-")
            .tempdir()?;
        let mut why = Vec::new();
        for way in WAYS {
            match hold(way, bytes, mount.path()) {
                Ok(holder) => {
                    let pid = holder.id().to_string();
                    let mut prefix = vec!["nsenter", "--target", &pid, "--mount"];
                    if way.len() > 1 {
                        prefix.extend(["--user", "--preserve-credentials"]);
                    }
                    prefix.push("--");
                    let prefix = prefix.into_iter().map(str::to_owned).collect();
                    return Ok(Self {
                        holder,
                        prefix,
                        mount,
                    });
                }
                Err(error) => why.push(format!("unshare {}: {error:#}", way.join(" "))),
            }
        }
        bail!("cannot make a small disk: {}", why.join("; "))
    }

    /// Where it is mounted, for processes started through [`prefix`](Self::prefix).
    pub fn path(&self) -> &Path {
        self.mount.path()
    }

    /// What to start a process through so that it sees the disk.
    pub fn prefix(&self) -> Vec<String> {
        self.prefix.clone()
    }

    /// The same folder as this process sees it.
    pub fn seen_from_outside(&self) -> anyhow::Result<PathBuf> {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        Ok(root.join(self.mount.path().strip_prefix("/")?))
    }

    /// Bytes free.
    ///
    /// # Errors
    /// If it is gone.
    pub fn free_bytes(&self) -> anyhow::Result<u64> {
        let stats = rustix::fs::statvfs(self.seen_from_outside()?)?;
        Ok(stats.f_bavail * stats.f_frsize)
    }
}

fn hold(way: &[&str], bytes: u64, path: &Path) -> anyhow::Result<Child> {
    let mut holder = Command::new("unshare")
        .args(way)
        .args(["sh", "-c", HOLD, "hold", &bytes.to_string()])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start unshare")?;
    let stdout = holder.stdout.take().context("no output")?;
    let mut said = String::new();
    let _bytes = BufReader::new(stdout).read_line(&mut said)?;
    if said.trim() == "mounted" {
        return Ok(holder);
    }
    let output = holder.wait_with_output()?;
    bail!("{}", String::from_utf8_lossy(&output.stderr).trim())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _already_gone = self.holder.kill();
        let _status = self.holder.wait();
    }
}
