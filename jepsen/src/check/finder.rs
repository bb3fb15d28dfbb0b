//! What a checker notes down while it looks.

use std::collections::BTreeMap;

use super::{Checker, Finding, Violation};
use crate::history::Header;

/// Most violations that one checker lists.
const LISTED_MAX: usize = 8;

/// Collects what one checker finds.
#[derive(Debug, Default)]
pub(super) struct Finder {
    looked_at: u64,
    violated: u64,
    violations: Vec<Violation>,
    figures: BTreeMap<String, f64>,
}

impl Finder {
    /// Counts one more thing; unless it is `good`, `violation` says what is wrong with it and which
    /// entries show that.
    pub(super) fn expect(&mut self, good: bool, violation: impl FnOnce() -> (String, Vec<u64>)) {
        self.looked_at += 1;
        if good {
            return;
        }
        self.violated += 1;
        if self.violations.len() < LISTED_MAX {
            let (text, mut ops) = violation();
            ops.sort_unstable();
            ops.dedup();
            self.violations.push(Violation { text, ops });
        }
    }

    /// Counts things that are judged together with another one.
    pub(super) fn looked_at(&mut self, more: usize) {
        self.looked_at += u64::try_from(more).unwrap_or(u64::MAX);
    }

    /// Notes what was measured.
    pub(super) fn figure(&mut self, name: impl Into<String>, value: f64) {
        let _none = self.figures.insert(name.into(), value);
    }

    /// The finding. Where nothing was looked at although what ran should have given something, the
    /// check itself failed.
    pub(super) fn done(mut self, checker: &Checker, header: &Header) -> Finding {
        let fed = checker.fed_by.iter();
        let fed: Vec<_> = fed.filter(|w| header.workloads.contains(w)).collect();
        if self.looked_at == 0 && !fed.is_empty() {
            self.violated += 1;
            self.violations.push(Violation {
                text: format!("nothing to look at, although these workloads ran: {fed:?}"),
                ops: Vec::new(),
            });
        }
        Finding {
            name: checker.name.to_owned(),
            promise: checker.promise.to_owned(),
            holds: self.violated == 0,
            looked_at: self.looked_at,
            violated: self.violated,
            violations: self.violations,
            figures: self.figures,
        }
    }
}
