//! Stored offsets: who may store which. Pure.

use std::{collections::BTreeSet, sync::Arc};

use prost::Message as _;
use seriatim_proto::internal::v1 as wire;
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
};

use crate::{
    command::Refusal,
    limits::{MAX_GROUP_OFFSET_BYTES, MAX_GROUP_OFFSETS, MAX_METADATA_BYTES},
    state::{Committed, Group, Member, Tp},
    touched::Change,
};

/// A commit that may be stored.
#[derive(Debug)]
pub(crate) struct Checked {
    changes: Vec<(Tp, wire::OffsetChange)>,
}

/// Checks a commit against the group: all of it or nothing is stored.
///
/// In a shard that is `full`, offsets may move but no group may grow.
pub(crate) fn check(
    group: &Group,
    store: wire::StoreOffsets,
    full: bool,
) -> Result<Checked, Refusal> {
    let member = committer(group, &store.member_id)?;
    let mut seen = BTreeSet::new();
    let mut changes = Vec::with_capacity(store.offsets.len());
    let (mut new, mut bytes, mut grows) = (0, 0, false);
    let mut topic: Arc<str> = Arc::default();
    for change in store.offsets {
        // One name for all partitions of a topic.
        if *topic != *change.topic {
            topic = change.topic.as_str().into();
        }
        let tp = Tp::new(Arc::clone(&topic), change.partition);
        check_change(&change, member.is_some())?;
        let stored = group.offsets.get(&tp);
        if let Some(member) = member {
            let granted = member.owned.get(&tp);
            if granted.is_none_or(|from| !(*from..=group.generation).contains(&store.generation))
                && !mutant::on(Mutant::CommitNotFenced)
            {
                hit!("groups.commit.fenced");
                return Err(Refusal::StaleGeneration { tp });
            }
            // The offset of a deleted topic of that name says nothing about this one.
            if let Some(stored) = stored
                && stored.origin == change.origin
                && stored.offset > change.offset
                && !change.allow_back
            {
                hit!("groups.commit.went-back");
                return Err(Refusal::OffsetWentBack {
                    tp,
                    stored: stored.offset,
                    asked: change.offset,
                });
            }
        }
        new += usize::from(stored.is_none() && change.offset >= 0);
        bytes += change.encoded_len();
        grows |= stored.map_or(0, |stored| stored.metadata.len()) < change.metadata.len();
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
    grows |= new > 0;
    if grows && group.offset_bytes + bytes > MAX_GROUP_OFFSET_BYTES {
        return Err(Refusal::malformed(
            "all offsets of a group with their texts have at most 32 MiB",
        ));
    }
    if grows && full {
        return Err(Refusal::ShardFull);
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
        let committed = (stored.offset >= 0).then(|| Committed {
            offset: stored.offset,
            metadata: stored.metadata.into(),
            at_ms: now_ms,
            origin: stored.origin,
        });
        group.set_offset(tp.clone(), committed);
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
        group.set_offset(tp.clone(), None);
        let _new = change.offsets.insert(tp);
    }
}
