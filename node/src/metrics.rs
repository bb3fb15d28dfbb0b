//! The metrics of a node.

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use seriatim_runtime::metric::{self, Kind, Metric, Unit};

const BUILD_INFO: &str = "seriatim_build_info";

/// The metrics of this crate.
const METRICS: &[Metric] = &[Metric {
    name: BUILD_INFO,
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["version"],
    meaning: "1; the version of the node is a label",
}];

/// Every metric, layer by layer.
fn all() -> [&'static [Metric]; 6] {
    [
        seriatim_storage::metrics::METRICS,
        seriatim_consensus::metrics::METRICS,
        seriatim_cluster::metrics::METRICS,
        seriatim_groups::metrics::METRICS,
        seriatim_broker::metrics::METRICS,
        METRICS,
    ]
}

/// Begins to record; before anything that looks up a metric.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    // 100 us to 3.3 s.
    let buckets: Vec<f64> = (0..16).map(|step| 0.000_1 * f64::from(1 << step)).collect();
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &buckets)
        .context("set up metrics")?;
    let handle = builder.install_recorder().context("set up metrics")?;
    for layer in all() {
        metric::describe(layer);
    }
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_up_to_date() {
        let mut table = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
        for metric in all().into_iter().flatten() {
            let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
            table += &format!(
                "| `{}` | {} | {} | {} |\n",
                metric.name,
                metric.kind.name(),
                labels.join(", "),
                metric.meaning
            );
        }
        crate::docs::check("metrics.md", "metrics", &table);
    }

    /// The unit is the end of the name, so that nobody has to look it up.
    #[test]
    fn names_end_with_their_unit() {
        for metric in all().into_iter().flatten() {
            let name = metric.name.strip_suffix("_total").unwrap_or(metric.name);
            assert_eq!(metric.kind == Kind::Counter, name != metric.name, "{name}");
            assert_eq!(
                metric.unit == Unit::Bytes,
                name.ends_with("_bytes"),
                "{name}"
            );
            assert_eq!(
                metric.unit == Unit::Seconds,
                name.ends_with("_seconds"),
                "{name}"
            );
            assert!(name.starts_with("seriatim_"), "{name}");
        }
    }
}
