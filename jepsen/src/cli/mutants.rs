//! `mutants`: planted bugs, each of which a checker must refuse.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use seriatim_jepsen::mutants::{
    hunt::{Fate, Hunt},
    spec::{self, FOLDER, Spec},
    table,
};
use tokio::{process::Command, runtime::Builder};

use super::{Clean, Outcome};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        seriatim-jepsen mutants\n  \
        seriatim-jepsen mutants ack-before-fsync vote-for-two --budget 120")]
pub(crate) struct Args {
    /// Only these; all of jepsen/mutants unless given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Real seconds after which a mutant counts as not found.
    #[arg(long, default_value_t = 600, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    budget: u64,
    /// Seeds that run at the same time; as many as there are cores unless given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Write what became of each to the table of jepsen/mutants/README.md, once it is known.
    #[arg(long)]
    update: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    ensure!(
        !cfg!(feature = "mutants"),
        "this program has the mutants itself and is not what is shipped: build it without that \
         feature, it builds the other one"
    );
    let root = spec::repository(&env::current_dir()?)?;
    let specs = spec::read(&root, &args.names)?;
    let executor = Builder::new_current_thread().enable_all().build()?;
    executor.block_on(hunt_all(args, &root, specs))
}

async fn hunt_all(args: &Args, root: &Path, specs: Vec<Spec>) -> Outcome {
    let mutants = build(root).await?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut hunt = Hunt {
        root: root.to_owned(),
        mutants,
        shipped: env::current_exe().context("find this program")?,
        jobs: args.jobs.map_or(cores, usize::from),
        budget: Duration::from_secs(args.budget),
        seen: BTreeMap::new(),
    };
    let count = specs.len();
    let mut all = Vec::with_capacity(count);
    for spec in specs {
        let fate = hunt.run(&spec).await;
        let fate = fate.with_context(|| format!("run seeds with the mutant {}", spec.name))?;
        print(&spec, &fate);
        if args.update {
            update(root, &spec, &fate)?;
        }
        all.push((spec, fate));
    }
    let refused = all.iter().filter(|(_, fate)| fate.expected).count();
    let clean = all.iter().all(|(_, fate)| fate.unclean.is_empty());
    println!(
        "{refused} of {count} mutants were refused by a checker that names what they break; the \
         shipped code {}",
        if clean { "held" } else { "did NOT hold" }
    );
    Ok(Clean(count > 0 && all.iter().all(|(_, fate)| fate.good())))
}

/// Builds the program that has the mutants; tells where it is.
async fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = [
        "build",
        "--profile",
        "mutants",
        "-p",
        "seriatim-jepsen",
        "--features",
        "mutants",
    ];
    let target = match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    };
    let status = Command::new(&cargo)
        .args(args)
        .current_dir(root)
        .status()
        .await
        .with_context(|| format!("start {}", cargo.display()))?;
    ensure!(
        status.success(),
        "cargo could not build the mutants: {status}"
    );
    Ok(target.join("mutants").join("seriatim-jepsen"))
}

fn print(spec: &Spec, fate: &Fate) {
    let name = &spec.name;
    let cost = format!(
        "{} seeds, {:.0} virtual s, {:.0} s",
        fate.seeds,
        fate.virtual_time.as_secs_f64(),
        fate.took.as_secs_f64()
    );
    let checkers: Vec<&str> = fate.checkers.iter().map(String::as_str).collect();
    let checkers = checkers.join(", ");
    let ended = match fate.seed {
        Some(seed) if fate.expected => format!("seed {seed} ({cost}): {checkers}"),
        Some(seed) => format!("seed {seed} ({cost}): {checkers} (others were expected)"),
        None => format!("SURVIVED ({cost})"),
    };
    println!("{name:<32} {ended}");
    for violation in &fate.violations {
        println!("    {violation}");
    }
    for unclean in &fate.unclean {
        println!("    WITHOUT THE MUTANT: {unclean}");
    }
}

fn update(root: &Path, spec: &Spec, fate: &Fate) -> anyhow::Result<()> {
    let path = root.join(FOLDER).join("README.md");
    let page = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let page = table::with_row(&page, &table::row(spec, fate));
    let page = page.with_context(|| format!("{} has no place for a table", path.display()))?;
    fs::write(&path, page).with_context(|| format!("write {}", path.display()))
}
