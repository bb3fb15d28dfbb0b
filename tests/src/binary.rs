//! The `seriatim` binary that the processes under test run.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, bail};

/// Runs this binary instead of one built here.
const OVERRIDE: &str = "SERIATIM_BIN";

/// The binary, built once per process in the profile of this one.
///
/// # Errors
/// If it does not compile. `SERIATIM_BIN` names one that is there already.
pub fn seriatim() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match std::env::var_os(OVERRIDE) {
        Some(path) => Ok(PathBuf::from(path)),
        None => build(&["--bin", "seriatim"], "seriatim").map_err(|error| format!("{error:#}")),
    });
    match built {
        Ok(path) => Ok(path),
        Err(text) => bail!("no binary to test: {text}"),
    }
}

/// An example of the client library, built in the profile of this process.
///
/// # Errors
/// If it does not compile.
pub fn example(name: &str) -> anyhow::Result<PathBuf> {
    build(&["--example", name], name)
}

fn build(what: &[&str], name: &str) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(cargo)
        // All of the workspace, so that dependencies have the features that its tests have, and
        // what is built already is used.
        .args([
            "build",
            "--workspace",
            "--message-format=json-render-diagnostics",
        ])
        .args(["--manifest-path", manifest])
        .args(["--profile", &profile()?])
        .args(what)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    if !output.status.success() {
        bail!("cargo build of {name}: {}", output.status);
    }
    let messages = String::from_utf8(output.stdout)?;
    let executable = messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let of_target = message.get("target")?.get("name")? == name;
        let path = message.get("executable")?.as_str()?;
        of_target.then(|| PathBuf::from(path))
    });
    executable.with_context(|| format!("cargo names no executable for {name}"))
}

/// The profile of this process, by the folder it lies in: `target/PROFILE/deps/e2e-HASH`.
fn profile() -> anyhow::Result<String> {
    let this = std::env::current_exe()?;
    let folders = this.ancestors().skip(1).filter_map(Path::file_name);
    let folder = folders
        .map(|name| name.to_string_lossy().into_owned())
        .find(|name| name != "deps");
    Ok(match folder.context("this executable is in no folder")? {
        folder if folder == "debug" => "dev".to_owned(),
        folder => folder,
    })
}
