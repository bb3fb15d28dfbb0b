//! What the process of one seed tells the one that started it: a line of JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The checker of panics, which is not one of the history's.
pub const NO_PANICS: &str = "no panics";

/// One seed, run and judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What each checker came to.
    pub checks: Vec<Check>,
    /// How much was done: records acknowledged, read, ...
    pub counts: BTreeMap<String, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// The faults in order, for people; only if a check failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<String>,
    /// Rare branches of the code that were entered, and how often.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, u64>,
    /// Virtual time in all.
    pub virtual_ms: u64,
    /// From the end of the last fault until everything worked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_ms: Option<u64>,
    /// Stands for the history: equal only if it is.
    pub history: String,
    /// Stands for everything that went over the network and to the disks, in order.
    pub trace: String,
    /// How many such events there were.
    pub events: u64,
}

/// What one checker came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name.
    pub checker: String,
    /// How much it looked at.
    pub looked_at: u64,
    /// What it found, the first few; empty if all was well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
}

impl Outcome {
    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.violations.is_empty())
    }

    /// Where this run of the seed differs from another; `None` if they are identical.
    pub fn differs(&self, other: &Self) -> Option<&'static str> {
        if self.history != other.history {
            return Some("the histories differ");
        }
        if (&self.trace, self.events) != (&other.trace, other.events) {
            return Some("the histories are the same, what happened below is not");
        }
        (self != other).then_some("the verdicts differ")
    }
}
