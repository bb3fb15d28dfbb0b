//! The checkers: one per promise, pure functions of a [`History`].

mod appends;
mod convergence;
mod groups;
mod reads;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use crate::seen::History;

/// Most violations that one checker lists.
const LISTED_MAX: usize = 5;

/// What one checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The promise.
    pub checker: &'static str,
    /// How it was broken; empty if it was kept. The first few only.
    pub violations: Vec<String>,
    /// Things that were looked at, so that an empty check shows.
    pub looked_at: usize,
}

impl Finding {
    /// Whether the promise was kept.
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.holds() { "ok" } else { "VIOLATED" };
        write!(f, "{:<28} {:>8}  {verdict}", self.checker, self.looked_at)?;
        for violation in &self.violations {
            write!(f, "\n    {violation}")?;
        }
        Ok(())
    }
}

/// Collects what one checker finds.
#[derive(Debug)]
pub(crate) struct Finder(Finding);

impl Finder {
    pub(crate) fn new(checker: &'static str) -> Self {
        Self(Finding {
            checker,
            violations: Vec::new(),
            looked_at: 0,
        })
    }

    /// Counts one more thing; `violation` says what is wrong with it unless `good`.
    pub(crate) fn expect(&mut self, good: bool, violation: impl FnOnce() -> String) {
        self.0.looked_at += 1;
        if !good && self.0.violations.len() < LISTED_MAX {
            self.0.violations.push(violation());
        }
    }

    pub(crate) fn done(self) -> Finding {
        self.0
    }
}

/// Runs every checker.
pub fn check(history: &History, recovery_max: Duration) -> Vec<Finding> {
    let mut impossible = Finder::new("nothing impossible");
    for what in &history.impossible {
        impossible.expect(false, || what.clone());
    }
    vec![
        appends::acknowledged_once(history),
        appends::refused_absent(history),
        appends::producer_order(history),
        appends::conditions_held(history),
        reads::dense(history),
        reads::agree(history),
        reads::below_high_watermark(history),
        reads::log_start_grows(history),
        groups::commits_stay(history),
        groups::commits_have_authors(history),
        groups::one_owner(history),
        groups::commits_grow(history),
        convergence::replicas_identical(history),
        convergence::recovered(history, recovery_max),
        impossible.done(),
    ]
}
