//! What a campaign comes to.

use serde::{Deserialize, Serialize};

use super::Terms;
use crate::{
    report::summary::quantile,
    sim::{
        fleet::{Done, End},
        summary::Summary,
    },
};

/// Slow recoveries that are named.
const SLOW_MAX: usize = 10;

/// A campaign in figures, as it stands in `campaign.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// What all seeds have in common.
    pub terms: Terms,
    /// The least and the greatest seed.
    pub seeds: Option<(u64, u64)>,
    /// Everything that adds up.
    pub summary: Summary,
    /// How long it took until everything worked again.
    pub recovery: Recovery,
}

/// Times from the end of the last fault until everything worked again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Seeds that have such a time.
    pub seeds: u64,
    /// In half of them it was no longer than this, in milliseconds.
    pub p50_ms: u64,
    /// In 99 of 100.
    pub p99_ms: u64,
    /// In all.
    pub max_ms: u64,
    /// The slowest.
    pub slowest: Vec<Slow>,
}

/// A slow recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// The seed.
    pub seed: u64,
    /// How long it took.
    pub ms: u64,
}

/// Sums up seeds as they are handed over.
#[derive(Debug, Clone, Default)]
pub(super) struct Adding {
    summary: Summary,
    seeds: Option<(u64, u64)>,
    recoveries: Vec<(u64, u64)>,
}

impl Adding {
    pub(super) fn add(&mut self, done: &Done) {
        self.summary.add(done);
        let seed = done.seed;
        self.seeds = Some(
            self.seeds
                .map_or((seed, seed), |(a, b)| (a.min(seed), b.max(seed))),
        );
        if let End::Told(outcome) = &done.end
            && let Some(ms) = outcome.recovered_ms
        {
            self.recoveries.push((ms, seed));
        }
    }

    pub(super) fn end(mut self, terms: Terms) -> Campaign {
        self.recoveries.sort_unstable();
        let times: Vec<u64> = self.recoveries.iter().map(|(ms, _)| *ms).collect();
        let slowest = self.recoveries.iter().rev().take(SLOW_MAX);
        Campaign {
            terms,
            seeds: self.seeds,
            summary: self.summary,
            recovery: Recovery {
                seeds: u64::try_from(times.len()).unwrap_or(u64::MAX),
                p50_ms: quantile(&times, 500),
                p99_ms: quantile(&times, 990),
                max_ms: quantile(&times, 1000),
                slowest: slowest.map(|&(ms, seed)| Slow { seed, ms }).collect(),
            },
        }
    }
}

impl Campaign {
    /// Sums up what a folder holds.
    pub fn load(dir: &std::path::Path) -> anyhow::Result<Self> {
        let mut all = Adding::default();
        let terms = super::Ledger::load(dir, |done| all.add(&done))?;
        Ok(all.end(terms))
    }

    /// Whether there were seeds and all of them held.
    pub fn holds(&self) -> bool {
        self.summary.seeds > 0 && self.summary.holds()
    }

    /// The command that runs one of its seeds again.
    pub fn replay(&self, seed: u64) -> String {
        format!(
            "seriatim-jepsen run --sim --seed {seed} {}",
            self.terms.args.join(" ")
        )
    }
}
