//! Figures, and whether they are what was promised.

use std::{io::Write as _, time::Duration};

use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};

/// What a scenario measured.
#[derive(Debug)]
pub(crate) struct Report {
    scenario: &'static str,
    figures: Vec<Figure>,
}

#[derive(Debug)]
struct Figure {
    name: &'static str,
    value: f64,
    /// The value may be at most this.
    target: Option<f64>,
}

impl Report {
    pub(crate) const fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            figures: Vec::new(),
        }
    }

    /// A figure without a target. The name ends in its unit.
    pub(crate) fn note(&mut self, name: &'static str, value: f64) {
        self.figures.push(Figure {
            name,
            value,
            target: None,
        });
    }

    /// A figure that must not be above its target.
    pub(crate) fn at_most(&mut self, name: &'static str, value: f64, target: f64) {
        self.figures.push(Figure {
            name,
            value,
            target: Some(target),
        });
    }

    fn is_met(&self) -> bool {
        self.figures.iter().all(Figure::is_met)
    }

    /// Prints the report on standard output; tells whether every target was met.
    pub(crate) fn print(&self, as_json: bool) -> anyhow::Result<bool> {
        let mut out = std::io::stdout().lock();
        if as_json {
            writeln!(out, "{}", self.to_json())?;
        } else {
            writeln!(out, "{}", self.to_table())?;
        }
        Ok(self.is_met())
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        let _none = object.insert("scenario".to_owned(), json!(self.scenario));
        for figure in &self.figures {
            let _none = object.insert(figure.name.to_owned(), json!(figure.value));
            if let Some(target) = figure.target {
                let _none = object.insert(format!("{}_target", figure.name), json!(target));
            }
        }
        let _none = object.insert("met".to_owned(), json!(self.is_met()));
        Value::Object(object)
    }

    fn to_table(&self) -> Table {
        let mut table = Table::new();
        let _styled = table.load_style(presets::UTF8_FULL).set_header([
            self.scenario,
            "measured",
            "at most",
            "met",
        ]);
        for figure in &self.figures {
            let target = figure.target.map(|target| format!("{target}"));
            let met = match (figure.target, figure.is_met()) {
                (None, _) => "",
                (Some(_), true) => "yes",
                (Some(_), false) => "NO",
            };
            let _added = table.add_row([
                figure.name,
                &format!("{:.3}", figure.value),
                &target.unwrap_or_default(),
                met,
            ]);
        }
        table
    }
}

impl Figure {
    fn is_met(&self) -> bool {
        self.target.is_none_or(|target| self.value <= target)
    }
}

/// Says on standard error how far a scenario is.
#[expect(clippy::print_stderr, reason = "progress, for the person who waits")]
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// A count or a size as a figure.
pub(crate) fn number(count: impl TryInto<u64>) -> f64 {
    let count: u64 = count.try_into().unwrap_or(u64::MAX);
    #[expect(clippy::cast_precision_loss, reason = "figures are far below 2^53")]
    let value = count as f64;
    value
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    number(bytes) / 1_048_576.0
}
