//! Applies a command to a shard: a pure function, so that every replica comes to the same state.
//! Everything is checked here again, whatever the coordinator checked before it proposed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use seriatim_proto::internal::v1 as wire;
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
};
use wire::group_command::Command;

use crate::{
    command::{GroupCommand, Refusal},
    limits::{MAX_MEMBERS, MAX_REPLACED, MAX_SHARD_GROUPS},
    offsets,
    records::{self, partitions},
    state::{Group, Member, Shard, Tp},
    touched::{Change, Touched},
};

/// Applies one command. A refused command leaves the shard as it was.
pub(crate) fn apply(
    shard: &mut Shard,
    command: GroupCommand,
    touched: &mut Touched,
) -> Result<(), Refusal> {
    let GroupCommand {
        group: id,
        now_ms,
        command,
    } = command;
    let full = shard.is_full();
    match command {
        Command::UpdateMembers(update) => change(shard, &id, touched, |group, touched| {
            update_members(group, update, (now_ms, full), touched)
        }),
        Command::ReleasePartitions(release) => change(shard, &id, touched, |group, touched| {
            release_partitions(group, release, touched)
        }),
        Command::StoreOffsets(store) => change(shard, &id, touched, |group, touched| {
            let store = offsets::check(group, store, full)?;
            offsets::store(group, store, now_ms, touched);
            Ok(())
        }),
        Command::DropGroup(_) => {
            let group = shard.groups.get(&id).ok_or(Refusal::UnknownGroup)?;
            if !group.members.is_empty() {
                return Err(Refusal::GroupNotEmpty);
            }
            remove(shard, &id, touched);
            Ok(())
        }
        Command::ExpireGroup(expire) => {
            let group = shard.groups.get(&id).ok_or(Refusal::UnknownGroup)?;
            if !group.members.is_empty() || group.touched_ms != expire.touched_ms {
                return Err(Refusal::Superseded);
            }
            remove(shard, &id, touched);
            Ok(())
        }
        Command::ForgetTopics(forget) => change(shard, &id, touched, |group, touched| {
            let origins: BTreeSet<u64> = forget.origins.into_iter().collect();
            offsets::forget(group, &origins, touched);
            Ok(())
        }),
    }
}

fn remove(shard: &mut Shard, id: &str, touched: &mut Touched) {
    if let Some(group) = shard.groups.remove(id) {
        shard.bytes -= group.bytes();
    }
    touched.removed(id);
}

/// Changes one group, which begins with its first change and ends when nothing is left of it.
fn change(
    shard: &mut Shard,
    id: &str,
    touched: &mut Touched,
    with: impl FnOnce(&mut Group, &mut Change) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut of_group = Change::default();
    if let Some(group) = shard.groups.get_mut(id) {
        let before = group.bytes();
        with(Arc::make_mut(group), &mut of_group)?;
        shard.bytes = shard.bytes - before + group.bytes();
        let gone = group.members.is_empty() && group.offsets.is_empty();
        touched.changed(id, of_group);
        if gone {
            remove(shard, id, touched);
        }
        return Ok(());
    }
    let mut group = Group::default();
    with(&mut group, &mut of_group)?;
    if group.members.is_empty() && group.offsets.is_empty() {
        return Ok(());
    }
    if shard.groups.len() >= MAX_SHARD_GROUPS {
        return Err(Refusal::TooManyGroups {
            most: most(MAX_SHARD_GROUPS),
        });
    }
    touched.changed(id, of_group);
    shard.bytes += group.bytes();
    let _none = shard.groups.insert(id.to_owned(), Arc::new(group));
    Ok(())
}

fn most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The members after these came and went, without their new targets. What the coordinator computes
/// targets for, and what becomes of the members when it is applied.
pub(crate) fn members_after(
    group: &Group,
    joins: Vec<wire::MemberSpec>,
    leaves: &[String],
) -> Result<BTreeMap<String, Member>, Refusal> {
    let mut members = group.members.clone();
    for id in leaves {
        let _member = members.remove(id);
    }
    for spec in joins {
        let id = spec.member_id.clone();
        if id.is_empty() {
            return Err(Refusal::malformed("a member without an id"));
        }
        if let Some(member) = members.get_mut(&id) {
            member.spec = spec;
            continue;
        }
        let place = members
            .iter()
            .find(|(_, member)| {
                !spec.instance_id.is_empty() && member.spec.instance_id == spec.instance_id
            })
            .map(|(id, _)| id.clone());
        let mut member = Member::default();
        if let Some(before) = place
            && let Some(mut place) = members.remove(&before)
        {
            hit!("groups.member.replaced");
            place.replaced.push(before);
            let surplus = place.replaced.len().saturating_sub(MAX_REPLACED);
            drop(place.replaced.drain(..surplus));
            member = place;
        }
        member.spec = spec;
        let _none = members.insert(id, member);
    }
    if members.len() > MAX_MEMBERS {
        return Err(Refusal::TooManyMembers {
            most: most(MAX_MEMBERS),
        });
    }
    Ok(members)
}

fn update_members(
    group: &mut Group,
    update: wire::UpdateMembers,
    (now_ms, full): (i64, bool),
    change: &mut Change,
) -> Result<(), Refusal> {
    if update.expected_generation != group.generation {
        return Err(Refusal::Superseded);
    }
    let mut members = members_after(group, update.joins, &update.leaves)?;
    let mut targets = targets(update.targets, &members)?;
    let strategy = records::strategy(update.strategy);
    let mut changed = strategy != group.strategy;
    for (id, member) in &mut members {
        let target = targets.remove(id).unwrap_or_default();
        let before = member.replaced.last();
        // A place that was taken over is not new.
        let new = !group.members.contains_key(id)
            && !before.is_some_and(|before| group.members.contains_key(before));
        changed |= new || target != member.target;
        member.target = target;
    }
    let taken = |id: &String| {
        let mut members = members.values();
        members.any(|member| member.replaced.last() == Some(id))
    };
    changed |= group
        .members
        .keys()
        .any(|id| !members.contains_key(id) && !taken(id));
    let bytes: usize = members.values().map(Member::bytes).sum();
    if full && bytes > group.member_bytes {
        return Err(Refusal::ShardFull);
    }
    let before = std::mem::replace(&mut group.members, members);
    group.member_bytes = bytes;
    group.strategy = strategy;
    group.touched_ms = now_ms;
    if changed {
        group.generation += 1;
    }
    let wanted: BTreeSet<Tp> = group
        .members
        .values()
        .flat_map(|member| member.pending().cloned())
        .collect();
    let _granted = grant(group, wanted);
    change.head = true;
    let ids: BTreeSet<&String> = before.keys().chain(group.members.keys()).collect();
    for id in ids {
        if before.get(id) != group.members.get(id) {
            let _new = change.members.insert(id.clone());
        }
    }
    Ok(())
}

/// The targets by member, each partition once.
fn targets(
    targets: Vec<wire::MemberTarget>,
    members: &BTreeMap<String, Member>,
) -> Result<BTreeMap<String, BTreeSet<Tp>>, Refusal> {
    let mut taken = BTreeSet::new();
    let mut by_member = BTreeMap::new();
    for target in targets {
        if !members.contains_key(&target.member_id) {
            return Err(Refusal::malformed("a target of somebody who is no member"));
        }
        let tps: BTreeSet<Tp> = partitions(target.partitions).collect();
        for tp in &tps {
            if !taken.insert(tp.clone()) {
                return Err(Refusal::malformed(
                    "a partition is the target of two members",
                ));
            }
        }
        if by_member.insert(target.member_id, tps).is_some() {
            return Err(Refusal::malformed("two targets of one member"));
        }
    }
    Ok(by_member)
}

/// Gives those of the partitions that nobody owns to the members that are to have them; who got
/// something.
fn grant(group: &mut Group, mut wanted: BTreeSet<Tp>) -> BTreeSet<String> {
    let owners = group.members.values();
    for member in owners.filter(|_| !mutant::on(Mutant::PartitionToTwo)) {
        wanted.retain(|tp| !member.owned.contains_key(tp));
    }
    let mut granted = BTreeSet::new();
    if wanted.is_empty() {
        return granted;
    }
    for (id, member) in &mut group.members {
        for tp in wanted.intersection(&member.target) {
            let _none = member.owned.insert(tp.clone(), group.generation);
            if !granted.contains(id) {
                let _new = granted.insert(id.clone());
            }
        }
    }
    granted
}

fn release_partitions(
    group: &mut Group,
    release: wire::ReleasePartitions,
    change: &mut Change,
) -> Result<(), Refusal> {
    let fenced = group.is_fenced(&release.member_id);
    let Some(member) = group.members.get_mut(&release.member_id) else {
        return Err(if fenced {
            Refusal::MemberFenced
        } else {
            Refusal::UnknownMember
        });
    };
    let mut released = BTreeSet::new();
    let partitions = partitions(release.partitions);
    for tp in partitions.filter(|_| !mutant::on(Mutant::ReleaseIgnored)) {
        // One that is the member's again was told to be revoked before that was known.
        if !member.target.contains(&tp) && member.owned.remove(&tp).is_some() {
            let _new = released.insert(tp);
        }
    }
    if released.is_empty() {
        return Ok(());
    }
    let _new = change.members.insert(release.member_id);
    change.members.extend(grant(group, released));
    Ok(())
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
