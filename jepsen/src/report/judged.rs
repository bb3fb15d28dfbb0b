//! A verdict, as `verdict.json` has it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What all checkers found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether every promise was kept.
    pub holds: bool,
    /// One for each checker.
    pub checkers: Vec<Checked>,
}

/// What one checker found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// The checker.
    pub name: String,
    /// The promise that it is about.
    pub promise: String,
    /// Whether it was kept.
    pub holds: bool,
    /// Things that were looked at.
    pub looked_at: u64,
    /// How it was broken.
    #[serde(default)]
    pub violations: Vec<Violation>,
    /// What was measured.
    #[serde(default)]
    pub figures: BTreeMap<String, f64>,
}

/// One broken promise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// In words.
    pub text: String,
    /// The entries of the history that show it.
    #[serde(default)]
    pub ops: Vec<u64>,
}
