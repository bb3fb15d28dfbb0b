//! What a run did, in figures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::calls::{Call, Outcome, calls, faults};
use crate::history::{Action, Header, Key, Op};

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// From its first to its last entry, in milliseconds.
    pub length_ms: u64,
    /// Operations of clients, by kind.
    pub operations: BTreeMap<String, Ends>,
    /// Records whose append was acknowledged.
    pub records_acknowledged: u64,
    /// Records that polls brought, again and again.
    pub records_read: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<String, u64>,
    /// The longest time in which a key that was asked to acknowledged nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<Window>,
    /// From the end of the faults to the time when everything worked, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_ms: Option<u64>,
}

/// How operations of one kind ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// They took effect.
    pub ok: u64,
    /// They certainly did not.
    pub fail: u64,
    /// They may have.
    pub info: u64,
    /// Median time of those that took effect, in microseconds.
    pub p50_us: u64,
    /// The time within which 99 of 100 of them ended, in microseconds.
    pub p99_us: u64,
    /// The longest of them, in microseconds.
    pub max_us: u64,
}

/// A time in which a key acknowledged nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The key.
    pub key: Key,
    /// Since when, in milliseconds.
    pub since_ms: u64,
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

impl Summary {
    /// Sums up a history.
    pub fn of(_header: &Header, ops: &[Op]) -> Self {
        let calls = calls(ops);
        let mut faults_of: BTreeMap<String, u64> = BTreeMap::new();
        for fault in faults(ops) {
            *faults_of.entry(fault.what.to_owned()).or_default() += 1;
        }
        let (acknowledged, read) = records(&calls);
        let first = ops.first().map_or(0, |op| op.time);
        let last = ops.last().map_or(0, |op| op.time);
        Self {
            length_ms: (last - first) / 1_000_000,
            operations: ends(&calls),
            records_acknowledged: acknowledged,
            records_read: read,
            faults: faults_of,
            unavailable: unavailable(ops),
            recovery_ms: recovery(&calls).map(|nanoseconds| nanoseconds / 1_000_000),
        }
    }

    /// Operations of clients.
    pub fn operations(&self) -> u64 {
        self.operations.values().map(Ends::all).sum()
    }

    /// Faults of all kinds.
    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl Ends {
    /// However they ended.
    pub fn all(&self) -> u64 {
        self.ok + self.fail + self.info
    }
}

fn ends(calls: &[Call<'_>]) -> BTreeMap<String, Ends> {
    let mut took: BTreeMap<&str, (Ends, Vec<u64>)> = BTreeMap::new();
    for call in calls {
        let (ends, times) = took.entry(call.kind()).or_default();
        match call.outcome {
            Outcome::Ok => {
                ends.ok += 1;
                times.push(call.took() / 1000);
            }
            Outcome::Fail => ends.fail += 1,
            Outcome::Info => ends.info += 1,
        }
    }
    let took = took.into_iter().map(|(kind, (mut ends, mut times))| {
        times.sort_unstable();
        ends.p50_us = quantile(&times, 500);
        ends.p99_us = quantile(&times, 990);
        ends.max_us = quantile(&times, 1000);
        (kind.to_owned(), ends)
    });
    took.collect()
}

/// The least value that at least `thousandths` of the sorted ones do not exceed; 0 of none.
pub(super) fn quantile(sorted: &[u64], thousandths: usize) -> u64 {
    let rank = (sorted.len() * thousandths).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// Records that were acknowledged, and that were read.
fn records(calls: &[Call<'_>]) -> (u64, u64) {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let ok = calls.iter().filter(|call| call.outcome == Outcome::Ok);
    ok.fold((0, 0), |(acknowledged, read), call| {
        match &call.last().action {
            Action::Send(send) => (acknowledged + count(send.values.len()), read),
            Action::Poll(poll) => {
                let brought = poll.reads.values().map(|r| r.records.len()).sum();
                (acknowledged, read + count(brought))
            }
            _ => (acknowledged, read),
        }
    })
}

/// The slowest recovery; none if there was none that ended well.
fn recovery(calls: &[Call<'_>]) -> Option<u64> {
    let recoveries = calls.iter();
    let recoveries = recoveries.filter(|c| matches!(c.invoke.action, Action::Recover));
    let took = recoveries.map(|c| (c.outcome == Outcome::Ok).then(|| c.took()));
    took.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))?
}

/// One key, while its appends are watched.
#[derive(Default)]
struct Watch {
    /// Appends under way.
    open: u64,
    /// Since when one is asked for in vain.
    since: Option<u64>,
}

/// The longest time in which appends to a key were asked for and none was answered for good. A
/// refusal that names the end of the log is an answer for good: the key works.
fn unavailable(ops: &[Op]) -> Option<Window> {
    let mut keys: BTreeMap<Key, Watch> = BTreeMap::new();
    let mut longest: Option<Window> = None;
    for op in ops {
        let Action::Send(send) = &op.action else {
            continue;
        };
        let watch = keys.entry(send.key).or_default();
        if op.kind == crate::history::Kind::Invoke {
            watch.open += 1;
            let _since = watch.since.get_or_insert(op.time);
            continue;
        }
        watch.open = watch.open.saturating_sub(1);
        let served = op.kind == crate::history::Kind::Ok || send.found_end.is_some();
        if let Some(since) = watch.since {
            let lasts_ms = (op.time - since) / 1_000_000;
            if longest.as_ref().is_none_or(|w| w.lasts_ms < lasts_ms) {
                longest = Some(Window {
                    key: send.key,
                    since_ms: since / 1_000_000,
                    lasts_ms,
                });
            }
        }
        if served {
            watch.since = (watch.open > 0).then_some(op.time);
        }
    }
    longest
}
