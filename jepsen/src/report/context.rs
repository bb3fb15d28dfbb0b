//! What stands around a broken promise: the entries that show it, and those before, between and after
//! them that have to do with the same keys.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Action, Key, Kind, Op};

/// Entries before and after one that shows a violation, on the same key.
const AROUND: usize = 4;

/// Entries that touch the same offsets or values, wherever they are.
const SAME_MAX: usize = 12;

/// Most entries of one violation.
const ENTRIES_MAX: usize = 60;

/// Entries by the keys that they are about.
pub(super) struct Index<'a> {
    ops: &'a [Op],
    by_key: BTreeMap<Key, Vec<usize>>,
}

/// Offsets from the first to before the second.
type Offsets = (i64, i64);

impl<'a> Index<'a> {
    pub(super) fn new(ops: &'a [Op]) -> Self {
        let mut by_key: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for (at, op) in ops.iter().enumerate() {
            for (key, _) in touched(op) {
                by_key.entry(key).or_default().push(at);
            }
        }
        Self { ops, by_key }
    }

    /// The entry of that number.
    pub(super) fn entry(&self, index: u64) -> Option<&'a Op> {
        self.place(index).and_then(|at| self.ops.get(at))
    }

    fn place(&self, index: u64) -> Option<usize> {
        self.ops.binary_search_by_key(&index, |op| op.index).ok()
    }

    /// Entries to show beside those that show a violation, themselves among them, in order.
    pub(super) fn around(&self, shown: &[u64]) -> Vec<&'a Op> {
        let shown: BTreeSet<usize> = shown.iter().filter_map(|&i| self.place(i)).collect();
        let mut out = shown.clone();
        for &at in &shown {
            let Some(op) = self.ops.get(at) else { continue };
            out.extend(self.other_end(at, op));
            for (key, offsets) in touched(op) {
                let on_key = self.by_key.get(&key).map_or(&[][..], Vec::as_slice);
                let place = on_key.partition_point(|&other| other < at);
                let from = place.saturating_sub(AROUND);
                out.extend(on_key.iter().skip(from).take(2 * AROUND + 1));
                if let Some(offsets) = offsets {
                    out.extend(self.same(on_key, key, offsets));
                }
            }
            if out.len() > ENTRIES_MAX {
                break;
            }
        }
        let kept = out.into_iter().take(ENTRIES_MAX);
        kept.filter_map(|at| self.ops.get(at)).collect()
    }

    /// The invocation of a completion, or the completion of an invocation.
    fn other_end(&self, at: usize, op: &Op) -> Option<usize> {
        let mut own = self.ops.iter().enumerate();
        if op.kind == Kind::Invoke {
            return own
                .skip(at + 1)
                .find(|(_, o)| o.process == op.process)
                .map(|(at, _)| at);
        }
        let mut before = own.by_ref().take(at).rev();
        before
            .find(|(_, o)| o.process == op.process)
            .map(|(at, _)| at)
    }

    /// The first entries that completed at some of these offsets.
    fn same(&self, on_key: &[usize], key: Key, offsets: Offsets) -> Vec<usize> {
        let meets = |at: &&usize| {
            let op = self.ops.get(**at);
            let touched = op.filter(|op| op.kind != Kind::Invoke).map(touched);
            touched.unwrap_or_default().iter().any(|(other, theirs)| {
                *other == key && theirs.is_some_and(|t| t.0 < offsets.1 && offsets.0 < t.1)
            })
        };
        on_key
            .iter()
            .filter(meets)
            .take(SAME_MAX)
            .copied()
            .collect()
    }
}

/// The keys that an entry is about, and the offsets, where they are known.
fn touched(op: &Op) -> Vec<(Key, Option<Offsets>)> {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    match &op.action {
        Action::Send(send) => {
            let offsets = send
                .offset
                .map(|from| (from, from + count(send.values.len())));
            vec![(send.key, offsets)]
        }
        Action::Poll(poll) => {
            let reads = poll.reads.iter();
            let reads = reads.map(|(key, read)| {
                let ends = read.records.first().zip(read.records.last());
                (*key, ends.map(|(first, last)| (first.0, last.0 + 1)))
            });
            reads.collect()
        }
        Action::Assign(keys) | Action::Subscribe(keys) => keys.iter().map(|k| (*k, None)).collect(),
        Action::Commit(commit) => {
            let offsets = commit.offsets.iter();
            offsets
                .map(|(key, at)| (*key, Some((*at, at + 1))))
                .collect()
        }
        Action::Committed(committed) => {
            let offsets = committed.offsets.iter();
            offsets
                .map(|(key, at)| (*key, at.map(|at| (at, at + 1))))
                .collect()
        }
        Action::Trim(trim) => vec![(trim.key, None)],
        Action::Register(register) => vec![(register.key, None)],
        Action::Replica(replica) => vec![(replica.key, None)],
        Action::Crash
        | Action::CreateTopic(_)
        | Action::DeleteTopic(_)
        | Action::Recover
        | Action::Fault(_)
        | Action::Impossible(_) => Vec::new(),
    }
}
