//! Stored offsets: who may store which. Pure.

use std::collections::BTreeSet;

use seriatim_proto::internal::v1 as wire;

use crate::{
    command::Refusal,
    limits::{MAX_GROUP_OFFSETS, MAX_METADATA_BYTES},
    state::{Committed, Group, Member, Tp},
    touched::Change,
};

/// A commit that may be stored.
#[derive(Debug)]
pub(crate) struct Checked {
    changes: Vec<(Tp, wire::OffsetChange)>,
}

/// Checks a commit against the group: all of it or nothing is stored.
pub(crate) fn check(group: &Group, store: wire::StoreOffsets) -> Result<Checked, Refusal> {
    let member = committer(group, &store.member_id)?;
    let mut seen = BTreeSet::new();
    let mut changes = Vec::with_capacity(store.offsets.len());
    let mut new = 0;
    for mut change in store.offsets {
        let tp = Tp::new(std::mem::take(&mut change.topic), change.partition);
        check_change(&change, member.is_some())?;
        let stored = group.offsets.get(&tp);
        if let Some(member) = member {
            let granted = member.owned.get(&tp);
            if granted.is_none_or(|from| !(*from..=group.generation).contains(&store.generation)) {
                return Err(Refusal::StaleGeneration { tp });
            }
            // The offset of a deleted topic of that name says nothing about this one.
            if let Some(stored) = stored
                && stored.origin == change.origin
                && stored.offset > change.offset
                && !change.allow_back
            {
                return Err(Refusal::OffsetWentBack {
                    tp,
                    stored: stored.offset,
                    asked: change.offset,
                });
            }
        }
        new += usize::from(stored.is_none());
        if !seen.insert(tp.clone()) {
            return Err(Refusal::malformed("a partition occurs twice in one commit"));
        }
        changes.push((tp, change));
    }
    if group.offsets.len() + new > MAX_GROUP_OFFSETS {
        return Err(Refusal::TooManyOffsets {
            most: i64::try_from(MAX_GROUP_OFFSETS).unwrap_or(i64::MAX),
        });
    }
    Ok(Checked { changes })
}

/// The member that commits; none where the commit comes from outside.
fn committer<'a>(group: &'a Group, id: &str) -> Result<Option<&'a Member>, Refusal> {
    if id.is_empty() {
        return if group.members.is_empty() {
            Ok(None)
        } else {
            Err(Refusal::GroupNotEmpty)
        };
    }
    match group.members.get(id) {
        Some(member) => Ok(Some(member)),
        None if group.is_fenced(id) => Err(Refusal::MemberFenced),
        None => Err(Refusal::UnknownMember),
    }
}

fn check_change(change: &wire::OffsetChange, by_member: bool) -> Result<(), Refusal> {
    if change.partition < 0 {
        return Err(Refusal::malformed("a partition has a number from 0"));
    }
    if change.offset < if by_member { 0 } else { -1 } {
        return Err(Refusal::malformed(
            "an offset is 0 or more, or -1 from outside of the group",
        ));
    }
    if change.metadata.len() > MAX_METADATA_BYTES {
        return Err(Refusal::malformed("the text of an offset is too long"));
    }
    Ok(())
}

/// Stores what was checked.
pub(crate) fn store(group: &mut Group, commit: Checked, now_ms: i64, change: &mut Change) {
    if group.members.is_empty() {
        group.touched_ms = now_ms;
        change.head = true;
    }
    for (tp, stored) in commit.changes {
        if stored.offset < 0 {
            let _before = group.offsets.remove(&tp);
        } else {
            let committed = Committed {
                offset: stored.offset,
                metadata: stored.metadata.into(),
                at_ms: now_ms,
                origin: stored.origin,
            };
            let _before = group.offsets.insert(tp.clone(), committed);
        }
        let _new = change.offsets.insert(tp);
    }
}

/// Forgets the offsets of deleted topics.
pub(crate) fn forget(group: &mut Group, origins: &BTreeSet<u64>, change: &mut Change) {
    let gone: Vec<Tp> = group
        .offsets
        .iter()
        .filter(|(_, committed)| origins.contains(&committed.origin))
        .map(|(tp, _)| tp.clone())
        .collect();
    for tp in gone {
        let _committed = group.offsets.remove(&tp);
        let _new = change.offsets.insert(tp);
    }
}
