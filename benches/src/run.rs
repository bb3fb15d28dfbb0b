//! One invocation, from the plan to what is printed.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::{
    args::{CLIENTS_MAX, Cli},
    baseline::Baseline,
    compare::Comparison,
    consume,
    field::Field,
    nodes::{self, Nodes},
    output,
    plan::{Load, Mode, Plan, Target},
    produce,
    report::{Measured, Report},
    tail,
};

/// Each client sends from a thread of its own.
const BLOCKING_THREADS: usize = 2 * CLIENTS_MAX as usize;

/// Does what the command line asks.
///
/// # Errors
/// If it cannot be measured, or a record failed.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let plan = Plan::check(cli)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            outcome = Box::pin(measure(&plan)) => outcome,
            // Nodes end and data goes when their handles are dropped.
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                anyhow::bail!("interrupted")
            }
        }
    })
}

async fn measure(plan: &Plan) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        output::note("this is not a release build: the figures mean little");
    }
    let load = &plan.load;
    let dir = plan.dir.clone().unwrap_or_else(std::env::temp_dir);
    let machine = async || match plan.baseline {
        true => Baseline::measure(load, &dir).await.map(Some),
        false => Ok(None),
    };
    match &plan.target {
        Target::Running { servers } => {
            let baseline = machine().await?;
            let report = on_running(load, servers).await?.with_baseline(baseline);
            print(plan, &report, Report::table)?;
            all_done(report.failed)
        }
        Target::Own {
            nodes,
            binary,
            compare,
        } => {
            let binary = nodes::find_binary(binary.as_deref())?;
            let Some((other, runs)) = compare else {
                let baseline = machine().await?;
                let report = on_own(load, &binary, (*nodes, &dir)).await?;
                let report = report.with_baseline(baseline);
                print(plan, &report, Report::table)?;
                return all_done(report.failed);
            };
            let other = nodes::find_binary(Some(other))?;
            let mut reports = Vec::new();
            for run in 1..=*runs {
                output::note(&format!("run {run} of {runs}"));
                let a = on_own(load, &binary, (*nodes, &dir)).await?;
                let b = on_own(load, &other, (*nodes, &dir)).await?;
                reports.push((a, b));
            }
            let comparison = Comparison::new((&binary, &other), &reports);
            print(plan, &comparison, Comparison::table)?;
            all_done(reports.iter().map(|(a, b)| a.failed + b.failed).sum())
        }
    }
}

fn print<T: Serialize>(
    plan: &Plan,
    result: &T,
    table: impl Fn(&T) -> String,
) -> anyhow::Result<()> {
    match plan.json {
        true => output::print(&format!("{}\n", serde_json::to_string(result)?)),
        false => output::print(&table(result)),
    }
}

fn all_done(failed: u64) -> anyhow::Result<()> {
    ensure!(failed == 0, "{failed} records failed");
    Ok(())
}

async fn on_running(load: &Load, servers: &str) -> anyhow::Result<Report> {
    let field = Field::lay_out(load, servers, None).await?;
    let measured = in_mode(load, &field).await;
    field.clear().await?;
    Ok(report(load, &measured?))
}

/// Starts a cluster for one run, and stops it.
async fn on_own(load: &Load, binary: &Path, (count, dir): (u32, &Path)) -> anyhow::Result<Report> {
    let mut nodes = Nodes::start(binary, count, dir)?;
    let servers = nodes.servers();
    let field = Field::lay_out(load, &servers, Some(&mut nodes)).await?;
    let measured = in_mode(load, &field).await;
    // A node that died explains an error better than the error does.
    nodes.check_running()?;
    let measured = measured?;
    drop(field);
    nodes.stop().await?;
    Ok(report(load, &measured))
}

async fn in_mode(load: &Load, field: &Field) -> anyhow::Result<Measured> {
    match load.mode {
        Mode::Produce => produce::run(load, field).await,
        Mode::Consume { fill_bytes } => consume::run(load, field, fill_bytes).await,
        Mode::EndToEnd | Mode::Mixed => tail::run(load, field).await,
    }
}

fn report(load: &Load, measured: &Measured) -> Report {
    let tallies = [Some(&measured.tally), measured.read.as_ref()];
    for tally in tallies.into_iter().flatten() {
        for (text, count) in &tally.failures.examples {
            output::note(&format!("{count} records: {text}"));
        }
    }
    Report::new(load, measured)
}
