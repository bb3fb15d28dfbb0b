//! A verdict on a terminal.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::{parts::grouped, words};
use crate::{
    check::{Finding, Verdict},
    history::Op,
};

/// Violations of one checker that are told.
const TOLD_MAX: usize = 5;

/// Entries of one violation that are told.
const ENTRIES_MAX: usize = 6;

/// One row for each checker, then what was broken and the entries that show it.
pub fn table(verdict: &Verdict, ops: &[Op]) -> String {
    let mut table = Table::new();
    let _styled = table.load_style(presets::NOTHING).set_header([
        "CHECKER",
        "PROMISE",
        "LOOKED AT",
        "VERDICT",
    ]);
    for checked in &verdict.checkers {
        let _row = table.add_row([
            checked.name.clone(),
            checked.promise.clone(),
            grouped(checked.looked_at),
            word(checked).to_owned(),
        ]);
    }
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = String::new();
    for line in table.lines() {
        let _infallible = writeln!(out, "{}", line.trim_end());
    }
    for checked in verdict.checkers.iter().filter(|c| !c.violations.is_empty()) {
        told(&mut out, checked, ops);
    }
    out
}

fn word(checked: &Finding) -> &'static str {
    match (checked.holds, checked.looked_at) {
        (false, _) => "VIOLATED",
        (true, 0) => "nothing to look at",
        (true, _) => "ok",
    }
}

fn told(out: &mut String, checked: &Finding, ops: &[Op]) {
    let _infallible = writeln!(out, "\n{}: {}", checked.name, checked.promise);
    for violation in checked.violations.iter().take(TOLD_MAX) {
        let _infallible = writeln!(out, "  {}", violation.text);
        let entries = violation.ops.iter().filter_map(|index| {
            let place = ops.binary_search_by_key(index, |op| op.index).ok()?;
            ops.get(place)
        });
        for op in entries.take(ENTRIES_MAX) {
            let _infallible = writeln!(out, "    {}", words::line(op));
        }
    }
    let told = u64::try_from(checked.violations.len().min(TOLD_MAX)).unwrap_or(u64::MAX);
    let more = checked.violated.saturating_sub(told);
    if more > 0 {
        let _infallible = writeln!(out, "  and {more} more");
    }
}
