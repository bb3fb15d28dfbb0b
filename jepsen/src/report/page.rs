//! One page about one run, with everything in it: it needs no other file and no network.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use serde::Serialize;

use super::{
    calls::{Call, Span, calls, faults},
    context::Index,
    escape::{Text, json_in_script},
    lanes::{Timeline, timeline},
    parts,
    series::{Series, series},
    summary::by_kind,
};
use crate::{check::Verdict, history::History};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What is drawn by the page itself.
#[derive(Serialize)]
struct Data<'a> {
    length_ms: f64,
    #[serde(flatten)]
    series: Series,
    #[serde(flatten)]
    timeline: Timeline,
    faults: Vec<Shaded<'a>>,
    fault_kinds: BTreeSet<&'a str>,
    /// Invocations of operations that show a violation.
    broken: BTreeSet<u64>,
    /// When entries were made that show one, in milliseconds.
    violations: Vec<f64>,
}

/// A fault.
#[derive(Serialize)]
struct Shaded<'a> {
    what: &'a str,
    detail: &'a str,
    start: f64,
    end: f64,
    once: bool,
}

/// Milliseconds, with their fractions.
pub(super) fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

/// The page about a run.
pub(super) fn page(history: &History, verdict: &Verdict) -> Result<String, fmt::Error> {
    let History { header, ops } = history;
    let (calls, faults) = (calls(ops), faults(ops));
    let index = Index::new(ops);
    let data = data(ops, verdict, &calls, &faults);
    let kinds: Vec<&str> = data.series.kinds.keys().copied().collect();
    let omitted = data.timeline.omitted;

    let mut out = String::new();
    let title = parts::title(header);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        if verdict.holds { "held" } else { "BROKEN" },
        Text(&title)
    )?;
    parts::head(&mut out, header, verdict)?;
    let kinds_ended = by_kind(&calls);
    parts::tiles(&mut out, header, verdict, &kinds_ended)?;
    parts::verdict(&mut out, verdict)?;
    parts::violations(&mut out, verdict, &index)?;
    charts(&mut out, &kinds, omitted)?;
    parts::operations(&mut out, &kinds_ended)?;
    parts::faults(&mut out, verdict, &faults)?;
    out.write_str(
        "<footer>Made by <code>seriatim-jepsen report</code> from <code>history.jsonl</code> and \
         <code>verdict.json</code>. <i>ok</i> took effect, <i>fail</i> certainly did not, \
         <i>info</i> may have.</footer>\n</main>\n<div id=\"tip\"></div>\n",
    )?;
    let json = serde_json::to_string(&data).map_err(|_broken| fmt::Error)?;
    write!(
        out,
        "<script type=\"application/json\" id=\"data\">{}</script>\n<script>\n{SCRIPT}</script>\n\
         </body>\n</html>\n",
        json_in_script(&json)
    )?;
    Ok(out)
}

fn data<'a>(
    ops: &[crate::history::Op],
    verdict: &Verdict,
    calls: &[Call<'a>],
    faults: &[Span<'a>],
) -> Data<'a> {
    let end = ops.last().map_or(0, |op| op.time);
    let series = series(calls, end);
    let violations = verdict.checkers.iter().flat_map(|c| &c.violations);
    let shown: BTreeSet<u64> = violations.flat_map(|v| v.ops.iter().copied()).collect();
    let broken = calls.iter().filter(|call| call.is_in(&shown));
    let at = ops.iter().filter(|op| shown.contains(&op.index));
    Data {
        length_ms: milliseconds(end),
        timeline: timeline(calls, &shown, series.width_ms),
        series,
        faults: faults.iter().map(Shaded::from).collect(),
        fault_kinds: faults.iter().map(|fault| fault.what).collect(),
        broken: broken.map(|call| call.invoke().index).collect(),
        violations: at.map(|op| milliseconds(op.time)).collect(),
    }
}

impl<'a> From<&Span<'a>> for Shaded<'a> {
    fn from(fault: &Span<'a>) -> Self {
        Self {
            what: fault.what,
            detail: fault.detail,
            start: milliseconds(fault.start),
            end: milliseconds(fault.end),
            once: fault.once,
        }
    }
}

fn charts(out: &mut String, kinds: &[&str], omitted: usize) -> fmt::Result {
    out.write_str(
        "<h2 id=\"time\">Over time</h2>\n<div id=\"sticky\"><div class=\"bar\"><div class=\"group\">",
    )?;
    for kind in kinds {
        write!(out, "<button data-kind=\"{kind}\">{kind}</button>")?;
    }
    out.write_str(
        "</div><div class=\"group\"><button data-zoom=\"1\" data-shift=\"-0.5\" title=\"earlier (left arrow)\">\
         &larr;</button><button data-zoom=\"0.5\" title=\"closer (+)\">+</button>\
         <button data-zoom=\"2\" title=\"farther (-)\">&minus;</button>\
         <button data-zoom=\"1\" data-shift=\"0.5\" title=\"later (right arrow)\">&rarr;</button>\
         <button id=\"whole\" title=\"0, or a double click\">whole run</button></div>\
         <span class=\"soft\"><span id=\"range\"></span>; drag over a chart to see that part of it</span>\
         </div></div>\n<noscript><p>The charts are drawn by this page's own script, which is switched off.</p></noscript>\n",
    )?;
    let keys = "<span class=\"keys\"><span><i style=\"background:var(--ok)\"></i>ok</span>\
                <span><i style=\"background:var(--fail)\"></i>fail</span>\
                <span><i style=\"background:var(--info)\"></i>info</span></span>";
    let lanes = if omitted == 0 {
        "each bar is one operation".to_owned()
    } else {
        format!(
            "bars are the operations that failed or took longest; {omitted} others are the shading \
             behind them"
        )
    };
    let panels = [
        ("faults", "Faults", "what was broken, and when", ""),
        (
            "rate",
            "Throughput",
            "operations that ended, per second",
            keys,
        ),
        (
            "latency",
            "Latency",
            "of ok: median (strong), 99th percentile, longest (faint); of fail and info: longest",
            keys,
        ),
        ("lanes", "Operations", lanes.as_str(), keys),
    ];
    for (id, name, what, keys) in panels {
        writeln!(
            out,
            "<div class=\"card panel\"><div><h3>{name} <span class=\"soft\" style=\"font-weight:400\">\
             {what}</span></h3>{keys}</div><canvas id=\"{id}\" role=\"img\" aria-label=\"{name}\"></canvas></div>"
        )?;
    }
    Ok(())
}
