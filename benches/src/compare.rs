//! Two binaries, measured in turn in one invocation: on a machine whose speed drifts, figures of
//! different invocations cannot be compared.

use std::path::Path;

use serde::{Serialize, Serializer};

use crate::report::{Report, show, table};

/// Every figure's median for each binary.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Comparison {
    a: String,
    b: String,
    runs: usize,
    #[serde(serialize_with = "by_name")]
    figures: Vec<Figure>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Figure {
    #[serde(skip)]
    name: String,
    a: Option<f64>,
    b: Option<f64>,
    /// `a / b`.
    ratio: Option<f64>,
}

impl Comparison {
    /// Of the reports of both, run by run.
    pub(crate) fn new((a, b): (&Path, &Path), reports: &[(Report, Report)]) -> Self {
        let rows: Vec<_> = reports.iter().map(|(a, b)| (a.rows(), b.rows())).collect();
        let names = rows
            .first()
            .map(|(a, _)| a.iter().map(|(name, _)| name.clone()));
        let figure = |(at, name): (usize, String)| {
            let of = |rows: &[(String, Option<f64>)]| rows.get(at).and_then(|(_, figure)| *figure);
            let a = median(rows.iter().filter_map(|(a, _)| of(a)).collect());
            let b = median(rows.iter().filter_map(|(_, b)| of(b)).collect());
            let ratio = a.zip(b).and_then(|(a, b)| (b != 0.0).then(|| a / b));
            Figure { name, a, b, ratio }
        };
        Self {
            a: a.display().to_string(),
            b: b.display().to_string(),
            runs: reports.len(),
            figures: names
                .into_iter()
                .flatten()
                .enumerate()
                .map(figure)
                .collect(),
        }
    }

    pub(crate) fn table(&self) -> String {
        let rows = self.figures.iter().map(|figure| {
            vec![
                figure.name.clone(),
                show(figure.a),
                show(figure.b),
                show(figure.ratio),
            ]
        });
        let runs = self.runs;
        format!(
            "A = {}\nB = {}\nmedians of {runs} runs each, in turn\n{}",
            self.a,
            self.b,
            table(&["", "A", "B", "A/B"], rows)
        )
    }
}

/// An object with the figures by name, in their order.
fn by_name<S: Serializer>(figures: &[Figure], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|figure| (&figure.name, figure)))
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let upper = figures.get(middle).copied()?;
    if figures.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = figures.get(middle.checked_sub(1)?).copied()?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::tests::report;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_of_medians() {
        let second = Duration::from_secs(1);
        let reports: Vec<_> = [100, 500, 200]
            .into_iter()
            .map(|records| (report(records, second), report(records * 2, second)))
            .collect();
        let comparison = Comparison::new((Path::new("new"), Path::new("old")), &reports);
        let json = serde_json::to_value(&comparison).unwrap();
        assert_eq!(json["a"], "new");
        assert_eq!(json["runs"], 3);
        assert_eq!(json["figures"]["records_per_s"]["a"], 200.0);
        assert_eq!(json["figures"]["records_per_s"]["b"], 400.0);
        assert_eq!(json["figures"]["records_per_s"]["ratio"], 0.5);
        // Nothing is divided by nothing.
        assert_eq!(json["figures"]["failed"]["ratio"], serde_json::Value::Null);
        assert!(comparison.table().contains("records_per_s"));
    }
}
