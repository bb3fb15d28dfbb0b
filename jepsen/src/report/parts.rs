//! The parts of a page that are text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
};

use super::{
    calls::{Span, name},
    context::Index,
    escape::Text,
    summary::Ends,
    words::{self, seconds},
};
use crate::{
    check::{Finding, Verdict, Violation},
    history::{Header, Kind, Op},
};

/// Violations of one checker that are shown with their entries.
const SHOWN_MAX: usize = 8;

/// Faults that are listed.
const FAULTS_MAX: usize = 500;

/// What to call a run.
pub(super) fn title(header: &Header) -> String {
    match header.seed {
        Some(seed) => format!("{} run of seed {seed}", header.world),
        None => format!("{} run", header.world),
    }
}

/// The verdict in one line, and how to run it again.
pub(super) fn head(out: &mut String, header: &Header, verdict: &Verdict) -> fmt::Result {
    let broken = verdict.checkers.iter().filter(|c| !c.holds).count();
    let (class, line) = match (verdict.holds, broken) {
        (true, _) => ("", "Every property held".to_owned()),
        (false, 0) => (" broken", "Not a clean verdict".to_owned()),
        (false, 1) => (" broken", "One property was violated".to_owned()),
        (false, more) => (" broken", format!("{more} properties were violated")),
    };
    writeln!(
        out,
        "<div class=\"card verdict{class}\"><div><h1>{line}</h1><div class=\"soft\">{}, {} nodes, {} \
         partitions, {} of {} checkers had something to look at</div>",
        Text(&title(header)),
        header.nodes,
        header.keys.len(),
        verdict.checkers.iter().filter(|c| c.looked_at > 0).count(),
        verdict.checkers.len()
    )?;
    if let Some(replay) = &header.replay {
        writeln!(
            out,
            "<div class=\"replay\"><code>{0}</code><button data-copy=\"{0}\">copy</button></div>",
            Text(replay)
        )?;
    }
    out.write_str("</div></div>\n")
}

/// The figures that one looks for first.
pub(super) fn tiles(
    out: &mut String,
    header: &Header,
    verdict: &Verdict,
    operations: &BTreeMap<&'static str, Ends>,
) -> fmt::Result {
    let totals = &verdict.totals;
    let faults = format!("faults of {} kinds", totals.faults.len());
    let mut tiles = vec![
        (
            format!("{:.1} s", totals.seconds),
            "length of the run".to_owned(),
        ),
        (grouped(totals.operations), "operations".to_owned()),
        (
            grouped(totals.acknowledged),
            "records acknowledged".to_owned(),
        ),
        (grouped(totals.read), "records read".to_owned()),
        (grouped(totals.faults.values().sum()), faults),
    ];
    if let Some(sends) = operations.get("send").filter(|sends| sends.ok > 0) {
        tiles.push((micros(sends.p50_us), "send, median".to_owned()));
        tiles.push((micros(sends.p99_us), "send, 99th percentile".to_owned()));
    }
    if let Some((name, longest)) = figure(verdict, "unavailability", "longest_seconds") {
        let key = name.split_once(' ').map_or("", |(_, key)| key);
        tiles.push((
            format!("{longest:.2} s"),
            format!("longest without an acknowledgement ({key})"),
        ));
    }
    if let Some((_, recovered)) = figure(verdict, "recovery", "recovered_seconds") {
        let bound = header.recovery_max_ms.map_or(String::new(), |bound| {
            format!(
                " (at most {:.0} s)",
                seconds(bound.saturating_mul(1_000_000))
            )
        });
        tiles.push((
            format!("{recovered:.2} s"),
            format!("recovery after the faults{bound}"),
        ));
    }
    out.write_str("<div class=\"tiles\">\n")?;
    for (figure, what) in tiles {
        writeln!(
            out,
            "<div class=\"card tile\"><b>{}</b><span>{}</span></div>",
            Text(&figure),
            Text(&what)
        )?;
    }
    out.write_str("</div>\n")
}

/// The largest figure of a checker whose name begins like this.
pub(super) fn figure<'a>(
    verdict: &'a Verdict,
    checker: &str,
    name: &str,
) -> Option<(&'a str, f64)> {
    let finding = verdict
        .checkers
        .iter()
        .find(|finding| finding.name == checker)?;
    let figures = finding
        .figures
        .iter()
        .filter(|(full, _)| full.starts_with(name));
    let figures = figures.map(|(full, value)| (full.as_str(), *value));
    figures.max_by(|(_, a), (_, b)| a.total_cmp(b))
}

/// One row for each checker.
pub(super) fn verdict(out: &mut String, verdict: &Verdict) -> fmt::Result {
    out.write_str(
        "<h2>Verdict</h2>\n<div class=\"card scroll\"><table id=\"verdict\"><tr><th>checker</th>\
         <th>promise</th><th class=\"n\">looked at</th><th>verdict</th><th>measured</th></tr>\n",
    )?;
    for checked in &verdict.checkers {
        let (class, word) = badge(checked);
        let figures = checked.figures.iter();
        let figures: Vec<String> = figures
            .map(|(name, value)| format!("{name} {value:.3}"))
            .collect();
        writeln!(
            out,
            "<tr><td class=\"w\">{}</td><td>{}</td><td class=\"n\">{}</td>\
             <td><span class=\"badge {class}\">{word}</span></td><td>{}</td></tr>",
            Text(&checked.name),
            Text(&checked.promise),
            grouped(checked.looked_at),
            Text(&figures.join(", "))
        )?;
    }
    out.write_str("</table></div>\n")
}

/// How a row of the verdict ends.
fn badge(checked: &Finding) -> (&'static str, &'static str) {
    match (checked.holds, checked.looked_at) {
        (false, _) => ("bad", "VIOLATED"),
        (true, 0) => ("none", "nothing to look at"),
        (true, _) => ("good", "held"),
    }
}

/// Each broken promise with the entries that show it and those around them.
pub(super) fn violations(out: &mut String, verdict: &Verdict, index: &Index<'_>) -> fmt::Result {
    let broken: Vec<&Finding> = verdict
        .checkers
        .iter()
        .filter(|c| !c.violations.is_empty())
        .collect();
    if broken.is_empty() {
        return Ok(());
    }
    out.write_str("<h2>Violations</h2>\n")?;
    for checked in broken {
        for violation in checked.violations.iter().take(SHOWN_MAX) {
            one_violation(out, checked, violation, index)?;
        }
        let told = u64::try_from(checked.violations.len().min(SHOWN_MAX)).unwrap_or(u64::MAX);
        let more = checked.violated.saturating_sub(told);
        if more > 0 {
            writeln!(
                out,
                "<p class=\"soft\">{}: {more} more.</p>",
                Text(&checked.name)
            )?;
        }
    }
    Ok(())
}

fn one_violation(
    out: &mut String,
    checked: &Finding,
    violation: &Violation,
    index: &Index<'_>,
) -> fmt::Result {
    write!(
        out,
        "<div class=\"card violation\"><header><div><h3><span class=\"badge bad\">{}</span> \
         <span class=\"soft\" style=\"font-weight:400\">{}</span></h3><p>{}</p></div>",
        Text(&checked.name),
        Text(&checked.promise),
        Text(&violation.text)
    )?;
    let entries = index.around(&violation.ops);
    let shown = violation.ops.iter().filter_map(|&op| index.entry(op));
    let times: Vec<u64> = shown.map(|op| op.time).collect();
    if let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) {
        let (from, to) = (
            super::page::milliseconds(*first),
            super::page::milliseconds(*last),
        );
        let margin = ((to - from) * 0.2).max(50.0);
        write!(
            out,
            "<button data-from=\"{:.3}\" data-to=\"{:.3}\">show in the charts</button>",
            (from - margin).max(0.0),
            to + margin
        )?;
    }
    out.write_str("</header>\n")?;
    self::entries(out, &entries, &violation.ops.iter().copied().collect())?;
    out.write_str("</div>\n")
}

/// Entries as a table; those that show the violation are marked.
fn entries(out: &mut String, entries: &[&Op], shown: &BTreeSet<u64>) -> fmt::Result {
    if entries.is_empty() {
        return Ok(());
    }
    out.write_str(
        "<div class=\"scroll\"><table class=\"entries\"><tr><th class=\"n\">entry</th><th class=\"n\">time</th>\
         <th class=\"n\">process</th><th>node</th><th>type</th><th>f</th><th>value</th></tr>\n",
    )?;
    let mut before: Option<u64> = None;
    for op in entries {
        let skipped = before.map_or(0, |before| op.index - before - 1);
        if skipped > 0 {
            writeln!(
                out,
                "<tr class=\"gap\"><td colspan=\"7\">&middot;&middot;&middot; {skipped} between</td></tr>"
            )?;
        }
        before = Some(op.index);
        let class = if shown.contains(&op.index) {
            " class=\"shown\""
        } else {
            ""
        };
        let color = match op.kind {
            Kind::Info => " style=\"color:var(--info)\"",
            Kind::Fail => " class=\"soft\"",
            Kind::Invoke | Kind::Ok => "",
        };
        let error = op
            .error
            .as_ref()
            .map_or(String::new(), |e| format!(" ({e})"));
        writeln!(
            out,
            "<tr{class}><td class=\"n\">{}</td><td class=\"n\">{:.6}</td><td class=\"n\">{}</td><td>{}</td>\
             <td{color}>{}</td><td class=\"w\">{}</td><td class=\"what\">{}<span class=\"soft\">{}</span></td></tr>",
            op.index,
            seconds(op.time),
            words::process(op.process),
            op.node.map_or(String::new(), |node| format!("n{node}")),
            words::kind(op),
            name(&op.action),
            Text(&words::detail(op)),
            Text(&error)
        )?;
    }
    out.write_str("</table></div>\n")
}

/// Operations by kind and outcome.
pub(super) fn operations(
    out: &mut String,
    operations: &BTreeMap<&'static str, Ends>,
) -> fmt::Result {
    out.write_str(
        "<h2>Operations</h2>\n<div class=\"card scroll\"><table id=\"operations\"><tr><th>f</th>\
         <th class=\"n\">ok</th><th class=\"n\">fail</th><th class=\"n\">info</th>\
         <th class=\"n\">median</th><th class=\"n\">99th percentile</th><th class=\"n\">longest</th></tr>\n",
    )?;
    for (kind, ends) in operations {
        writeln!(
            out,
            "<tr><td>{kind}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            grouped(ends.ok),
            grouped(ends.fail),
            grouped(ends.info),
            micros(ends.p50_us),
            micros(ends.p99_us),
            micros(ends.max_us)
        )?;
    }
    out.write_str("</table></div>\n")
}

/// Faults by kind, and each of them.
pub(super) fn faults(out: &mut String, verdict: &Verdict, faults: &[Span<'_>]) -> fmt::Result {
    out.write_str("<h2>Faults</h2>\n<div class=\"card scroll\">")?;
    if faults.is_empty() {
        return out
            .write_str("<span class=\"soft\">Nothing was broken in this run.</span></div>\n");
    }
    let kinds: Vec<String> = verdict
        .totals
        .faults
        .iter()
        .map(|(kind, n)| format!("{kind} {n}"))
        .collect();
    writeln!(
        out,
        "{}<details><summary>each of them</summary><table><tr><th class=\"n\">from</th>\
         <th class=\"n\">lasts</th><th>kind</th><th>what</th></tr>",
        Text(&kinds.join(", "))
    )?;
    for fault in faults.iter().take(FAULTS_MAX) {
        let lasts = if fault.once {
            "once".to_owned()
        } else {
            format!("{:.3} s", seconds(fault.end - fault.start))
        };
        writeln!(
            out,
            "<tr><td class=\"n\">{:.3} s</td><td class=\"n\">{lasts}</td><td class=\"w\">{}</td><td>{}</td></tr>",
            seconds(fault.start),
            Text(fault.what),
            Text(fault.detail)
        )?;
    }
    let more = faults.len().saturating_sub(FAULTS_MAX);
    if more > 0 {
        writeln!(
            out,
            "<tr><td colspan=\"4\" class=\"soft\">and {more} more</td></tr>"
        )?;
    }
    out.write_str("</table></details></div>\n")
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds in the unit that suits them.
pub(super) fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..100_000 => format!("{:.1} ms", seconds(us * 1_000_000)),
        100_000..1_000_000 => format!("{:.0} ms", seconds(us * 1_000_000)),
        _ => format!("{:.2} s", seconds(us.saturating_mul(1000))),
    }
}
