//! The figures of a run.

use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{baseline::Baseline, meter::Cost, plan::Load, tally::Tally};

const MB: f64 = 1e6;

/// What a mode found out.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) tally: Tally,
    pub(crate) unsent: u64,
    /// The time in which the records of the tally were done.
    pub(crate) length: Duration,
    pub(crate) cost: Cost,
    /// What consumers read meanwhile, where the tally is of producers.
    pub(crate) read: Option<Tally>,
}

/// The JSON object. MB is 10^6 bytes of record values.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    mode: &'static str,
    #[serde(flatten)]
    pub(crate) figures: Figures,
    cpu_s_nodes: Option<f64>,
    cpu_s_client: Option<f64>,
    rss_mb_nodes: Option<f64>,
    fsyncs: Option<u64>,
    /// Records that failed, during warm-up too.
    pub(crate) failed: u64,
    /// Records that were due and found no room until the end.
    unsent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed: Option<Figures>,
    /// What the machine can do; null if it was not measured.
    baseline: Option<Baseline>,
}

/// Throughput and latency.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    records: u64,
    bytes: u64,
    seconds: f64,
    records_per_s: f64,
    mb_per_s: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    p999_ms: Option<f64>,
    max_ms: Option<f64>,
}

impl Figures {
    fn new(tally: &Tally, length: Duration) -> Self {
        let seconds = length.as_secs_f64();
        Self {
            records: tally.records,
            bytes: tally.bytes,
            seconds,
            records_per_s: float(tally.records) / seconds,
            mb_per_s: float(tally.bytes) / MB / seconds,
            p50_ms: tally.latency.quantile_ms(0.5),
            p99_ms: tally.latency.quantile_ms(0.99),
            p999_ms: tally.latency.quantile_ms(0.999),
            max_ms: tally.latency.max_ms(),
        }
    }
}

impl Report {
    pub(crate) fn new(load: &Load, measured: &Measured) -> Self {
        let cost = measured.cost;
        let read = measured.read.as_ref();
        Self {
            mode: load.mode.name(),
            figures: Figures::new(&measured.tally, measured.length),
            cpu_s_nodes: cost.cpu_nodes.map(|cpu| cpu.as_secs_f64()),
            cpu_s_client: cost.cpu_client.map(|cpu| cpu.as_secs_f64()),
            rss_mb_nodes: cost.peak_bytes.map(|bytes| float(bytes) / MB),
            fsyncs: cost.fsyncs,
            failed: measured.tally.failures.count + read.map_or(0, |tally| tally.failures.count),
            unsent: measured.unsent,
            consumed: read.map(|tally| Figures::new(tally, measured.length)),
            baseline: None,
        }
    }

    pub(crate) fn with_baseline(self, baseline: Option<Baseline>) -> Self {
        Self { baseline, ..self }
    }

    /// Every figure with its name, as they are printed.
    pub(crate) fn rows(&self) -> Vec<(String, Option<f64>)> {
        let mut rows = rows_of("", &self.figures);
        rows.extend(
            self.consumed
                .iter()
                .flat_map(|read| rows_of("consumed ", read)),
        );
        let own = [
            ("cpu_s_nodes", self.cpu_s_nodes),
            ("cpu_s_client", self.cpu_s_client),
            ("rss_mb_nodes", self.rss_mb_nodes),
            ("fsyncs", self.fsyncs.map(float)),
            ("failed", Some(float(self.failed))),
            ("unsent", Some(float(self.unsent))),
        ];
        rows.extend(own.map(|(name, figure)| (name.to_owned(), figure)));
        rows
    }

    pub(crate) fn table(&self) -> String {
        let rows = self.rows().into_iter();
        let rows = rows.map(|(name, figure)| vec![name, show(figure)]);
        let baseline = self.baseline.as_ref().map(Baseline::table);
        let baseline = baseline.map(|text| format!("\n{text}")).unwrap_or_default();
        format!("{}{baseline}", table(&[self.mode, ""], rows))
    }
}

fn rows_of(prefix: &str, figures: &Figures) -> Vec<(String, Option<f64>)> {
    let rows = [
        ("records", Some(float(figures.records))),
        ("bytes", Some(float(figures.bytes))),
        ("seconds", Some(figures.seconds)),
        ("records_per_s", Some(figures.records_per_s)),
        ("mb_per_s", Some(figures.mb_per_s)),
        ("p50_ms", figures.p50_ms),
        ("p99_ms", figures.p99_ms),
        ("p999_ms", figures.p999_ms),
        ("max_ms", figures.max_ms),
    ];
    let named = rows.map(|(name, figure)| (format!("{prefix}{name}"), figure));
    named.into()
}

/// A figure as people read it.
pub(crate) fn show(figure: Option<f64>) -> String {
    match figure {
        None => "-".to_owned(),
        Some(figure) if figure.fract() == 0.0 => format!("{figure:.0}"),
        Some(figure) if figure >= 100.0 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.3}"),
    }
}

/// A table without lines.
pub(crate) fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    let _styled = table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        let _added = table.add_row(row);
    }
    format!("{}\n", table.trim_fmt())
}

/// Exact up to 2^53, far above any count of a run.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser as _;
    use seriatim_runtime::clock;

    use super::*;
    use crate::{args::Cli, plan::Plan, window::Window};

    fn load(mode: &str) -> Load {
        let cli = Cli::try_parse_from(["seriatim-bench", mode]).unwrap();
        Plan::check(cli).unwrap().load
    }

    /// A report of `records` of 1,000 bytes that took 1 ms each.
    pub(crate) fn report(records: u64, length: Duration) -> Report {
        Report::new(&load("produce"), &measured(records, length))
    }

    fn measured(records: u64, length: Duration) -> Measured {
        let begin = clock::now();
        let window = Window::open(begin);
        let mut tally = Tally::default();
        for _ in 0..records {
            tally.done(&window, begin, begin + Duration::from_millis(1), 1000);
        }
        Measured {
            tally,
            unsent: 0,
            length,
            cost: Cost {
                cpu_nodes: Some(Duration::from_millis(2500)),
                cpu_client: Some(Duration::from_millis(500)),
                peak_bytes: Some(80_000_000),
                fsyncs: Some(7),
            },
            read: None,
        }
    }

    fn fields(report: &Report) -> Vec<String> {
        let Ok(serde_json::Value::Object(object)) = serde_json::to_value(report) else {
            panic!("not an object")
        };
        object.keys().cloned().collect()
    }

    #[test]
    fn the_json_object_has_these_fields() {
        let mut expected = [
            "mode",
            "records",
            "bytes",
            "seconds",
            "records_per_s",
            "mb_per_s",
            "p50_ms",
            "p99_ms",
            "p999_ms",
            "max_ms",
            "cpu_s_nodes",
            "cpu_s_client",
            "rss_mb_nodes",
            "fsyncs",
            "failed",
            "unsent",
            "baseline",
        ];
        expected.sort_unstable();
        let mut actual = fields(&report(10, Duration::from_secs(1)));
        actual.sort();
        assert_eq!(actual, expected);
    }

    #[test]
    fn figures_are_computed_from_the_tally() {
        let json = serde_json::to_value(report(3000, Duration::from_secs(2))).unwrap();
        assert_eq!(json["records"], 3000);
        assert_eq!(json["bytes"], 3_000_000);
        assert_eq!(json["seconds"], 2.0);
        assert_eq!(json["records_per_s"], 1500.0);
        assert_eq!(json["mb_per_s"], 1.5);
        assert_eq!(json["p50_ms"], 1.0);
        assert_eq!(json["cpu_s_nodes"], 2.5);
        assert_eq!(json["rss_mb_nodes"], 80.0);
        assert_eq!(json["fsyncs"], 7);
    }

    #[test]
    fn what_is_not_known_is_null() {
        let mut measured = measured(0, Duration::from_secs(1));
        measured.cost = Cost::default();
        let json = serde_json::to_value(Report::new(&load("produce"), &measured)).unwrap();
        for field in [
            "p50_ms",
            "max_ms",
            "cpu_s_nodes",
            "rss_mb_nodes",
            "fsyncs",
            "baseline",
        ] {
            assert_eq!(json[field], serde_json::Value::Null, "{field}");
        }
    }

    #[test]
    fn mixed_reports_both_and_counts_all_failures() {
        let mut both = measured(10, Duration::from_secs(1));
        let mut read = measured(5, Duration::from_secs(1)).tally;
        both.tally.failures.add(2, &"lost");
        read.failures.add(3, &"not read");
        both.read = Some(read);
        let report = Report::new(&load("mixed"), &both);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["mode"], "mixed");
        assert_eq!(json["failed"], 5);
        assert_eq!(json["records"], 10);
        assert_eq!(json["consumed"]["records"], 5);
        assert!(report.table().contains("consumed mb_per_s"));
    }
}
