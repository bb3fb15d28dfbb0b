//! Figures as tables of Markdown, for docs/reliability.md.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{Campaign, Run};
use crate::report::parts::grouped;

/// Failures that are listed.
const FAILURES_MAX: usize = 50;

/// A campaign of seeds.
pub fn of_campaign(campaign: &Campaign) -> String {
    let summary = &campaign.summary;
    let mut out = String::from("| simulator | |\n|---|---|\n");
    let mut row = |name: &str, value: String| {
        let _infallible = writeln!(out, "| {name} | {value} |");
    };
    let range = campaign
        .seeds
        .map_or(String::new(), |(a, b)| format!(" ({a} to {b})"));
    row("seeds", format!("{}{range}", grouped(summary.seeds)));
    row("arguments", format!("`{}`", campaign.terms.args.join(" ")));
    row("virtual time", hours(summary.virtual_ms));
    for (name, count) in &summary.counts {
        row(name, grouped(*count));
    }
    let faults = summary.faults.values().sum();
    row(
        "faults",
        format!("{}: {}", grouped(faults), listed(&summary.faults)),
    );
    row(
        "things that checkers looked at",
        grouped(summary.looked_at()),
    );
    let reached = summary.marks.values().filter(|seeds| **seeds > 0).count();
    if !summary.marks.is_empty() {
        let never = summary.marks.iter().filter(|(_, seeds)| **seeds == 0);
        let never: Vec<String> = never.map(|(name, _)| format!("`{name}`")).collect();
        let never = match never.is_empty() {
            true => String::new(),
            false => format!("; never: {}", never.join(", ")),
        };
        let all = summary.marks.len();
        row(
            "rare branches reached",
            format!("{reached} of {all}{never}"),
        );
    }
    let recovery = &campaign.recovery;
    if recovery.seeds > 0 {
        let slowest = recovery.slowest.first().map_or(0, |slow| slow.seed);
        row(
            "recovery after the last fault",
            format!(
                "median {}, 99th percentile {}, longest {} (seed {slowest})",
                secs(recovery.p50_ms),
                secs(recovery.p99_ms),
                secs(recovery.max_ms)
            ),
        );
    }
    row(
        "seeds with a violation",
        grouped(count(summary.failures.len())),
    );
    checks(&mut out, campaign);
    failures(&mut out, campaign);
    out
}

fn checks(out: &mut String, campaign: &Campaign) {
    out.push_str("\n| checker | looked at | seeds that broke it |\n|---|---:|---:|\n");
    for (name, check) in &campaign.summary.checks {
        let looked_at = grouped(check.looked_at);
        let _infallible = writeln!(out, "| {name} | {looked_at} | {} |", grouped(check.broken));
    }
}

fn failures(out: &mut String, campaign: &Campaign) {
    let failures = &campaign.summary.failures;
    if failures.is_empty() {
        return;
    }
    out.push_str("\n| seed | what was broken | again |\n|---:|---|---|\n");
    for failure in failures.iter().take(FAILURES_MAX) {
        let wrong = failure
            .wrong
            .first()
            .map_or("", |wrong| wrong.lines().next().unwrap_or(""));
        let replay = campaign.replay(failure.seed);
        let _infallible = writeln!(out, "| {} | {} | `{replay}` |", failure.seed, cell(wrong));
    }
    let more = failures.len().saturating_sub(FAILURES_MAX);
    if more > 0 {
        let _infallible = writeln!(out, "\nand {more} more.");
    }
}

/// Runs, one in a row, and all of them.
pub fn of_runs(runs: &[Run]) -> String {
    let mut out = String::from(
        "| run | nodes | length | operations | records acknowledged | records read | faults | longest without \
         acknowledgement | recovery | verdict |\n|---|---:|---:|---:|---:|---:|---|---:|---:|---|\n",
    );
    let mut total = (0.0, 0, 0, 0, BTreeMap::<String, u64>::new(), 0);
    let mut slowest: (f64, f64) = (0.0, 0.0);
    for run in runs {
        let totals = &run.verdict.totals;
        let longest = run.figure("unavailability", "longest_seconds");
        let recovery = run.figure("recovery", "recovered_seconds");
        let shown = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |s| format!("{s:.2} s"));
        let _infallible = writeln!(
            out,
            "| {} | {} | {:.0} s | {} | {} | {} | {} | {} | {} | {} |",
            cell(&run.name),
            run.header.nodes,
            totals.seconds,
            grouped(totals.operations),
            grouped(totals.acknowledged),
            grouped(totals.read),
            cell(&listed(&totals.faults)),
            shown(longest),
            shown(recovery),
            verdict(run)
        );
        total.0 += totals.seconds;
        total.1 += totals.operations;
        total.2 += totals.acknowledged;
        total.3 += totals.read;
        for (kind, faults) in &totals.faults {
            *total.4.entry(kind.clone()).or_default() += faults;
        }
        total.5 += usize::from(run.is_clean());
        slowest = (
            slowest.0.max(longest.unwrap_or(0.0)),
            slowest.1.max(recovery.unwrap_or(0.0)),
        );
    }
    let _infallible = writeln!(
        out,
        "| all {} | | {:.0} s | {} | {} | {} | {} | {:.2} s | {:.2} s | {} of {} held |",
        runs.len(),
        total.0,
        grouped(total.1),
        grouped(total.2),
        grouped(total.3),
        cell(&listed(&total.4)),
        slowest.0,
        slowest.1,
        total.5,
        runs.len()
    );
    out
}

fn verdict(run: &Run) -> String {
    let words = cell(&run.in_words());
    match run.is_clean() {
        true => words,
        false => format!("**{words}**"),
    }
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let counts = counts
        .iter()
        .map(|(name, n)| format!("{name} {}", grouped(*n)));
    counts.collect::<Vec<_>>().join(", ")
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn hours(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..600 => format!("{seconds} s"),
        600..36_000 => format!("{} minutes", seconds / 60),
        _ => format!("{} hours", grouped(seconds / 3600)),
    }
}

fn secs(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
