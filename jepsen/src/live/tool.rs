//! Tools of the system: `ip`, `iptables`, `nsenter`.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, bail};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// Where a tool is, if it is installed.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // The folders of system tools are not in everybody's path.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(more);
    folders.find_map(|folder| Some(folder.join(program)).filter(|found| found.is_file()))
}

/// Runs a tool and returns what it printed.
///
/// # Errors
/// With what it complained about.
pub(super) async fn run(program: &str, args: &[&str]) -> anyhow::Result<String> {
    feed(program, args, "").await
}

/// The same, with something on its standard input.
pub(super) async fn feed(program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    let what = || format!("{program} {}", args.join(" "));
    let path = find(program).with_context(|| format!("{program} is not installed"))?;
    let mut child = Command::new(path)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(what)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading all of it, and says why then.
        let _read = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.with_context(what)?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", what(), output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
