//! The `seriatim` binary that the nodes of a run are.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

/// The name of its file.
const NAME: &str = "seriatim";

/// The binary: the one that is named; or the one beside this program; or a new build, if this
/// program was built here.
///
/// # Errors
/// If there is none.
pub(super) fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let found = match named {
        Some(path) => path.to_owned(),
        None => beside_or_built()?,
    };
    // Nodes are started from other folders.
    let path = std::path::absolute(&found)?;
    let file = std::fs::metadata(&path);
    let file = file.with_context(|| format!("the binary {}", path.display()))?;
    ensure!(file.is_file(), "{} is no file", path.display());
    Ok(path)
}

fn beside_or_built() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().context("this program is in no folder")?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    if manifest.is_file() && super::tool::find("cargo").is_some() {
        build(&manifest, folder)
    } else {
        Ok(folder.join(NAME))
    }
}

/// Builds it in the profile that this program was built in, so that nothing is built twice.
fn build(manifest: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let folders = folder.ancestors().filter_map(Path::file_name);
    let mut names = folders.filter_map(|name| name.to_str());
    let profile = match names.find(|&name| name != "deps") {
        None | Some("debug") => "dev",
        Some(other) => other,
    };
    tracing::info!(profile, "building the binary");
    let output = Command::new("cargo")
        .args(["build", "--package", NAME, "--bin", NAME])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--profile", profile, "--manifest-path"])
        .arg(manifest)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    if !output.status.success() {
        bail!("cargo build: {}; name a binary with --bin", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let of_target = message.get("target")?.get("name")? == NAME;
        let path = message.get("executable")?.as_str()?;
        of_target.then(|| PathBuf::from(path))
    });
    executable.context("cargo names no executable")
}
