//! A member's session, on the coordinator only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use seriatim_proto::v1;
use seriatim_runtime::clock::Instant;
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
    /// When its time began, where no stream of it was heard since.
    since: Instant,
    timeout: Duration,
    rebalance: Duration,
    /// It said that it leaves.
    pub(super) leaving: bool,
    /// Its time ran out.
    pub(super) expired: bool,
    /// What it is to let go of, and until when.
    revoking: BTreeMap<Tp, Instant>,
    /// What it was last told, without the committed offsets, which are told along and are no news
    /// by themselves.
    told: Option<v1::Assignment>,
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
        !self.expired && !self.leaving && self.silent_for(now) >= self.timeout
    }

    /// Of these, what it was told to let go of.
    pub(super) fn told_to_revoke(&self, tps: impl Iterator<Item = Tp>) -> Vec<Tp> {
        let mut told: Vec<Tp> = tps.filter(|tp| self.revoking.contains_key(tp)).collect();
        told.sort_unstable();
        told.dedup();
        told
    }

    /// What it did not let go of in time. It gets another try after as much time, in case the first
    /// is lost.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Tp> {
        let mut overdue = Vec::new();
        for (tp, until) in &mut self.revoking {
            if *until <= now {
                *until = now + self.rebalance;
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
                let _new = self.revoking.insert(tp.clone(), now + self.rebalance);
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
