//! `campaign --live`: runs of real processes, one after the other, each with another mix of faults.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use seriatim_jepsen::{
    live::{
        Notes,
        schedule::{MIXES, Mix},
    },
    report::campaign::{Run, Terms, of_runs},
};
use tokio::{process::Command, runtime::Builder};

use super::{Clean, Outcome};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Runs of real processes, one with each mix of faults.
    #[arg(long, requires_all = ["out", "bin"], conflicts_with_all = ["seeds", "summary"])]
    pub(crate) live: bool,
    /// How long each of them is, in seconds.
    #[arg(long, default_value_t = 300, requires = "live", value_name = "SECONDS")]
    time: u64,
    /// The `seriatim` binary that nodes run.
    #[arg(long, requires = "live", value_name = "FILE")]
    bin: Option<PathBuf>,
    /// An older build, which nodes run until they are upgraded.
    #[arg(long, requires = "live", value_name = "FILE")]
    old_bin: Option<PathBuf>,
    /// The seed of the first run; each one after it has the next.
    #[arg(long, default_value_t = 1, requires = "live", value_name = "S")]
    first_seed: u64,
}

/// Makes the runs that are missing in a folder, and prints the table of all.
pub(crate) fn run(args: &Args, dir: &Path) -> Outcome {
    let program = std::env::current_exe().context("find this program")?;
    args.terms(&program)?.agree(dir)?;
    let executor = Builder::new_current_thread().enable_all().build()?;
    for (seed, mix) in (args.first_seed..).zip(&MIXES) {
        let out = dir.join(mix.name);
        if is_complete(&out)? {
            println!("{}: is there already", mix.name);
            continue;
        }
        let command = args.command(&program, seed, mix, &out);
        let ended = executor.block_on(made(command, dir, mix))?;
        match ended {
            Ended::Complete => println!("{}", told(&out)?),
            Ended::Stopped => {
                println!("stopped; the same command goes on with {}", mix.name);
                return Ok(Clean(false));
            }
        }
    }
    let runs = MIXES.iter().map(|mix| Run::load(&dir.join(mix.name)));
    let runs: Vec<Run> = runs.collect::<anyhow::Result<_>>()?;
    println!("\n{}", of_runs(&runs));
    Ok(Clean(runs.iter().all(Run::is_clean)))
}

enum Ended {
    Complete,
    /// By Ctrl-C.
    Stopped,
}

impl Args {
    /// What all runs have in common.
    fn terms(&self, program: &Path) -> anyhow::Result<Terms> {
        let mut args = vec![format!("--time={}", self.time)];
        args.push(format!("--first-seed={}", self.first_seed));
        let binaries = [("--bin", &self.bin), ("--old-bin", &self.old_bin)];
        for (name, path) in binaries {
            if let Some(path) = path {
                // What counts is what is in it.
                args.push(format!("{name}={}", Terms::new(path, Vec::new())?.build));
            }
        }
        Terms::new(program, args)
    }

    fn command(&self, program: &Path, seed: u64, mix: &Mix, out: &Path) -> Command {
        let mut command = Command::new(program);
        let _run = command.args(["run", "--live"]).stdin(Stdio::null());
        let mut option = |name: &str, value: OsString| {
            let _command = command.arg(name).arg(value);
        };
        option("--nemesis", mix.list().into());
        option("--nodes", mix.nodes.to_string().into());
        option("--time", self.time.to_string().into());
        option("--seed", seed.to_string().into());
        option("--out", out.into());
        if let Some(path) = &self.bin {
            option("--bin", path.into());
        }
        if let Some(path) = &self.old_bin {
            option("--old-bin", path.into());
        }
        command
    }
}

/// Makes one run; what it prints is kept beside its folder.
async fn made(mut command: Command, dir: &Path, mix: &Mix) -> anyhow::Result<Ended> {
    let path = dir.join(format!("{}.txt", mix.name));
    let printed = File::create(&path).with_context(|| format!("write {}", path.display()))?;
    let _printed = command.stdout(printed.try_clone()?).stderr(printed);
    println!(
        "{}: {} on {} nodes; see {}",
        mix.name,
        mix.list(),
        mix.nodes,
        path.display()
    );
    let mut child = command.spawn().context("start a run")?;
    let (status, stopped) = tokio::select! {
        biased;
        status = child.wait() => (status?, false),
        // The run hears it too, and mends what it broke.
        told = tokio::signal::ctrl_c() => { told?; (child.wait().await?, true) }
    };
    match (status.code(), stopped) {
        (_, true) => Ok(Ended::Stopped),
        (Some(0 | 1), false) => Ok(Ended::Complete),
        _ => bail!(
            "{}: the run ended with {status}: see {}",
            mix.name,
            path.display()
        ),
    }
}

/// A run in a line.
fn told(out: &Path) -> anyhow::Result<String> {
    let run = Run::load(out)?;
    let totals = &run.verdict.totals;
    Ok(format!(
        "{}: {}; {} faults, {} operations",
        run.name,
        run.in_words(),
        totals.faults(),
        totals.operations
    ))
}

/// Whether a folder holds a whole run. What is there of one that was cut short is removed, unless it shows
/// a violation.
fn is_complete(out: &Path) -> anyhow::Result<bool> {
    let there = |path: &Path| {
        let there = path.try_exists();
        there.with_context(|| format!("look for {}", path.display()))
    };
    if there(&out.join(Notes::FILE))? {
        let run = Run::load(out)?;
        if !(run.notes.was_interrupted() && run.verdict.holds) {
            return Ok(true);
        }
    }
    if there(out)? {
        fs::remove_dir_all(out).with_context(|| format!("remove {}", out.display()))?;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use seriatim_jepsen::history::Header;

    use super::*;

    /// A folder as a run leaves it.
    fn left(out: &Path, holds: bool, failures: &[&str]) {
        let write = |name: &str, text: String| fs::write(out.join(name), text).unwrap();
        fs::create_dir_all(out).unwrap();
        let header = serde_json::to_string(&Header::default()).unwrap();
        write("history.jsonl", header + "\n");
        let totals = serde_json::json!({
            "ops": 0, "operations": 0, "acknowledged": 0, "read": 0, "committed": 0, "faults": {},
            "seconds": 1.0
        });
        let verdict = serde_json::json!({"holds": holds, "totals": totals, "checkers": []});
        write("verdict.json", verdict.to_string());
        let notes = Notes {
            failures: failures.iter().map(ToString::to_string).collect(),
            ..Notes::default()
        };
        write(Notes::FILE, serde_json::to_string(&notes).unwrap());
    }

    #[test]
    fn only_what_was_cut_short_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("mix");
        assert!(!is_complete(&out).unwrap());
        for (holds, failures) in [
            (true, &[][..]),
            (false, &[]),
            (true, &["kill [1]: it has ended"]),
            (false, &["it was interrupted"]),
        ] {
            left(&out, holds, failures);
            assert!(is_complete(&out).unwrap(), "{holds} {failures:?}");
        }
        left(&out, true, &["it was interrupted"]);
        assert!(!is_complete(&out).unwrap());
        assert!(!out.try_exists().unwrap());
        fs::create_dir_all(&out).unwrap();
        fs::write(out.join("history.jsonl"), "").unwrap();
        assert!(!is_complete(&out).unwrap());
        assert!(!out.try_exists().unwrap());
    }
}
