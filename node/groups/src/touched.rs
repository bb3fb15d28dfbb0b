//! What a batch of commands touched: only this is written to disk.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::Tp;

/// What of one group was touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// It was removed, perhaps to begin anew: everything stored of it goes before the rest is
    /// written.
    pub(crate) wiped: bool,
    /// Its generation, strategy or time.
    pub(crate) head: bool,
    pub(crate) members: BTreeSet<String>,
    pub(crate) offsets: BTreeSet<Tp>,
}

/// What of a shard was touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) groups: BTreeMap<String, Change>,
}

impl Touched {
    pub(crate) fn changed(&mut self, group: &str, change: Change) {
        let Change {
            wiped,
            head,
            members,
            offsets,
        } = change;
        let known = self.groups.entry(group.to_owned()).or_default();
        known.wiped |= wiped;
        known.head |= head;
        known.members.extend(members);
        known.offsets.extend(offsets);
    }

    pub(crate) fn removed(&mut self, group: &str) {
        let wiped = Change {
            wiped: true,
            ..Change::default()
        };
        let _before = self.groups.insert(group.to_owned(), wiped);
    }
}
