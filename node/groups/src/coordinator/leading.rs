//! What a coordinator keeps while it leads, and the order of its work.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use seriatim_cluster::{Cluster, Image};
use seriatim_consensus::Group;
use seriatim_proto::{internal::v1 as wire, v1};
use seriatim_runtime::{
    clock::{self, Instant},
    hit,
};
use wire::group_command::Command;

use super::{
    Coordinator, Event,
    link::{Lease, Link},
    session::Session,
};
use crate::{
    command::GroupCommand,
    errors,
    groups::Inner,
    machine::ShardMachine,
    propose::{Failure, propose},
    topics::Topics,
};

/// How long a confirmation by the majority lets this node answer heartbeats.
pub(super) const LEASE: Duration = Duration::from_millis(1_500);

/// How often it asks for one.
const CONFIRM: Duration = Duration::from_millis(500);

/// How often sessions are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A command that was decided about, or not.
pub(super) struct Finished {
    pub(super) group: String,
    pub(super) what: What,
    pub(super) result: Result<(), Failure>,
    /// When it was proposed.
    pub(super) proposed: Instant,
}

/// What was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// What stands in [`Active::proposed`].
    Members,
    Other,
}

/// What happens next.
pub(super) enum Next {
    Finished(Finished),
    /// When a majority was asked that has confirmed that this node leads; `None`: it did not.
    Confirmed(Option<Instant>),
    Due,
}

/// Somebody who wants to be a member, or another kind of member.
#[derive(Debug)]
pub(super) struct Joiner {
    pub(super) spec: wire::MemberSpec,
    pub(super) link: Arc<Link>,
}

/// Members that come and go.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) joins: Vec<Joiner>,
    pub(super) leaves: BTreeSet<String>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.joins.is_empty() && self.leaves.is_empty()
    }
}

/// A group with members, or with some to come.
#[derive(Debug, Default)]
pub(super) struct Active {
    /// Of every member.
    pub(super) sessions: BTreeMap<String, Session>,
    /// To be proposed.
    pub(super) changes: Changes,
    /// When they are; invariant: as in `Leading::due`.
    pub(super) due: Option<Instant>,
    /// What is being decided about. Invariant: one change at a time.
    pub(super) proposed: Option<Changes>,
    /// What came in meanwhile.
    pub(super) held: Vec<Event>,
}

impl Active {
    pub(super) fn is_idle(&self) -> bool {
        self.sessions.is_empty()
            && self.changes.is_empty()
            && self.held.is_empty()
            && self.proposed.is_none()
    }
}

/// The work of a coordinator in one term.
pub(super) struct Leading {
    pub(super) shard: u32,
    pub(super) machine: Arc<ShardMachine>,
    pub(super) inner: Arc<Inner>,
    pub(super) topics: Arc<Topics>,
    pub(super) cluster: Cluster,
    pub(super) active: BTreeMap<String, Active>,
    /// Groups whose changes are to be proposed, by time.
    pub(super) due: BTreeSet<(Instant, String)>,
    pub(super) lease: Arc<Lease>,
    /// When groups without members were last looked at.
    pub(super) swept: Instant,
    group: Group,
    term: u64,
    proposals: FuturesUnordered<BoxFuture<'static, Finished>>,
    confirming: Option<BoxFuture<'static, Option<Instant>>>,
    confirmed: Instant,
    looked: Instant,
}

impl Leading {
    pub(super) fn new(of: &Coordinator, term: u64, cluster: &Cluster) -> Self {
        let now = clock::now();
        let topics = of.inner.topics(&cluster.image());
        let mut leading = Self {
            shard: of.shard,
            machine: Arc::clone(&of.machine),
            inner: Arc::clone(&of.inner),
            topics,
            cluster: cluster.clone(),
            active: BTreeMap::new(),
            due: BTreeSet::new(),
            lease: Lease::until(now + LEASE),
            swept: now,
            group: of.group.clone(),
            term,
            proposals: FuturesUnordered::new(),
            confirming: None,
            confirmed: now,
            looked: now,
        };
        hit!("groups.coordinator.moved");
        // Every member has a full session timeout to find the new coordinator, from when the last one
        // certainly answers no more heartbeats: by those, a member goes on for as long as that.
        of.machine.for_each(|id, group| {
            if !group.members.is_empty() {
                // Until then the predecessor may answer: its clock may be slower, by a fifth.
                let alone = now + LEASE * 5 / 4;
                let sessions = group.members.iter();
                let sessions = sessions
                    .map(|(id, member)| (id.clone(), Session::new(member, None, alone)))
                    .collect();
                let active = Active {
                    sessions,
                    ..Active::default()
                };
                let _none = leading.active.insert(id.to_owned(), active);
            }
        });
        let groups: Vec<String> = leading.active.keys().cloned().collect();
        for group in groups {
            // Topics may have changed since its targets were made.
            leading.schedule(&group, now);
            leading.tell(&group);
        }
        leading.forget_deleted_topics();
        leading
    }

    /// Proposes a command on a group.
    pub(super) fn propose(&mut self, id: &str, command: Command, what: What) {
        let (group, term, proposed) = (self.group.clone(), self.term, clock::now());
        let id = id.to_owned();
        let command = GroupCommand {
            group: id.clone(),
            now_ms: clock::wall_ms(),
            command,
        };
        let bytes = command.encode();
        self.proposals.push(
            async move {
                Finished {
                    group: id,
                    what,
                    result: propose(&group, term, bytes).await,
                    proposed,
                }
            }
            .boxed(),
        );
    }

    /// How many proposals are under way.
    pub(super) fn under_way(&self) -> usize {
        self.proposals.len()
    }

    /// What happens next, or is due.
    pub(super) async fn next(&mut self) -> Next {
        let look = self.looked + LOOK;
        let due = self.due.first().map_or(look, |(due, _)| look.min(*due));
        tokio::select! {
            biased;
            Some(finished) = self.proposals.next() => Next::Finished(finished),
            Some(confirmed) = OptionFuture::from(self.confirming.as_mut()) => {
                Next::Confirmed(confirmed)
            }
            () = clock::sleep_until(due) => Next::Due,
        }
    }

    pub(super) fn step(&mut self, next: Next) {
        match next {
            Next::Finished(finished) => self.finished(finished),
            Next::Confirmed(asked) => {
                self.confirming = None;
                if let Some(asked) = asked {
                    self.extend_lease(asked);
                }
            }
            Next::Due => self.work(),
        }
    }

    pub(super) fn raft(&self) -> &Group {
        &self.group
    }

    /// Takes note that this node led at that time.
    pub(super) fn extend_lease(&mut self, led: Instant) {
        self.lease.extend(led + LEASE);
    }

    pub(super) fn schedule(&mut self, id: &str, due: Instant) {
        let active = self.active.entry(id.to_owned()).or_default();
        if active.due.is_some_and(|earlier| earlier <= due) {
            return;
        }
        if let Some(later) = active.due.replace(due) {
            let _was_there = self.due.remove(&(later, id.to_owned()));
        }
        let _new = self.due.insert((due, id.to_owned()));
    }

    /// Does what is due.
    fn work(&mut self) {
        let now = clock::now();
        while self.due.first().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, id)) = self.due.pop_first() {
                if let Some(active) = self.active.get_mut(&id) {
                    active.due = None;
                }
                self.update_members(&id);
            }
        }
        if now < self.looked + LOOK {
            return;
        }
        self.looked = now;
        if self.confirming.is_none() && now >= self.confirmed + CONFIRM {
            self.confirmed = now;
            let group = self.group.clone();
            let confirm = async move {
                let barrier = clock::timeout(LEASE, group.read_barrier()).await;
                matches!(barrier, Ok(Ok(()))).then_some(now)
            };
            self.confirming = Some(confirm.boxed());
        }
        if !self.lease.is_valid() {
            self.end_links(&errors::not_coordinator(&self.cluster, self.shard));
        }
        self.look_at_sessions(now);
        self.sweep(now);
    }

    /// Follows topics that come, go and grow.
    pub(super) fn follow_image(&mut self, image: &Arc<Image>) {
        let topics = self.inner.topics(image);
        let before = std::mem::replace(&mut self.topics, topics);
        if !self.topics.differs(&before) {
            return;
        }
        let now = clock::now();
        let groups: Vec<String> = self.active.keys().cloned().collect();
        for id in groups {
            let concerned = self.machine.group(&id).is_some_and(|group| {
                let mut members = group.members.values();
                members.any(|member| {
                    let mut topics = member.spec.topics.iter();
                    topics.any(|topic| {
                        let topic = topic.as_str();
                        self.topics.partitions.get(topic) != before.partitions.get(topic)
                    })
                })
            });
            if concerned {
                self.schedule(&id, now);
            }
        }
        self.forget_deleted_topics();
    }

    /// Ends every stream, and lets the sessions go on.
    fn end_links(&self, error: &v1::Error) {
        for session in self
            .active
            .values()
            .flat_map(|active| active.sessions.values())
        {
            if let Some(link) = &session.link {
                link.end(Some(error.clone()));
            }
        }
    }

    /// Ends every stream for good.
    pub(super) fn end(self, error: &v1::Error) {
        self.end_links(error);
        for active in self.active.into_values() {
            let proposed = active.proposed.unwrap_or_default().joins;
            for joiner in active.changes.joins.into_iter().chain(proposed) {
                joiner.link.end(Some(error.clone()));
            }
            for event in active.held {
                event.refuse(error.clone());
            }
        }
    }
}
