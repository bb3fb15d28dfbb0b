//! Members that come, go, change and let go of partitions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prost::Message as _;
use seriatim_consensus::ProposeError;
use seriatim_proto::{error::ErrorCode, internal::v1 as wire, v1};
use seriatim_runtime::{
    clock::{self, Instant},
    hit, task,
};
use wire::group_command::Command;

use super::{
    Event,
    leading::{Active, Changes, Finished, Joiner, LEASE, Leading, What},
    link::Link,
    plan,
    session::Session,
};
use crate::{
    command::Refusal,
    commit::barrier,
    errors,
    limits::{MAX_JOINS_BYTES, MAX_UPDATE_BYTES},
    propose::Failure,
    records::by_topic,
    state::{Group, Tp},
};

/// How long the first member of a group waits for others, so that a program that starts with many
/// members gets one generation and not one for each.
const FIRST: Duration = Duration::from_millis(100);

/// How long changes of members are gathered otherwise.
const GATHER: Duration = Duration::from_millis(5);

/// Pause before a change is proposed again that met no majority.
const AGAIN: Duration = Duration::from_millis(200);

/// Events of one group that wait for a change of its members to be decided about.
const HELD: usize = 20_000;

impl Leading {
    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::Silences { group, reply } => {
                // Who asked may have gone.
                let _gone = reply.send(self.silences(&group)).is_err();
            }
            Event::Join { join, link } => self.join(join, link),
            Event::Released {
                link,
                partitions,
                generation,
            } => {
                self.release(&link, partitions, generation);
            }
            Event::Leave { link } => self.leave(&link),
        }
    }

    fn silences(&self, group: &str) -> BTreeMap<String, Duration> {
        let now = clock::now();
        let sessions = self.active.get(group).into_iter();
        let sessions = sessions.flat_map(|active| &active.sessions);
        sessions
            .map(|(id, session)| (id.clone(), session.silent_for(now)))
            .collect()
    }

    fn join(&mut self, join: v1::JoinGroup, link: Arc<Link>) {
        if link.has_ended() {
            return;
        }
        if !self.lease.is_valid() {
            link.end(Some(errors::no_leader(&self.cluster, self.shard)));
            return;
        }
        let id = join.group.clone();
        let active = self.active.entry(id.clone()).or_default();
        if active.proposed.is_some() {
            if active.held.len() < HELD {
                active.held.push(Event::Join { join, link });
            } else {
                link.end(Some(errors::overloaded()));
            }
            return;
        }
        let group = self.machine.group(&id).unwrap_or_default();
        if group.members.contains_key(&join.member_id) {
            self.come_back(&group, join, link);
        } else {
            self.arrive(&group, join, link);
        }
    }

    /// A member that is known.
    fn come_back(&mut self, group: &Group, join: v1::JoinGroup, link: Arc<Link>) {
        let Some(member) = group.members.get(&join.member_id) else {
            return;
        };
        if member.spec.instance_id != join.instance_id {
            let text = "a member keeps its instance id for as long as it keeps its member id";
            link.end(Some(v1::Error::new(ErrorCode::InvalidRequest, text)));
            return;
        }
        let id = join.group.clone();
        let now = clock::now();
        let active = self.active.entry(id.clone()).or_default();
        // Its time was about to run out.
        let _late = active.changes.leaves.remove(&join.member_id);
        let session = active.sessions.entry(join.member_id.clone());
        let session = session.or_insert_with(|| Session::new(member, None, now));
        if !session.is(&link) {
            if let Some(before) = session.attach(Arc::clone(&link)) {
                before.end(Some(another_stream()));
            }
            link.admit(&self.lease);
            session.tell(group, member, &self.topics, now);
        }
        let spec = spec(join);
        if spec != member.spec {
            active.changes.joins.push(Joiner { spec, link });
            self.schedule(&id, now + GATHER);
        }
    }

    /// Somebody new.
    fn arrive(&mut self, group: &Group, join: v1::JoinGroup, link: Arc<Link>) {
        let id = join.group.clone();
        if group.is_fenced(&join.member_id) {
            link.end(Some(Refusal::MemberFenced.to_error(&id)));
            self.tidy(&id);
            return;
        }
        if join.rejoin {
            self.refuse_unknown(link);
            self.tidy(&id);
            return;
        }
        let joins = &mut self.active.entry(id.clone()).or_default().changes.joins;
        if let Some(at) = joins
            .iter()
            .position(|j| j.spec.member_id == join.member_id)
        {
            let before = joins.remove(at);
            if !Arc::ptr_eq(&before.link, &link) {
                before.link.end(Some(another_stream()));
            }
        }
        let first = group.members.is_empty();
        joins.push(Joiner {
            spec: spec(join),
            link,
        });
        self.schedule(&id, clock::now() + if first { FIRST } else { GATHER });
    }

    /// Tells a member that its group does not know it, once a majority has confirmed that this node leads:
    /// the member gives up for good what it holds, and a successor of this node may know it (simulator seed
    /// 5843).
    fn refuse_unknown(&self, link: Arc<Link>) {
        let (group, cluster, shard) = (self.raft().clone(), self.cluster.clone(), self.shard);
        drop(task::spawn("refuse-member", async move {
            let confirmed = barrier((shard, &group), &cluster, clock::now() + LEASE).await;
            let unknown = || Refusal::UnknownMember.to_error(&link.group);
            link.end(Some(confirmed.err().unwrap_or_else(unknown)));
        }));
    }

    fn release(&mut self, link: &Arc<Link>, partitions: Vec<Tp>, generation: u64) {
        let Some(session) = self.session(link) else {
            return;
        };
        let released = session.told_to_revoke(partitions, generation);
        link.hear();
        self.let_go(&link.group.clone(), &link.member_id.clone(), &released);
    }

    /// Proposes that a member lets go of partitions.
    pub(super) fn let_go(&mut self, group: &str, member: &str, partitions: &[Tp]) {
        if partitions.is_empty() {
            return;
        }
        let release = wire::ReleasePartitions {
            member_id: member.to_owned(),
            partitions: by_topic(partitions),
        };
        self.propose(group, Command::ReleasePartitions(release), What::Other);
    }

    fn leave(&mut self, link: &Arc<Link>) {
        if let Some(session) = self.session(link) {
            session.leaving = true;
            if let Some(active) = self.active.get_mut(&link.group) {
                let _new = active.changes.leaves.insert(link.member_id.clone());
            }
            self.schedule(&link.group.clone(), clock::now() + GATHER);
            return;
        }
        let Some(active) = self.active.get_mut(&link.group) else {
            return;
        };
        let is = |joiner: &Joiner| Arc::ptr_eq(&joiner.link, link);
        let proposed = active.proposed.as_ref();
        if proposed.is_some_and(|proposed| proposed.joins.iter().any(is)) {
            let link = Arc::clone(link);
            active.held.push(Event::Leave { link });
            return;
        }
        // It had not become a member yet.
        active.changes.joins.retain(|joiner| !is(joiner));
        link.end(None);
        self.tidy(&link.group.clone());
    }

    /// The session that this stream is of.
    fn session(&mut self, link: &Arc<Link>) -> Option<&mut Session> {
        let active = self.active.get_mut(&link.group)?;
        let session = active.sessions.get_mut(&link.member_id)?;
        session.is(link).then_some(session)
    }

    /// Proposes what members come, go and change, and what follows from that for their targets.
    pub(super) fn update_members(&mut self, id: &str) {
        let Some(active) = self.active.get_mut(id) else {
            return;
        };
        if active.proposed.is_some() {
            // Looked at again when that is decided.
            return;
        }
        active
            .changes
            .joins
            .retain(|joiner| !joiner.link.has_ended());
        // What does not fit waits for the next change.
        let mut bytes = 0;
        let joins = active.changes.joins.iter().position(|joiner| {
            bytes += joiner.spec.encoded_len();
            bytes > MAX_JOINS_BYTES
        });
        let later = joins.map(|at| active.changes.joins.split_off(at));
        let specs = active.changes.joins.iter();
        let specs = specs.map(|joiner| joiner.spec.clone()).collect();
        let leaves = active.changes.leaves.iter().cloned().collect();
        let group = self.machine.group(id).unwrap_or_default();
        match plan::update(&group, specs, leaves, &self.topics.partitions) {
            Ok(Some(update)) if update.encoded_len() > MAX_UPDATE_BYTES => {
                let text = "the group's members and partitions are too many for one command; \
                            subscribe to less, or use several groups";
                for joiner in active
                    .changes
                    .joins
                    .drain(..)
                    .chain(later.into_iter().flatten())
                {
                    let error = v1::Error::new(ErrorCode::InvalidRequest, text);
                    joiner.link.end(Some(error));
                }
                tracing::error!(group = id, "the group is too large to be changed");
                self.tidy(id);
            }
            Ok(Some(update)) => {
                active.proposed = Some(std::mem::take(&mut active.changes));
                active.changes.joins = later.unwrap_or_default();
                self.propose(id, Command::UpdateMembers(update), What::Members);
            }
            Ok(None) => {
                active.changes.leaves.clear();
                self.tidy(id);
            }
            Err(refusal) => {
                for joiner in active
                    .changes
                    .joins
                    .drain(..)
                    .chain(later.into_iter().flatten())
                {
                    joiner.link.end(Some(refusal.to_error(id)));
                }
                if !active.changes.leaves.is_empty() {
                    self.schedule(id, clock::now());
                }
                self.tidy(id);
            }
        }
    }

    pub(super) fn finished(&mut self, finished: Finished) {
        let Finished {
            group: id,
            what,
            result,
            proposed,
        } = finished;
        if result.is_ok() {
            self.extend_lease(proposed);
        }
        if what == What::Other {
            if let Err(failure) = result {
                tracing::debug!(group = id, ?failure, "not done");
            }
            return;
        }
        let Some(active) = self.active.get_mut(&id) else {
            return;
        };
        let changes = active.proposed.take().unwrap_or_default();
        let held = std::mem::take(&mut active.held);
        match result {
            Ok(()) => {
                self.inner.metrics.changes.increment(1);
                self.admit(&id, changes.joins);
            }
            Err(failure) => self.put_back(&id, changes, &failure),
        }
        for event in held {
            self.event(event);
        }
        let active = self.active.get(&id);
        if active.is_some_and(|active| !active.changes.is_empty() && active.due.is_none()) {
            self.schedule(&id, clock::now() + GATHER);
        }
        self.tidy(&id);
    }

    /// Those who joined are members now.
    fn admit(&mut self, id: &str, joins: Vec<Joiner>) {
        let group = self.machine.group(id).unwrap_or_default();
        let now = clock::now();
        let active = self.active.entry(id.to_owned()).or_default();
        for Joiner { spec, link } in joins {
            let Some(member) = group.members.get(&spec.member_id) else {
                // Another process with its instance id came in the same moment.
                link.end(Some(Refusal::MemberFenced.to_error(id)));
                continue;
            };
            let session = active.sessions.entry(spec.member_id);
            let session = session.or_insert_with(|| Session::new(member, None, now));
            if !session.is(&link) {
                let _none = session.attach(Arc::clone(&link));
                link.admit(&self.lease);
            }
        }
        self.tell(id);
    }

    /// What was not decided is proposed again, or refused to those who wait for it.
    fn put_back(&mut self, id: &str, changes: Changes, failure: &Failure) {
        let again = match failure {
            Failure::Refused(Refusal::Superseded) => {
                hit!("groups.update.superseded");
                GATHER
            }
            Failure::Proposal(ProposeError::LeaseExpired) => AGAIN,
            // The end of leadership follows, and with it the end of all streams.
            Failure::Proposal(ProposeError::NotLeader { .. } | ProposeError::Stopped(_)) => AGAIN,
            Failure::Refused(refusal) => {
                tracing::warn!(group = id, %refusal, "a change of members was refused");
                for joiner in changes.joins {
                    joiner.link.end(Some(refusal.to_error(id)));
                }
                return;
            }
        };
        let Some(active) = self.active.get_mut(id) else {
            return;
        };
        let later = std::mem::replace(&mut active.changes, changes);
        active.changes.joins.extend(later.joins);
        active.changes.leaves.extend(later.leaves);
        self.schedule(id, clock::now() + again);
    }

    /// Tells the members of groups whose members or partitions changed.
    pub(super) fn tell_changed(&mut self) {
        for id in self.machine.take_changed() {
            self.tell(&id);
        }
    }

    /// Tells the members of a group what is new to them, and those who are no members any more that
    /// they are not.
    pub(super) fn tell(&mut self, id: &str) {
        let Some(active) = self.active.get_mut(id) else {
            return;
        };
        let group = self.machine.group(id).unwrap_or_default();
        let now = clock::now();
        for (member_id, session) in &mut active.sessions {
            if let Some(member) = group.members.get(member_id) {
                session.tell(&group, member, &self.topics, now);
            }
        }
        active.sessions.retain(|member_id, session| {
            if group.members.contains_key(member_id) {
                return true;
            }
            if let Some(link) = &session.link {
                let why = if session.leaving {
                    None
                } else if group.is_fenced(member_id) {
                    Some(Refusal::MemberFenced.to_error(id))
                } else {
                    Some(Refusal::UnknownMember.to_error(id))
                };
                link.end(why);
            }
            false
        });
        self.tidy(id);
    }

    /// Forgets a group that nothing is to be done for.
    fn tidy(&mut self, id: &str) {
        if self.active.get(id).is_some_and(Active::is_idle)
            && let Some(active) = self.active.remove(id)
            && let Some(due) = active.due
        {
            let _was_there = self.due.remove(&(due, id.to_owned()));
        }
    }

    /// Sessions whose time ran out, and partitions that were not let go of in time.
    pub(super) fn look_at_sessions(&mut self, now: Instant) {
        let mut over = Vec::new();
        let mut overdue = Vec::new();
        for (id, active) in &mut self.active {
            for (member_id, session) in &mut active.sessions {
                if session.is_over(now) {
                    over.push((id.clone(), member_id.clone()));
                    continue;
                }
                let partitions = session.overdue(now);
                if !partitions.is_empty() {
                    overdue.push((id.clone(), member_id.clone(), partitions));
                }
            }
        }
        for (id, member_id) in over {
            self.expire(&id, &member_id, now);
        }
        for (id, member_id, partitions) in overdue {
            tracing::info!(
                group = id,
                member = member_id,
                partitions = partitions.len(),
                "taking partitions away that a member did not let go of in time"
            );
            self.let_go(&id, &member_id, &partitions);
        }
    }

    fn expire(&mut self, id: &str, member_id: &str, now: Instant) {
        let Some(active) = self.active.get_mut(id) else {
            return;
        };
        let Some(session) = active.sessions.get_mut(member_id) else {
            return;
        };
        hit!("groups.session.expired");
        tracing::info!(group = id, member = member_id, "a member's session ran out");
        session.expired = true;
        if let Some(link) = &session.link {
            // Whether it is a member no more is for the group to decide, and told when it joins again.
            link.end(Some(join_again(
                "the member was not heard of for its session timeout; join again",
            )));
        }
        let _new = active.changes.leaves.insert(member_id.to_owned());
        self.inner.metrics.expired.increment(1);
        self.schedule(id, now + GATHER);
    }
}

/// A member has one stream, the last that it asked for. Streams that it gave up may come late and look like
/// the last, so whoever still listens to the other one is to ask again.
fn another_stream() -> v1::Error {
    join_again("the member has opened another stream; join again if this is the one that counts")
}

fn join_again(text: &str) -> v1::Error {
    v1::Error {
        retryable: true,
        ..v1::Error::new(ErrorCode::InvalidRequest, text)
    }
}

/// What the group stores of who joins.
fn spec(join: v1::JoinGroup) -> wire::MemberSpec {
    wire::MemberSpec {
        member_id: join.member_id,
        instance_id: join.instance_id,
        client_id: join.client_id,
        client_host: join.client_host,
        topics: join.topics,
        strategy: join.strategy,
        session_timeout_ms: join.session_timeout_ms,
        rebalance_timeout_ms: join.rebalance_timeout_ms,
    }
}
