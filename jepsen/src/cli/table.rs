//! The verdict of many seeds, and of one, for people.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use seriatim_jepsen::sim::{
    fleet::{Done, End},
    outcome::NO_PANICS,
    summary::Summary,
};

/// Most failures that are listed.
const FAILURES_MAX: usize = 20;

/// Prints what the checkers of many seeds came to.
pub(crate) fn print_checks(summary: &Summary) {
    let mut checks = Table::new();
    let _table = checks.load_style(presets::NOTHING);
    let _header = checks.set_header(["promise", "looked at", "seeds that broke it"]);
    for (name, check) in &summary.checks {
        let broken = match check.broken {
            0 => "-".to_owned(),
            broken => broken.to_string(),
        };
        let _row = checks.add_row([name.clone(), check.looked_at.to_string(), broken]);
    }
    align(&mut checks);
    println!("{checks}\n");
}

/// Prints the figures of many seeds, and how to run those again that failed.
pub(crate) fn print(summary: &Summary, took: Duration, replay: impl Fn(u64) -> String) {
    println!("done      {}", figures(&summary.counts));
    println!("faults    {}", figures(&summary.faults));
    if !summary.marks.is_empty() {
        let (reached, never): (Vec<_>, Vec<_>) = summary.marks.iter().partition(|(_, n)| **n > 0);
        println!(
            "marks     {} of {} reached",
            reached.len(),
            summary.marks.len()
        );
        for (name, _) in never {
            println!("          never reached: {name}");
        }
    }
    if let Some((took_ms, seed)) = summary.slowest {
        let took = Duration::from_millis(took_ms).as_secs_f64();
        println!("recovery  {took:.1} s at most (seed {seed})");
    }
    if let Some(identical) = summary.identical {
        println!(
            "replay    {identical} of {} seeds ran twice alike",
            summary.seeds
        );
    }
    let (seconds, virtual_s) = (took.as_secs_f64(), summary.virtual_time().as_secs_f64());
    let speed = f64::from(u32::try_from(summary.seeds).unwrap_or(u32::MAX)) / seconds.max(0.001);
    println!(
        "seeds     {} in {seconds:.1} s ({speed:.2}/s), {virtual_s:.0} virtual seconds",
        summary.seeds
    );
    let failed = summary.failures.len();
    if failed == 0 {
        println!("verdict   all held");
        return;
    }
    println!("verdict   {failed} of {} seeds FAILED", summary.seeds);
    for failure in summary.failures.iter().take(FAILURES_MAX) {
        let first = failure.wrong.first().and_then(|wrong| wrong.lines().next());
        println!("\n  {}", replay(failure.seed));
        println!("    {}", first.unwrap_or_default());
    }
    if failed > FAILURES_MAX {
        println!("\n  and {} more", failed - FAILURES_MAX);
    }
}

fn align(table: &mut Table) {
    for column in 1..3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn figures(of: &BTreeMap<String, u64>) -> String {
    let all: Vec<String> = of.iter().map(|(name, n)| format!("{n} {name}")).collect();
    all.join(", ")
}

/// What is known of one seed besides the verdict, which its process has told.
pub(crate) fn seed(done: &Done) -> String {
    let End::Told(outcome) = &done.end else {
        return done.wrong().join("\n");
    };
    let mut text = String::new();
    let panics = outcome.checks.iter().filter(|c| c.checker == NO_PANICS);
    for panic in panics.flat_map(|check| &check.violations) {
        let _infallible = writeln!(text, "PANIC {panic}");
    }
    for fault in &outcome.timeline {
        let _infallible = writeln!(text, "  {fault}");
    }
    if let Some(differs) = done.differs() {
        let _infallible = writeln!(text, "the second run differs: {differs}");
    }
    text
}
