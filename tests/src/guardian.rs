//! Ends a process when this one is gone, even if that was killed and could clean up nothing.

use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

/// Reads its standard input, whose other end this process holds; at the end of it, kills.
const SCRIPT: &str = "read dismissed && exit 0; kill -9 \"$1\" 2>/dev/null";

/// A shell that waits for the end of this process. Dropping it dismisses it.
#[derive(Debug)]
pub(crate) struct Guardian {
    shell: Child,
}

impl Guardian {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "guardian", &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start a guardian")?;
        Ok(Self { shell })
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // Killed before the pipe closes, so it cannot take that for the end of this process.
        let _already_gone = self.shell.kill();
        let _status = self.shell.wait();
    }
}
