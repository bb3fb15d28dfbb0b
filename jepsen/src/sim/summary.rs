//! Many seeds in figures.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::fleet::{Done, End};

/// Sums up seeds as they are done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Of those that were run twice, how many were the same in every byte; `None` if none was.
    pub identical: Option<u64>,
    /// Virtual time in all.
    pub virtual_ms: u64,
    /// How much was done.
    pub counts: BTreeMap<String, u64>,
    /// Things looked at, and seeds that broke the promise, by checker.
    pub checks: BTreeMap<String, Checked>,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Rare branches that were entered: in how many seeds. Those that never were stand at 0.
    pub marks: BTreeMap<String, u64>,
    /// The slowest recovery, and its seed.
    pub slowest: Option<(u64, u64)>,
    /// Seeds that failed, with what is wrong.
    pub failures: Vec<Failure>,
}

/// What one checker did over all seeds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Things that it looked at.
    pub looked_at: u64,
    /// Seeds in which it found something.
    pub broken: u64,
}

/// A seed that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What is wrong.
    pub wrong: Vec<String>,
}

impl Summary {
    /// Adds a seed.
    pub fn add(&mut self, done: &Done) {
        self.seeds += 1;
        if done.again.is_some() {
            let identical = self.identical.get_or_insert_default();
            *identical += u64::from(done.differs().is_none());
        }
        let wrong = done.wrong();
        if !wrong.is_empty() {
            self.failures.push(Failure {
                seed: done.seed,
                wrong,
            });
            self.failures.sort_by_key(|failure| failure.seed);
        }
        let End::Told(outcome) = &done.end else {
            return;
        };
        self.virtual_ms += outcome.virtual_ms;
        for (sum, of_seed) in [
            (&mut self.counts, &outcome.counts),
            (&mut self.faults, &outcome.faults),
        ] {
            for (name, n) in of_seed {
                *sum.entry(name.clone()).or_default() += n;
            }
        }
        for (name, &hits) in &outcome.marks {
            *self.marks.entry(name.clone()).or_default() += u64::from(hits > 0);
        }
        for check in &outcome.checks {
            let sum = self.checks.entry(check.checker.clone()).or_default();
            sum.looked_at += check.looked_at;
            sum.broken += u64::from(!check.violations.is_empty());
        }
        if let Some(took) = outcome.recovered_ms
            && self.slowest.is_none_or(|(most, _)| took > most)
        {
            self.slowest = Some((took, done.seed));
        }
    }

    /// Whether every seed held.
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    /// Things that checkers looked at, in all.
    pub fn looked_at(&self) -> u64 {
        self.checks.values().map(|check| check.looked_at).sum()
    }

    /// Virtual time in all.
    pub fn virtual_time(&self) -> Duration {
        Duration::from_millis(self.virtual_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::outcome::{Check, Outcome};

    fn done(seed: u64, violations: &[&str], recovered_ms: u64) -> Done {
        let check = Check {
            checker: "order".to_owned(),
            looked_at: 10,
            violations: violations.iter().map(ToString::to_string).collect(),
        };
        let outcome = Outcome {
            seed,
            checks: vec![check],
            faults: [("kill".to_owned(), 2)].into(),
            marks: [("rare".to_owned(), seed % 2), ("never".to_owned(), 0)].into(),
            virtual_ms: 1000,
            recovered_ms: Some(recovered_ms),
            ..Outcome::default()
        };
        Done::told(seed, outcome)
    }

    #[test]
    fn seeds_add_up() {
        let mut summary = Summary::default();
        for done in [done(3, &["bad"], 70), done(1, &[], 90), done(2, &[], 80)] {
            summary.add(&done);
        }
        summary.add(&Done {
            seed: 4,
            end: End::Hung {
                stderr: String::new(),
            },
            again: None,
        });
        assert_eq!((summary.seeds, summary.looked_at()), (4, 30));
        assert_eq!(summary.checks["order"].broken, 1);
        assert_eq!(summary.faults["kill"], 6);
        assert_eq!((summary.marks["rare"], summary.marks["never"]), (2, 0));
        assert_eq!(summary.slowest, Some((90, 1)));
        let failed: Vec<u64> = summary.failures.iter().map(|f| f.seed).collect();
        assert_eq!(failed, [3, 4]);
        assert!(!summary.holds());
        assert_eq!(summary.identical, None);
        let mut same = done(9, &[], 1);
        same.again = Some(same.end.clone());
        summary.add(&same);
        assert_eq!(summary.identical, Some(1));
    }
}
