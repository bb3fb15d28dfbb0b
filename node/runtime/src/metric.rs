//! How a metric is declared: name, kind, unit, labels and meaning in one place per crate, from which
//! the descriptions on the metrics endpoint and the reference page are made.

pub use metrics::Unit;

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// As it is exported.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub meaning: &'static str,
}

/// What a metric does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only rises, from 0 at the start of the process.
    Counter,
    /// It rises and falls.
    Gauge,
    /// It counts values by size.
    Histogram,
}

impl Kind {
    /// Its name on the metrics endpoint.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A counter without labels.
pub const fn counter(name: &'static str, unit: Unit, meaning: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        unit,
        labels: &[],
        meaning,
    }
}

/// A gauge without labels.
pub const fn gauge(name: &'static str, unit: Unit, meaning: &'static str) -> Metric {
    Metric {
        kind: Kind::Gauge,
        ..counter(name, unit, meaning)
    }
}

/// A histogram of seconds without labels.
pub const fn histogram(name: &'static str, meaning: &'static str) -> Metric {
    Metric {
        kind: Kind::Histogram,
        ..counter(name, Unit::Seconds, meaning)
    }
}

/// Describes metrics to the installed recorder.
pub fn describe(all: &[Metric]) {
    for metric in all {
        let (name, unit, meaning) = (metric.name, metric.unit, metric.meaning);
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(name, unit, meaning),
            Kind::Gauge => metrics::describe_gauge!(name, unit, meaning),
            Kind::Histogram => metrics::describe_histogram!(name, unit, meaning),
        }
    }
}
