//! Members of consumer groups: they come, read, commit, leave in every way, and come back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join_all;
use seriatim_client::{
    Client, ClientError, Consumer, ErrorCode, GroupBatch, GroupConsumer, Offset, Position, ResetTo,
    Strategy, TopicPartition,
};
use seriatim_runtime::{clock, rng};

use super::{
    Target, Work,
    actor::{Actor, told},
    any, one_in, record,
};
use crate::history::{Action, Commit, Committed, Key, Poll, Read};

/// Those of a group whose members commit by themselves.
pub(super) const AUTOMATIC: &str = "automatic";

/// Those of a group whose application commits.
pub(super) const MANUAL: &str = "manual";

/// How long a poll waits for records.
const POLL: Duration = Duration::from_millis(500);

/// The shortest that is allowed, so that a short run sees sessions end.
const SESSION: Duration = Duration::from_secs(3);

/// Shorter than the session, so that a slow member loses single partitions too.
const REBALANCE: Duration = Duration::from_millis(1500);

/// How often a member commits by itself.
const COMMIT_EVERY: Duration = Duration::from_millis(300);

/// A seat in a group: one member after the other, until the jobs are to end.
pub(super) async fn seat(work: Work, group: &'static str, targets: Vec<Target>, number: usize) {
    while let Some(client) = work.client().await {
        while !work.stopping() {
            // Whoever comes back under an instance id is the same member, with the same grants.
            let instance = one_in(4).then(|| format!("{group}-{number}"));
            let name = instance.clone();
            let mut member = Member {
                work: &work,
                actor: Actor::new(work.recorder()),
                group,
                name: name.unwrap_or_else(|| format!("m{}", work.label())),
                begun: BTreeMap::new(),
                given_up: BTreeSet::new(),
                done: BTreeMap::new(),
            };
            if let Some(consumer) = member.join(&client, &targets, instance).await {
                member.live(consumer).await;
            }
            work.pause(Duration::from_millis(700)).await;
            if one_in(3) {
                break;
            }
        }
    }
}

/// One life of a member.
struct Member<'a> {
    work: &'a Work,
    actor: Actor,
    group: &'static str,
    name: String,
    /// The generation in which each partition was granted, of those that records came of.
    begun: BTreeMap<TopicPartition, u64>,
    /// Partitions, as granted, of which something was given up: nothing behind that is committed.
    given_up: BTreeSet<(TopicPartition, u64)>,
    /// Where each partition, as granted, is to be committed.
    done: BTreeMap<TopicPartition, (u64, i64)>,
}

impl Member<'_> {
    fn automatic(&self) -> bool {
        self.group == AUTOMATIC
    }

    fn key(&self, tp: &TopicPartition) -> Key {
        self.work.keys().of(&tp.topic, tp.partition.0)
    }

    async fn join(
        &mut self,
        client: &Client,
        targets: &[Target],
        instance: Option<String>,
    ) -> Option<GroupConsumer> {
        let strategies = [Strategy::Sticky, Strategy::Range, Strategy::RoundRobin];
        let mut builder = Consumer::group(client, self.group)
            .topics(targets.iter().map(|target| target.topic.clone()))
            .session_timeout(SESSION)
            .rebalance_timeout(REBALANCE)
            .strategy(any(&strategies).copied().unwrap_or_default())
            .auto_commit(self.automatic().then_some(COMMIT_EVERY));
        if let Some(instance) = instance {
            builder = builder.instance_id(instance);
        }
        let keys: Vec<_> = super::places(targets)
            .iter()
            .map(|tp| self.key(tp))
            .collect();
        let pending = self.actor.invoke(Action::Subscribe(keys.clone()));
        match builder.build().await {
            Ok(consumer) => {
                self.actor.ok(pending, Action::Subscribe(keys));
                Some(consumer)
            }
            Err(error) => {
                self.actor.failed(pending, Action::Subscribe(keys), &error);
                if !error.is_retryable() && error.code() != Some(ErrorCode::MemberFenced) {
                    self.impossible("cannot join", &error);
                }
                None
            }
        }
    }

    fn impossible(&self, what: &str, error: &ClientError) {
        let (name, group) = (&self.name, self.group);
        let text = format!("member {name} of {group} {what}: {}", told(error));
        self.work.recorder().impossible(text);
    }

    async fn live(mut self, mut consumer: GroupConsumer) {
        while !self.work.stopping() {
            // Nothing behind what was given up is committed until the partition goes to another.
            let ends = match (self.work.is_calm(), self.given_up.is_empty()) {
                (true, nothing) => !nothing,
                (false, nothing) => one_in(if nothing { 120 } else { 10 }),
            };
            if ends {
                return self.end(consumer).await;
            }
            let pending = self.actor.invoke(Action::Poll(Poll::default()));
            let mut poll = Poll {
                group: Some(self.group.to_owned()),
                member: Some(self.name.clone()),
                ..Poll::default()
            };
            match clock::timeout(POLL, consumer.next_batch()).await {
                Err(_elapsed) => self.actor.ok(pending, Action::Poll(poll)),
                Ok(Some(Ok(batch))) => {
                    match self.took(&batch) {
                        Ok((tp, read, sought)) => {
                            poll.sought = sought;
                            let _none = poll.reads.insert(self.key(&tp), read);
                            self.actor.ok(pending, Action::Poll(poll));
                        }
                        Err(why) => {
                            self.actor.ok(pending, Action::Poll(poll));
                            let what = format!("a member cannot read a batch: {why}");
                            return self.work.recorder().impossible(what);
                        }
                    }
                    self.process(batch).await;
                }
                Ok(Some(Err(error))) => {
                    self.actor.fail(pending, Action::Poll(poll), &error);
                    let fenced = error.code() == Some(ErrorCode::MemberFenced);
                    if !error.is_retryable() && !fenced {
                        self.impossible("failed", &error);
                    }
                }
                // After the failure that ended the member.
                Ok(None) => return self.actor.ok(pending, Action::Poll(poll)),
            }
            if !self.automatic() && one_in(4) {
                self.commit(&consumer).await;
            }
        }
        self.end(consumer).await;
    }

    fn took(&mut self, batch: &GroupBatch) -> Result<(TopicPartition, Read, bool), String> {
        let tp = TopicPartition::new(batch.topic(), batch.partition());
        let granted = batch.granted_generation();
        let sought = self.begun.insert(tp.clone(), granted) != Some(granted);
        let read = Read {
            records: record::values_of(batch)?,
            high_watermark: Some(batch.high_watermark().0),
            granted: Some(granted),
            ..Read::default()
        };
        Ok((tp, read, sought))
    }

    /// Handles a batch: mostly at once, sometimes slowly, sometimes not to its end.
    async fn process(&mut self, batch: GroupBatch) {
        if one_in(80) && !self.work.is_calm() {
            // Perhaps longer than the group waits.
            clock::sleep(rng::duration_below(SESSION * 2)).await;
        } else if !self.work.is_calm() {
            self.work.pause(Duration::from_millis(5)).await;
        }
        let tp = TopicPartition::new(batch.topic(), batch.partition());
        let granted = batch.granted_generation();
        let place = (tp.clone(), granted);
        let (from, to) = (batch.first_offset().0, batch.next_offset().0);
        let until = match rng::below(100) {
            _ if self.work.is_calm() => to,
            0 => from,
            1 => {
                from + i64::try_from(rng::below(u64::try_from(to - from).unwrap_or(1))).unwrap_or(0)
            }
            _ => to,
        };
        if self.given_up.contains(&place) {
            return batch.abandon();
        }
        if until < to {
            let _new = self.given_up.insert(place);
        }
        if self.automatic() && until > from {
            self.may_commit(&tp, granted, until);
        }
        let _before = self.done.insert(tp, (granted, until));
        batch.processed_until(Offset(until));
    }

    /// From now on the member may commit this by itself, at any time.
    fn may_commit(&mut self, tp: &TopicPartition, granted: u64, offset: i64) {
        let key = self.key(tp);
        let commit = Action::Commit(Commit {
            group: self.group.to_owned(),
            member: self.name.clone(),
            granted: BTreeMap::from([(key, granted)]),
            offsets: BTreeMap::from([(key, offset)]),
        });
        let mut actor = Actor::new(self.work.recorder());
        let pending = actor.invoke(commit.clone());
        actor.unknown(pending, commit, "by itself, in its own time");
    }

    /// Commits what is done of the partitions that are still this member's.
    async fn commit(&mut self, consumer: &GroupConsumer) {
        let owned = |tp: &TopicPartition| consumer.granted_generation(&tp.topic, tp.partition.0);
        self.done
            .retain(|tp, (granted, _)| owned(tp) == Some(*granted));
        if self.done.is_empty() {
            return;
        }
        let chosen: BTreeMap<_, _> = self.done.iter().map(|(tp, at)| (tp.clone(), *at)).collect();
        let mut commit = Commit {
            group: self.group.to_owned(),
            member: self.name.clone(),
            ..Commit::default()
        };
        for (tp, (granted, offset)) in &chosen {
            let key = self.key(tp);
            let _none = commit.granted.insert(key, *granted);
            let _none = commit.offsets.insert(key, *offset);
        }
        let offsets = chosen.iter();
        let offsets = offsets.map(|(tp, (_, offset))| (tp.clone(), Offset(*offset).into()));
        let pending = self.actor.invoke(Action::Commit(commit.clone()));
        let stored = consumer.commit_offsets(offsets.collect()).await;
        // Lost and given again meanwhile, it may have been stored under the later grant.
        let regranted: Vec<_> = chosen
            .iter()
            .filter(|(tp, (granted, _))| owned(tp).is_some_and(|now| now != *granted))
            .map(|(tp, _)| self.key(tp))
            .collect();
        commit.granted.retain(|key, _| !regranted.contains(key));
        match stored {
            Ok(()) => self.actor.ok(pending, Action::Commit(commit)),
            Err(error) => {
                self.actor.failed(pending, Action::Commit(commit), &error);
                self.expect_fenced(&error);
            }
        }
    }

    /// Such a member is only ever refused for what it no longer owns.
    fn expect_fenced(&self, error: &ClientError) {
        let known = matches!(
            error.code(),
            Some(
                ErrorCode::StaleGeneration
                    | ErrorCode::UnknownMember
                    | ErrorCode::UnknownGroup
                    | ErrorCode::MemberFenced
            )
        );
        let lost = matches!(error, ClientError::NotAssigned(_) | ClientError::Closed(_));
        if !known && !lost && !error.is_retryable() && error.has_no_side_effects() {
            self.impossible("was refused a commit", error);
        }
    }

    /// Leaves as it should, or not.
    async fn end(self, consumer: GroupConsumer) {
        let crashes = one_in(2) && !self.work.stopping() && !self.work.is_calm();
        if crashes {
            let pending = self.actor.invoke(Action::Crash);
            drop(consumer);
            return self.actor.ok(pending, Action::Crash);
        }
        if let Err(error) = consumer.close().await {
            tracing::debug!(%error, "a member could not leave");
        }
    }
}

/// Gives both groups an offset of each partition. A group with neither members nor offsets is none, and the
/// next one of its name counts its generations anew.
pub(super) async fn found(work: Work, targets: Vec<Target>) {
    let mut actor = Actor::new(work.recorder());
    let places = super::places(&targets);
    let start = ResetTo::Position(Position::Offset(Offset(0)));
    let starts: Vec<_> = places.iter().map(|tp| (tp.clone(), start)).collect();
    let key = |tp: &TopicPartition| work.keys().of(&tp.topic, tp.partition.0);
    for group in [AUTOMATIC, MANUAL] {
        let commit = Action::Commit(Commit {
            group: group.to_owned(),
            offsets: places.iter().map(|tp| (key(tp), 0)).collect(),
            ..Commit::default()
        });
        while let Some(client) = work.client().await {
            let pending = actor.invoke(commit.clone());
            match client.admin().reset_group(group, &starts, false).await {
                Ok(_changes) => {
                    actor.ok(pending, commit);
                    break;
                }
                Err(error) => {
                    actor.failed(pending, commit.clone(), &error);
                    if !error.is_retryable() {
                        let what = format!("group {group} cannot begin: {}", told(&error));
                        return work.recorder().impossible(what);
                    }
                }
            }
            work.pause(Duration::from_millis(100)).await;
        }
    }
}

/// Asks where a group is, over and over.
pub(super) async fn watch(work: Work, group: &'static str, targets: Vec<Target>, pause: Duration) {
    let mut actor = Actor::new(work.recorder());
    while let Some(client) = work.client().await {
        while !work.stopping() {
            let _answered = ask(&work, &mut actor, &client, group, &targets).await;
            work.pause(pause).await;
        }
    }
}

/// Where a group is; `None` without an answer.
pub(super) async fn ask(
    work: &Work,
    actor: &mut Actor,
    client: &Client,
    group: &str,
    targets: &[Target],
) -> Option<BTreeMap<Key, Option<i64>>> {
    let places = super::places(targets);
    let mut committed = Committed {
        group: group.to_owned(),
        ..Committed::default()
    };
    let pending = actor.invoke(Action::Committed(committed.clone()));
    match client.admin().committed_offsets(group, &places).await {
        Ok(offsets) => {
            let told = offsets.into_iter().map(|told| {
                let key = work
                    .keys()
                    .of(&told.partition.topic, told.partition.partition.0);
                (key, told.offset.map(|offset| offset.0))
            });
            committed.offsets = told.collect();
            let offsets = committed.offsets.clone();
            actor.ok(pending, Action::Committed(committed));
            Some(offsets)
        }
        Err(error) => {
            actor.fail(pending, Action::Committed(committed), &error);
            let unknown = error.code() == Some(ErrorCode::UnknownGroup);
            if !unknown && !error.is_retryable() {
                let what = format!(
                    "group {group} cannot be asked: {}",
                    super::actor::told(&error)
                );
                work.recorder().impossible(what);
            }
            None
        }
    }
}

/// Ends when both groups committed every partition anew; `false` if the jobs are to end first.
pub(super) async fn progress(work: &Work, targets: &[Target]) -> bool {
    let groups = [AUTOMATIC, MANUAL].map(|group| advanced(work, group, targets));
    join_all(groups).await.into_iter().all(|advanced| advanced)
}

async fn advanced(work: &Work, group: &str, targets: &[Target]) -> bool {
    let mut actor = Actor::new(work.recorder());
    let mut before: Option<BTreeMap<Key, Option<i64>>> = None;
    while let Some(client) = work.client().await {
        while !work.stopping() {
            let now = ask(work, &mut actor, &client, group, targets).await;
            if let (Some(now), Some(before)) = (&now, &before) {
                let further = |key: &Key, at: &Option<i64>| now.get(key).is_some_and(|n| n > at);
                if before.iter().all(|(key, at)| further(key, at)) {
                    return true;
                }
            }
            before = before.or(now);
            work.pause(Duration::from_millis(100)).await;
        }
    }
    false
}

/// Asks both groups until they answer.
pub(super) async fn settle(work: Work, targets: Vec<Target>) {
    let mut actor = Actor::new(work.recorder());
    for group in [AUTOMATIC, MANUAL] {
        while let Some(client) = work.client().await {
            if ask(&work, &mut actor, &client, group, &targets)
                .await
                .is_some()
            {
                break;
            }
            work.pause(Duration::from_millis(100)).await;
        }
    }
}
