//! Makes the members of a partition's group agree with the image: on the node that leads it, one
//! partition at a time, in steps that each look at what is there.
//!
//! ```text
//! the image may be older than this term -> ask the controller how far the image has to be
//! members lack a replica of the goal    -> add it as a learner (when it is this move's turn)
//! a member is in the way                -> remove it, if it does not vote
//! a replica of the goal has not caught up, or the goal would have fewer in sync than now -> wait
//! this leader is not part of the goal   -> hand over to a voter that is; without one, first let the
//!                                          goal vote beside this leader
//! the voters are not those of the goal  -> joint change
//! members are those of the goal         -> once a majority confirms that this replica leads, tell the
//!                                          metadata group that the move is finished
//! ```
//!
//! Every step may be the last before a crash: whoever leads next goes on from what it finds.
//!
//! Once a move is finished, the logs of the end that was given up are removed, so no leader may then still
//! make members of them. One of an earlier term cannot, as whoever finished had asked a majority after it had
//! heard of this move; one of a later term does nothing by an image from before it was elected.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use seriatim_consensus::{Group, GroupStatus, Member, Role};
use seriatim_proto::{
    ids::{GroupId, ReplicaId},
    internal::v1 as wire,
};
use seriatim_runtime::{
    clock::{self, Instant},
    hit,
    mutant::{self, Mutant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::meta_command::Command;

use crate::{
    cluster::Inner,
    control,
    image::{PartitionInfo, Replica},
};

/// Moves that one node drives at once, as the leader of their partitions; more wait.
const AT_ONCE: usize = 8;

/// Pause between two looks at a move.
const LOOK: Duration = Duration::from_millis(100);

/// A replica has caught up when it holds all that was in the leader's log so long ago.
const CAUGHT_UP: Duration = Duration::from_millis(300);

/// A move whose new replicas do not answer gives its turn to another for so long.
const STAND_BACK: Duration = Duration::from_secs(2);

/// How long the metadata group may take to answer, and a majority to confirm a leader, before they are
/// asked again.
const ANSWER: Duration = Duration::from_secs(10);

/// Moves of partitions that this node leads.
#[derive(Debug)]
pub(crate) struct Moves {
    turns: Arc<Semaphore>,
    stages: Mutex<BTreeMap<GroupId, Stage>>,
}

/// How far a move is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Waits for its turn.
    Queued,
    /// New replicas receive the log.
    Copying,
    /// Cannot go on for now.
    Waiting(&'static str),
    /// The members change.
    Switching,
}

impl Stage {
    /// For a person.
    pub const fn text(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Copying => "copying",
            Self::Waiting(why) => why,
            Self::Switching => "switching",
        }
    }
}

impl Default for Moves {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            stages: Mutex::default(),
        }
    }
}

impl Moves {
    /// How far the move of a partition is that this node leads.
    pub(crate) fn stage(&self, group: GroupId) -> Option<Stage> {
        self.stages.lock().get(&group).cloned()
    }
}

/// What the image wants of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Goal {
    /// The replicas that there shall be.
    pub(crate) replicas: Vec<Replica>,
    /// The metadata group waits to hear that the members are these.
    pub(crate) moving: bool,
    /// Which move this is: the count of them in the image. An image that comes late may show the next one
    /// in place of this: it may have the same replicas, and is to be finished all the same.
    moves: u64,
}

impl Goal {
    pub(crate) fn of(partition: &PartitionInfo) -> Self {
        Self {
            replicas: partition.goal().to_vec(),
            moving: partition.is_moving(),
            moves: partition.moves,
        }
    }
}

/// Changes the members of a group that this node leads until they are those of the goal, and says
/// so. Ends only then; dropped where the goal changes or leadership ends.
pub(crate) async fn settle(inner: Arc<Inner>, group: Group, goal: Goal) {
    let mut mover = Mover {
        ids: goal.replicas.iter().map(|replica| replica.id).collect(),
        key: group.key().group,
        inner,
        group,
        goal,
        fresh_in: None,
        lasts: VecDeque::new(),
        turn: None,
    };
    loop {
        let pause = match mover.step().await {
            Step::Done => return,
            Step::Look => LOOK,
            Step::StandBack => {
                mover.turn = None;
                STAND_BACK
            }
        };
        clock::sleep(pause).await;
    }
}

enum Step {
    Done,
    Look,
    StandBack,
}

struct Mover {
    inner: Arc<Inner>,
    group: Group,
    key: GroupId,
    goal: Goal,
    ids: BTreeSet<ReplicaId>,
    /// A term that had begun when the image still had this goal.
    fresh_in: Option<u64>,
    /// The last entry of the log at earlier looks, the oldest first.
    lasts: VecDeque<(Instant, u64)>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Drop for Mover {
    fn drop(&mut self) {
        let _ = self.inner.moves.stages.lock().remove(&self.key);
    }
}

impl Mover {
    fn stage(&self, stage: Stage) -> Step {
        let _ = self.inner.moves.stages.lock().insert(self.key, stage);
        Step::Look
    }

    /// Entries that everybody who has caught up holds.
    fn enough(&mut self, last_index: u64) -> Option<u64> {
        let now = clock::now();
        self.lasts.push_back((now, last_index));
        let old = |at: Instant| now.saturating_duration_since(at) >= CAUGHT_UP;
        while self.lasts.get(1).is_some_and(|(at, _)| old(*at)) {
            let _ = self.lasts.pop_front();
        }
        let first = self.lasts.front().filter(|(at, _)| old(*at));
        first.map(|(_, last)| *last)
    }

    async fn step(&mut self) -> Step {
        let status = self.group.status();
        if status.state.role != Role::Leader {
            return Step::Look;
        }
        let members: BTreeSet<ReplicaId> = status.membership.iter().map(|m| m.replica).collect();
        let voters = voters(&status);
        let is_there = !status.joint && voters == self.ids && members == self.ids;
        if is_there && !self.goal.moving {
            return Step::Done;
        }
        if self.fresh_in != Some(status.state.term) {
            return self.refresh(status.state.term).await;
        }
        // Members with ids that this node's image has not heard of: it is older than they are. The
        // controller is of older software, which does not tell how far the image has to be.
        let next = self.inner.machine.image().next_replica;
        let newest = status.membership.iter().map(|member| member.replica.0);
        if newest.max().is_some_and(|newest| newest >= next) {
            return Step::Look;
        }
        if is_there {
            return self.finish(&status).await;
        }
        if let Some(missing) = self.missing(&members) {
            return self.add(missing).await;
        }
        if mutant::on(Mutant::MoveFinishedEarly) && self.goal.moving {
            return self.finish(&status).await;
        }
        let in_the_way = members
            .difference(&self.ids)
            .find(|id| !voters.contains(id));
        if let Some(&stale) = in_the_way {
            hit!("cluster.move.member-removed");
            let removed = self.group.remove(stale).await;
            self.log("removing a member", removed);
            return self.stage(Stage::Switching);
        }
        let Some(enough) = self.enough(status.last_index) else {
            return self.stage(Stage::Copying);
        };
        let in_sync = |member: &&Member| {
            member.answers && member.matched.unwrap_or_default() >= enough
                || member.replica == self.group.key().replica
        };
        let in_sync: BTreeSet<ReplicaId> = status
            .membership
            .iter()
            .filter(in_sync)
            .map(|member| member.replica)
            .collect();
        self.switch(&status, &voters, &in_sync).await
    }

    /// Has the image caught up with the controller, now that this replica leads in `term`: an earlier
    /// leader may have finished what this node still takes for the goal.
    async fn refresh(&mut self, term: u64) -> Step {
        if !control::catch_up(&self.inner, clock::now() + ANSWER).await {
            let _ = self.stage(Stage::Waiting("the controller does not answer"));
            return Step::StandBack;
        }
        let image = self.inner.machine.image();
        let mut partitions = image.partitions();
        let now = partitions.find(|(_, _, partition)| partition.group == self.key);
        if now.is_some_and(|(_, _, partition)| Goal::of(partition) == self.goal) {
            self.fresh_in = Some(term);
        } else {
            // What is settled here ends as soon as the replica hears of that, too.
            hit!("cluster.move.outdated");
        }
        Step::Look
    }

    fn missing(&self, members: &BTreeSet<ReplicaId>) -> Option<Replica> {
        let mut goal = self.goal.replicas.iter();
        goal.find(|replica| !members.contains(&replica.id)).copied()
    }

    async fn add(&mut self, missing: Replica) -> Step {
        if self.turn.is_none() {
            let _ = self.stage(Stage::Queued);
            let turn = Arc::clone(&self.inner.moves.turns).acquire_owned();
            self.turn = turn.await.ok();
        }
        tracing::info!(
            group = self.group.name(),
            replica = %missing.id,
            node = %missing.node,
            "adding a replica to a partition: it receives the log first"
        );
        hit!("cluster.move.member-added");
        let added = self.group.add_learner(missing.id, missing.node).await;
        let refused = added.is_err();
        self.log("adding a replica", added);
        self.lasts.clear();
        if refused {
            // No majority, for instance: others had better have the turn.
            let _ = self.stage(Stage::Waiting(
                "the members cannot be changed at the moment",
            ));
            return Step::StandBack;
        }
        self.stage(Stage::Copying)
    }

    /// Every replica of the goal is a member: change who votes, if none is the worse for it.
    async fn switch(
        &mut self,
        status: &GroupStatus,
        voters: &BTreeSet<ReplicaId>,
        in_sync: &BTreeSet<ReplicaId>,
    ) -> Step {
        let new: BTreeSet<ReplicaId> = self.ids.difference(voters).copied().collect();
        if let Some(behind) = new.difference(in_sync).next() {
            let silent = status.membership.iter().find(|m| m.replica == *behind);
            if silent.is_some_and(|member| !member.answers) {
                hit!("cluster.move.silent");
                let _ = self.stage(Stage::Waiting("a new replica's node does not answer"));
                return Step::StandBack;
            }
            return self.stage(Stage::Copying);
        }
        let now = voters.intersection(in_sync).count().min(self.ids.len());
        let then = self.ids.intersection(in_sync).count();
        if then < now || 2 * then <= self.ids.len() {
            hit!("cluster.move.held-back");
            return self.stage(Stage::Waiting("fewer replicas would be in sync than now"));
        }
        let _ = self.stage(Stage::Switching);
        let me = self.group.key().replica;
        let mut next = self.ids.clone();
        if !next.contains(&me) {
            if let Some(heir) = self.heir(status) {
                hit!("cluster.move.handed-over");
                let handed = self.group.hand_over(heir).await;
                self.log("handing a partition over that leaves this node", handed);
                return Step::Look;
            }
            // Nobody of the goal can lead yet.
            let _ = next.insert(me);
        }
        if &next == voters && !status.joint {
            return Step::Look;
        }
        tracing::info!(group = self.group.name(), voters = ?next, "changing the voters of a partition");
        hit!("cluster.move.voters-changed");
        let change = self.group.change_voters(next, status.membership_id, false);
        let changed = change.await;
        self.log("changing the voters of a partition", changed);
        Step::Look
    }

    /// The replica of the goal that leads next: the preferred one, if it can.
    fn heir(&self, status: &GroupStatus) -> Option<ReplicaId> {
        let stopping = self.inner.gossip.stopping();
        let can = |id: &ReplicaId| {
            let mut members = status.membership.iter();
            members.any(|m| m.replica == *id && status.can_lead(m) && !stopping.contains(&m.node))
        };
        self.goal.replicas.iter().map(|r| r.id).find(can)
    }

    /// The members are those of the goal: once that is committed, and nobody else can lead with others,
    /// the metadata group may know.
    async fn finish(&mut self, status: &GroupStatus) -> Step {
        self.turn = None;
        let _ = self.stage(Stage::Switching);
        let applied = status.applied.map(|id| id.index);
        if status.membership_id.map(|id| id.index) > applied {
            return Step::Look;
        }
        let confirmed = clock::timeout(ANSWER, self.group.read_barrier()).await;
        if !matches!(confirmed, Ok(Ok(()))) {
            hit!("cluster.move.unconfirmed");
            return Step::Look;
        }
        if self.group.status().membership_id != status.membership_id {
            return Step::Look;
        }
        let finish = wire::FinishMove {
            group_id: self.key.0,
            replica_ids: self.ids.iter().map(|id| id.0).collect(),
            moves: self.goal.moves,
        };
        let deadline = clock::now() + ANSWER;
        match control::command(&self.inner, Command::FinishMove(finish), deadline).await {
            // The image says what is next.
            Ok(_) => std::future::pending().await,
            Err(error) => {
                tracing::debug!(group = self.group.name(), %error, "finishing a move");
                Step::StandBack
            }
        }
    }

    fn log<E: std::fmt::Display>(&self, what: &'static str, done: Result<(), E>) {
        if let Err(error) = done {
            tracing::warn!(group = self.group.name(), %error, "{what}");
        }
    }
}

fn voters(status: &GroupStatus) -> BTreeSet<ReplicaId> {
    let voters = status.membership.iter().filter(|member| member.voter);
    voters.map(|member| member.replica).collect()
}
