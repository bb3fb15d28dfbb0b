//! Stands in for the verdict of the checkers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The judgement of a history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether every property held.
    pub holds: bool,
    /// How much there was.
    pub totals: Totals,
    /// One for each property.
    pub checkers: Vec<Finding>,
}

/// What one checker found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The property.
    pub name: String,
    /// The promise that it is part of, and what must hold.
    pub promise: String,
    /// Whether it held.
    pub holds: bool,
    /// Things that were looked at.
    pub looked_at: u64,
    /// How often it was violated.
    pub violated: u64,
    /// The first few violations.
    #[serde(default)]
    pub violations: Vec<Violation>,
    /// What was measured.
    #[serde(default)]
    pub figures: BTreeMap<String, f64>,
}

/// One violation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// What is wrong.
    pub text: String,
    /// The entries that show it.
    pub ops: Vec<u64>,
}

/// How much a history holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Entries.
    pub ops: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Records that were acknowledged.
    pub acknowledged: u64,
    /// Records that were read, each as often as it was.
    pub read: u64,
    /// Commits of groups that were acknowledged, one for each key.
    pub committed: u64,
    /// Faults by their kind.
    pub faults: BTreeMap<String, u64>,
    /// From the first entry to the last, in seconds.
    pub seconds: f64,
}
