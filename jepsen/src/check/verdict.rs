//! What a history comes to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::history::{Action, FaultPhase, History, Kind, Process};

/// The judgement of a history, as it stands in `verdict.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether every property held.
    pub holds: bool,
    /// How much there was.
    pub totals: Totals,
    /// One for each property.
    pub checkers: Vec<Finding>,
}

/// What one checker found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The property.
    pub name: String,
    /// The promise that it is part of, and what must hold.
    pub promise: String,
    /// Whether it held.
    pub holds: bool,
    /// Things that were looked at: a property of which there were none was not checked.
    pub looked_at: u64,
    /// How often it was violated.
    pub violated: u64,
    /// The first few violations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// What was measured on the way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// What is wrong.
    pub text: String,
    /// The entries that show it, by index.
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

impl Totals {
    pub(super) fn of(history: &History) -> Self {
        let mut totals = Self::default();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        totals.ops = count(history.ops.len());
        let mut begun = BTreeSet::new();
        for op in &history.ops {
            let client = op.process != Process::NEMESIS;
            totals.operations += u64::from(client && op.kind == Kind::Invoke);
            match &op.action {
                Action::Send(send) if op.kind == Kind::Ok => {
                    totals.acknowledged += count(send.values.len());
                }
                Action::Poll(poll) if op.kind != Kind::Invoke => {
                    let records = poll.reads.values().map(|read| read.records.len());
                    totals.read += count(records.sum());
                }
                Action::Commit(commit) if op.kind == Kind::Ok => {
                    totals.committed += count(commit.offsets.len());
                }
                Action::Fault(fault)
                    if fault.phase != FaultPhase::End && begun.insert(fault.id) =>
                {
                    *totals.faults.entry(fault.what.clone()).or_default() += 1;
                }
                _ => {}
            }
        }
        let first = history.ops.first().map_or(0, |op| op.time);
        let last = history.ops.last().map_or(0, |op| op.time);
        totals.seconds = std::time::Duration::from_nanos(last - first).as_secs_f64();
        totals
    }

    /// Faults of all kinds.
    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl Verdict {
    /// The properties that did not hold.
    pub fn broken(&self) -> impl Iterator<Item = &Finding> {
        self.checkers.iter().filter(|finding| !finding.holds)
    }

    /// What the checker of this name found.
    pub fn finding(&self, name: &str) -> Option<&Finding> {
        self.checkers.iter().find(|finding| finding.name == name)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.holds, self.looked_at) {
            (true, 0) => "nothing to look at",
            (true, _) => "ok",
            (false, _) => "VIOLATED",
        };
        write!(f, "{:<24} {:>10}  {verdict}", self.name, self.looked_at)?;
        if !self.holds {
            write!(f, " ({})", self.promise)?;
        }
        for violation in &self.violations {
            write!(f, "\n    {}", violation.text.replace('\n', "\n    "))?;
            if !violation.ops.is_empty() {
                write!(f, "\n      entries {:?}", violation.ops)?;
            }
        }
        let listed = u64::try_from(self.violations.len()).unwrap_or(u64::MAX);
        if self.violated > listed {
            write!(f, "\n    and {} more", self.violated - listed)?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:>10}  verdict", "property", "looked at")?;
        for finding in &self.checkers {
            writeln!(f, "{finding}")?;
        }
        let Totals {
            operations,
            acknowledged,
            read,
            committed,
            seconds,
            ..
        } = &self.totals;
        writeln!(
            f,
            "{operations} operations in {seconds:.1} s: {acknowledged} records acknowledged, {read} \
             read, {committed} commits; {} faults",
            self.totals.faults()
        )?;
        match self.broken().count() {
            0 => f.write_str("every property held"),
            1 => f.write_str("1 property was violated"),
            n => write!(f, "{n} properties were violated"),
        }
    }
}
