//! A member's session, on the coordinator only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use seriatim_proto::v1;
use seriatim_runtime::{
    clock::Instant,
    mutant::{self, Mutant},
};
use v1::member_response::Response;

use super::link::Link;
use crate::{
    records::by_topic,
    state::{Committed, Group, Member, Tp},
    topics::Topics,
};

/// A member as the coordinator sees it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: Option<Arc<Link>>,
    /// When its time begins, where no stream of it is heard since. Invariant: nobody answers a heartbeat after
    /// that but this coordinator.
    since: Instant,
    timeout: Duration,
    rebalance: Duration,
    /// It said that it leaves.
    pub(super) leaving: bool,
    /// Its time ran out.
    pub(super) expired: bool,
    /// What it is to let go of.
    revoking: BTreeMap<Tp, Revoking>,
    /// What it was last told, without the committed offsets, which are told along and are no news
    /// by themselves.
    told: Option<v1::Assignment>,
}

/// A partition that a member is to let go of.
#[derive(Debug, Clone, Copy)]
struct Revoking {
    /// Then it is taken away. Invariant: a session timeout after the member was told, or could last be
    /// answered without being told. What is answered later comes behind the news on the same stream, so by
    /// then the member knows, or has stopped because nobody answers (simulator seed 95).
    until: Instant,
    /// The generation that wants it. A release that answers an older one is of an earlier time that
    /// the member had to let go of the partition, and it has the partition again since.
    since: u64,
}

impl Session {
    pub(super) fn new(member: &Member, link: Option<Arc<Link>>, now: Instant) -> Self {
        let mut session = Self {
            link,
            since: now,
            timeout: Duration::ZERO,
            rebalance: Duration::ZERO,
            leaving: false,
            expired: false,
            revoking: BTreeMap::new(),
            told: None,
        };
        session.set_timeouts(member);
        session
    }

    fn set_timeouts(&mut self, member: &Member) {
        let ms = |ms: u32| Duration::from_millis(ms.into());
        self.timeout = ms(member.spec.session_timeout_ms);
        self.rebalance = ms(member.spec.rebalance_timeout_ms);
    }

    /// Gives it another stream; what was told on the old one is told again.
    pub(super) fn attach(&mut self, link: Arc<Link>) -> Option<Arc<Link>> {
        self.told = None;
        self.expired = false;
        self.leaving = false;
        let before = self.link.replace(link);
        if let Some(before) = &before {
            self.since = self.since.max(before.heard());
        }
        before
    }

    pub(super) fn is(&self, link: &Arc<Link>) -> bool {
        self.link.as_ref().is_some_and(|own| Arc::ptr_eq(own, link))
    }

    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        let heard = self.link.as_ref().map(|link| link.heard());
        let heard = heard.map_or(self.since, |heard| heard.max(self.since));
        now.saturating_duration_since(heard)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        !self.expired
            && !self.leaving
            && self.silent_for(now) >= self.timeout
            && !mutant::on(Mutant::SessionExpiryIgnored)
    }

    /// Of these, what it was told to let go of in that generation or before; 0: in any.
    pub(super) fn told_to_revoke(&self, tps: Vec<Tp>, generation: u64) -> Vec<Tp> {
        let told = |tp: &Tp| {
            let revoking = self.revoking.get(tp);
            revoking.is_some_and(|it| generation == 0 || it.since <= generation)
        };
        let mut told: Vec<Tp> = tps.into_iter().filter(told).collect();
        told.sort_unstable();
        told.dedup();
        told
    }

    /// What it did not let go of in time. It gets another try after as much time, in case the first
    /// is lost.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Tp> {
        let mut overdue = Vec::new();
        for (tp, revoking) in &mut self.revoking {
            if revoking.until <= now {
                revoking.until = now + self.rebalance;
                overdue.push(tp.clone());
            }
        }
        overdue
    }

    /// Tells the member what is new to it.
    pub(super) fn tell(&mut self, group: &Group, member: &Member, topics: &Topics, now: Instant) {
        self.set_timeouts(member);
        self.revoking
            .retain(|tp, _| member.owned.contains_key(tp) && !member.target.contains(tp));
        for tp in member.revoking() {
            if !self.revoking.contains_key(tp) {
                let revoking = Revoking {
                    until: now.max(self.since) + self.rebalance.max(self.timeout),
                    since: group.generation,
                };
                let _new = self.revoking.insert(tp.clone(), revoking);
            }
        }
        let Some(link) = self.link.as_ref().filter(|link| !link.has_ended()) else {
            return;
        };
        let news = assignment(group, member, |_tp| None);
        if self.told.as_ref() != Some(&news) {
            let committed = |tp: &Tp| {
                let committed = group.offsets.get(tp);
                committed.filter(|committed| topics.counts(committed))
            };
            link.send(Response::Assignment(assignment(group, member, committed)));
            self.told = Some(news);
        }
    }
}

fn assignment<'a>(
    group: &Group,
    member: &Member,
    committed: impl Fn(&Tp) -> Option<&'a Committed>,
) -> v1::Assignment {
    let assigned = |(tp, granted): (&Tp, u64)| {
        let committed = committed(tp);
        v1::AssignedPartition {
            topic: (*tp.topic).to_owned(),
            partition: tp.partition,
            committed_offset: committed.map(|committed| committed.offset),
            metadata: committed.map_or_else(String::new, |at| at.metadata.clone().into()),
            granted_generation: granted,
        }
    };
    v1::Assignment {
        generation: group.generation,
        assigned: member.kept().map(assigned).collect(),
        revoke: topic_partitions(member.revoking()),
        pending: topic_partitions(member.pending()),
        session_timeout_ms: member.spec.session_timeout_ms,
    }
}

/// Partitions by topic, as the public API has them.
pub(crate) fn topic_partitions<'a>(
    tps: impl IntoIterator<Item = &'a Tp>,
) -> Vec<v1::TopicPartitions> {
    let topics = by_topic(tps).into_iter();
    topics
        .map(|of| v1::TopicPartitions {
            topic: of.topic,
            partitions: of.partitions,
        })
        .collect()
}

/// Where the group is in a partition, as the public API has it.
pub(crate) fn committed_offset(tp: &Tp, committed: Option<&Committed>) -> v1::CommittedOffset {
    v1::CommittedOffset {
        topic: (*tp.topic).to_owned(),
        partition: tp.partition,
        offset: committed.map(|committed| committed.offset),
        metadata: committed.map_or_else(String::new, |at| at.metadata.clone().into()),
        committed_at_ms: committed.map_or(0, |committed| committed.at_ms),
    }
}

#[cfg(test)]
mod tests {
    use seriatim_proto::internal::v1 as wire;
    use seriatim_runtime::clock;

    use super::*;

    fn member(owned: &[i32], target: &[i32]) -> Member {
        let tp = |partition: &i32| Tp::new("t", *partition);
        Member {
            spec: wire::MemberSpec {
                session_timeout_ms: 800,
                rebalance_timeout_ms: 1_000,
                ..wire::MemberSpec::default()
            },
            owned: owned.iter().map(|partition| (tp(partition), 1)).collect(),
            target: target.iter().map(tp).collect(),
            ..Member::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_release_counts_for_the_time_it_was_asked_for() {
        let topics = Topics::default();
        let mut group = Group::default();
        let keeps = member(&[0, 1], &[0, 1]);
        let mut session = Session::new(&keeps, None, clock::now());
        let mut tell = |session: &mut Session, generation, member: &Member| {
            group.generation = generation;
            session.tell(&group, member, &topics, clock::now());
        };
        let one = || vec![Tp::new("t", 1), Tp::new("t", 0)];
        tell(&mut session, 1, &keeps);
        assert_eq!(session.told_to_revoke(one(), 0), []);
        let revoked = member(&[0, 1], &[0]);
        tell(&mut session, 2, &revoked);
        assert_eq!(session.told_to_revoke(one(), 2), [Tp::new("t", 1)]);
        // It is the member's again, and then is not: a release from the first time is none.
        tell(&mut session, 3, &keeps);
        tell(&mut session, 4, &revoked);
        assert_eq!(session.told_to_revoke(one(), 2), []);
        assert_eq!(session.told_to_revoke(one(), 4), [Tp::new("t", 1)]);
        assert_eq!(session.told_to_revoke(one(), 0), [Tp::new("t", 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_partition_has_its_own_time() {
        let (topics, group) = (Topics::default(), Group::default());
        let now = clock::now;
        let mut session = Session::new(&member(&[], &[]), None, now());
        session.tell(&group, &member(&[0, 1], &[1]), &topics, now());
        clock::sleep(Duration::from_millis(600)).await;
        session.tell(&group, &member(&[0, 1], &[]), &topics, now());
        assert_eq!(session.overdue(now()), []);
        clock::sleep(Duration::from_millis(500)).await;
        assert_eq!(session.overdue(now()), [Tp::new("t", 0)]);
        assert_eq!(session.overdue(now()), [], "it is asked for again later");
        clock::sleep(Duration::from_millis(500)).await;
        assert_eq!(session.overdue(now()), [Tp::new("t", 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_is_given_the_time_that_its_last_coordinator_gave_it() {
        const BEFORE: Duration = Duration::from_millis(1_500);
        let (topics, group) = (Topics::default(), Group::default());
        let (now, mut patient) = (clock::now, member(&[0], &[]));
        patient.spec.session_timeout_ms = 3_000;
        let mut session = Session::new(&patient, None, now() + BEFORE);
        session.tell(&group, &patient, &topics, now());
        clock::sleep(Duration::from_millis(4_400)).await;
        assert!(!session.is_over(now()));
        assert_eq!(
            session.overdue(now()),
            [],
            "not after the rebalance timeout"
        );
        clock::sleep(Duration::from_millis(100)).await;
        assert!(session.is_over(now()));
        assert_eq!(session.overdue(now()), [Tp::new("t", 0)]);
    }
}
