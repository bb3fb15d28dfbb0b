//! The highest of something that grows, as it was known at any entry.

use std::{collections::HashMap, hash::Hash};

/// Values that became known one after the other, of which only the highest so far counts.
#[derive(Debug, Clone)]
pub(super) struct Highest<T> {
    /// Entry at which it became known, and the value. Invariant: both grow.
    steps: Vec<(u64, T)>,
}

impl<T> Default for Highest<T> {
    fn default() -> Self {
        Self { steps: Vec::new() }
    }
}

impl<T: Ord> Highest<T> {
    /// `value` is known from entry `index` on, which is not before those noted so far.
    pub(super) fn note(&mut self, index: u64, value: T) {
        let last = self.steps.last();
        debug_assert!(last.is_none_or(|(at, _)| *at <= index));
        if last.is_none_or(|(_, highest)| *highest < value) {
            self.steps.push((index, value));
        }
    }

    /// The highest of each thing, from the entries at which values became known, in any order.
    pub(super) fn of_each<K: Ord + Hash>(mut notes: Vec<(u64, K, T)>) -> HashMap<K, Self> {
        notes.sort_unstable();
        let mut out: HashMap<K, Self> = HashMap::new();
        for (index, of, value) in notes {
            out.entry(of).or_default().note(index, value);
        }
        out
    }

    /// The highest that was known before entry `index`, and the entry that told it.
    pub(super) fn before(&self, index: u64) -> Option<&(u64, T)> {
        let known = self.steps.partition_point(|(at, _)| *at < index);
        self.steps.get(known.checked_sub(1)?)
    }

    /// The highest of all.
    pub(super) fn last(&self) -> Option<&(u64, T)> {
        self.steps.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_known_before_counts() {
        let mut highest = Highest::default();
        highest.note(3, 10);
        highest.note(5, 7);
        highest.note(5, 12);
        highest.note(9, 12);
        assert_eq!(highest.before(3), None);
        assert_eq!(highest.before(4), Some(&(3, 10)));
        assert_eq!(highest.before(5), Some(&(3, 10)));
        assert_eq!(highest.before(6), Some(&(5, 12)));
        assert_eq!(highest.last(), Some(&(5, 12)));
    }
}
