//! The handle of one group on this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll},
    time::Duration,
};

use futures::ready;
use openraft::{
    Instant as _, ReadPolicy, ServerState,
    async_runtime::watch::WatchReceiver as _,
    errors::{ClientWriteError, ForwardReason, ForwardToLeader, InitializeError, RaftError},
    raft::{ClientWriteResult, Precondition},
    type_config::TypeConfigExt as _,
};
use parking_lot::Mutex;
use seriatim_proto::ids::{NodeId, ReplicaId};
use seriatim_runtime::{
    clock::{self, Instant},
    hit, task,
};
use seriatim_storage::{Log, LogId, LogKey};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    Applied, ConsensusError, GroupState, GroupStatus, Member, Proposal, ProposeError, Role,
    pace::Pace,
    raft::{Data, Peer, Raft, Types, from_raft, to_raft},
    refusals::{Refusals, Responder},
};

/// Elections of a node's groups that are under way at once. More would wait for each other's votes
/// for longer than candidates are patient, and be begun anew before they can be won.
pub(crate) const ELECTIONS: usize = 64;

/// How long an election may keep others waiting.
const ELECTION: Duration = Duration::from_millis(500);

/// A member that has not answered for so many heartbeats is not counted on.
const SILENCE: u32 = 4;

/// One group on this node. Cloning is cheap.
#[derive(Clone)]
pub struct Group(Arc<Inner>);

struct Inner {
    key: LogKey,
    name: String,
    raft: Raft,
    log: Log,
    refusals: Refusals,
    state: watch::Receiver<GroupState>,
    applied: Arc<Mutex<Option<LogId>>>,
    /// The node's turns to hold elections.
    elections: Arc<Semaphore>,
    pace: Pace,
    compact_after_bytes: Option<u64>,
    /// When a leader was last heard of, or this replica last asked for votes.
    heard: Mutex<Instant>,
    /// The term in which leadership is being handed over; 0 for none.
    handing_over: AtomicU64,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("key", &self.0.key)
            .finish_non_exhaustive()
    }
}

impl Group {
    pub(crate) fn new(
        (key, name): (LogKey, String),
        raft: Raft,
        (log, applied, refusals): (Log, Arc<Mutex<Option<LogId>>>, Refusals),
        state: watch::Receiver<GroupState>,
        (pace, compact_after_bytes): (Pace, Option<u64>),
        elections: Arc<Semaphore>,
    ) -> Self {
        Self(Arc::new(Inner {
            key,
            name,
            raft,
            log,
            refusals,
            state,
            applied,
            elections,
            pace,
            compact_after_bytes,
            heard: Mutex::new(clock::now()),
            handing_over: AtomicU64::new(0),
        }))
    }

    /// The group and this node's replica.
    pub fn key(&self) -> LogKey {
        self.0.key
    }

    /// For log lines.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The group's log on this node.
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.0.raft
    }

    /// Bytes of log after which the group is compacted, if it is.
    pub(crate) fn compact_after_bytes(&self) -> Option<u64> {
        self.0.compact_after_bytes
    }

    /// Sends no follower entries up to `upto` any more: who lacks them gets the boundary.
    pub(crate) fn withhold(&self, upto: u64) {
        self.0.pace.withheld.withhold(upto);
    }

    pub(crate) fn heard_from_leader(&self) {
        *self.0.heard.lock() = clock::now();
    }

    pub(crate) fn heard(&self) -> Instant {
        *self.0.heard.lock()
    }

    /// Gives an empty group its first members; does nothing if it has members already. Every
    /// first member may call this with the same members.
    pub async fn initialize(
        &self,
        members: BTreeMap<ReplicaId, NodeId>,
    ) -> Result<(), ConsensusError> {
        let members: BTreeMap<u64, Peer> = members
            .into_iter()
            .map(|(replica, node)| (replica.0, Peer { node }))
            .collect();
        // It asks for votes as well.
        let _turn = self.0.elections.acquire().await;
        // openraft's futures are boxed here, so that callers' own stay small.
        match Box::pin(self.0.raft.initialize(members)).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(ConsensusError::Refused(error.to_string())),
            Err(RaftError::Fatal(fatal)) => Err(ConsensusError::Stopped(fatal.to_string())),
        }
    }

    /// Whether the group has members: the log or a boundary names some. Unlike
    /// [`status`](Self::status), which follows the engine's metrics, true from the moment of opening.
    pub async fn is_initialized(&self) -> Result<bool, ConsensusError> {
        let asked = Box::pin(self.0.raft.is_initialized()).await;
        asked.map_err(|fatal| ConsensusError::Stopped(fatal.to_string()))
    }

    /// Enqueues a proposal for the leader of `term`; proposals keep the order in which these calls
    /// return. The result arrives when the entry is applied.
    pub async fn submit(&self, proposal: Proposal, term: u64) -> Result<Pending, ProposeError> {
        let data = match proposal {
            Proposal::Batch { batch, after } => Data::Batch { batch, after },
            Proposal::Command(bytes) => Data::Command(bytes),
        };
        let (sender, result) = Types::oneshot();
        let responder = Responder::new(sender, self.0.refusals.clone());
        let write = self
            .0
            .raft
            .write(data)
            .with_leader(term)
            .responder(responder);
        if let Err(fatal) = write.await {
            return Err(ProposeError::Stopped(fatal.to_string()));
        }
        Ok(Pending {
            result: Box::pin(async move { result.await.ok() }),
        })
    }

    /// How many proposals were refused on this replica so far.
    pub fn refusals(&self) -> u64 {
        self.0.refusals.count()
    }

    /// Changes with elections and failure only.
    pub fn state(&self) -> watch::Receiver<GroupState> {
        self.0.state.clone()
    }

    /// Everything about the group at this moment.
    pub fn status(&self) -> GroupStatus {
        let (membership, matched, answered) = {
            let receiver = self.0.raft.metrics();
            let metrics = receiver.borrow_watched();
            (
                metrics.membership_config.clone(),
                metrics.replication.clone(),
                metrics.heartbeat.clone(),
            )
        };
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let own = self.0.key.replica.0;
        let since = Duration::from_millis(self.0.raft.config().heartbeat_interval) * SILENCE;
        let answers = |replica: &u64| {
            let times = answered.as_ref();
            let last = times.and_then(|times| times.get(replica).copied().flatten());
            last.is_some_and(|at| at.elapsed() < since)
        };
        let member = |(replica, peer): (&u64, &Peer)| Member {
            replica: ReplicaId(*replica),
            node: peer.node,
            voter: voters.contains(replica),
            matched: matched
                .as_ref()
                .and_then(|matched| matched.get(replica))
                .and_then(|id| id.as_ref().map(|id| id.index)),
            answers: *replica == own || answers(replica),
        };
        let state = self.0.state.borrow().clone();
        GroupStatus {
            state,
            membership: membership.nodes().map(member).collect(),
            membership_id: membership.log_id().as_ref().map(from_raft),
            joint: membership.membership().get_joint_config().len() > 1,
            last_index: self.0.log.last_log_id().map_or(0, |id| id.index),
            applied: *self.0.applied.lock(),
        }
    }

    /// Returns once this leader has confirmed with a majority that it still leads and has applied
    /// all that was committed when it asked.
    pub async fn read_barrier(&self) -> Result<(), ConsensusError> {
        match Box::pin(self.0.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(_read) => Ok(()),
            Err(RaftError::APIError(error)) => Err(ConsensusError::Refused(error.to_string())),
            Err(RaftError::Fatal(fatal)) => Err(ConsensusError::Stopped(fatal.to_string())),
        }
    }

    /// Adds a member without a vote; does not wait for it to catch up.
    pub async fn add_learner(
        &self,
        replica: ReplicaId,
        node: NodeId,
    ) -> Result<(), ConsensusError> {
        let added = Box::pin(self.0.raft.add_learner(replica.0, Peer { node }, false)).await;
        added.map(|_response| ()).map_err(refused)
    }

    /// Makes `voters`, all of them members, the voters, in a joint change. Members that do not vote any
    /// more learn if `retain`; otherwise they are gone. Refused where the members are no longer those
    /// of `seen`, which the caller decided by.
    pub async fn change_voters(
        &self,
        voters: BTreeSet<ReplicaId>,
        seen: Option<LogId>,
        retain: bool,
    ) -> Result<(), ConsensusError> {
        let ids: BTreeSet<u64> = voters.iter().map(|replica| replica.0).collect();
        let last_membership_log_id = seen.map(to_raft);
        let unchanged = Precondition::LastMembershipLogId {
            last_membership_log_id,
        };
        let change = self.0.raft.change_membership_if(ids, retain, [unchanged]);
        let changed = Box::pin(change).await;
        changed.map(|_response| ()).map_err(refused)
    }

    /// Removes a member that does not vote.
    pub async fn remove(&self, replica: ReplicaId) -> Result<(), ConsensusError> {
        let gone = openraft::ChangeMembers::RemoveNodes(BTreeSet::from([replica.0]));
        let changed = Box::pin(self.0.raft.change_membership(gone, false)).await;
        changed.map(|_response| ()).map_err(refused)
    }

    pub(crate) fn handing_over_in(&self) -> &AtomicU64 {
        &self.0.handing_over
    }

    /// Asks for votes once it is this group's turn, if a pre-vote says that it could win; then waits
    /// for a leader. `false`: there is none after `within`.
    pub async fn elect(&self, within: Duration) -> bool {
        match Arc::clone(&self.0.elections).acquire_owned().await {
            Ok(turn) => self.elect_in_turn(turn, within).await,
            // The node is about to stop and wants to lead nothing.
            Err(_closed) => self.led(within).await,
        }
    }

    /// Asks for votes in the background if it can be now; says so.
    pub(crate) fn try_elect(&self) -> bool {
        let Ok(turn) = Arc::clone(&self.0.elections).try_acquire_owned() else {
            return false;
        };
        let group = self.clone();
        drop(task::spawn("election", async move {
            group.elect_in_turn(turn, ELECTION).await
        }));
        true
    }

    /// The turn is held until the election is over.
    async fn elect_in_turn(&self, _turn: OwnedSemaphorePermit, within: Duration) -> bool {
        self.heard_from_leader();
        let trigger = self.0.raft.trigger();
        if let Err(fatal) = Box::pin(trigger.elect(true)).await {
            tracing::debug!(group = %self.0.name, %fatal, "cannot ask for votes");
        }
        self.led(within).await
    }

    /// Waits until the group has a leader; `false`: not in this time. A group that failed never will.
    pub async fn led(&self, within: Duration) -> bool {
        let mut state = self.state();
        let led = state.wait_for(|state| state.leader.is_some() || state.failed.is_some());
        clock::timeout(within, led).await.is_ok()
    }
}

fn refused(error: RaftError<Types, ClientWriteError<Types>>) -> ConsensusError {
    match error {
        RaftError::APIError(error) => ConsensusError::Refused(error.to_string()),
        RaftError::Fatal(fatal) => ConsensusError::Stopped(fatal.to_string()),
    }
}

type Written = Option<ClientWriteResult<Types>>;

/// A proposal under way. Dropping it does not withdraw the proposal.
pub struct Pending {
    result: Pin<Box<dyn Future<Output = Written> + Send>>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl Future for Pending {
    type Output = Result<Applied, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let not_leader = |forward: ForwardToLeader<Types>, maybe_applied| ProposeError::NotLeader {
            leader: forward.leader_node.map(|peer| peer.node),
            maybe_applied,
        };
        Poll::Ready(match ready!(self.result.as_mut().poll(cx)) {
            Some(Ok(response)) => Ok(Applied {
                log_id: from_raft(&response.log_id),
                reply: response.data,
            }),
            Some(Err(ClientWriteError::ForwardToLeader(forward))) => {
                if forward.reason == ForwardReason::LeaseExpired {
                    hit!("consensus.propose.lease-expired");
                    Err(ProposeError::LeaseExpired)
                } else {
                    Err(not_leader(forward, false))
                }
            }
            Some(Err(ClientWriteError::LogEntryDiscarded(forward))) => {
                hit!("consensus.propose.discarded");
                Err(not_leader(forward, true))
            }
            Some(Err(error)) => Err(ProposeError::Stopped(error.to_string())),
            // The core stopped with the entry under way.
            None => Err(ProposeError::NotLeader {
                leader: None,
                maybe_applied: true,
            }),
        })
    }
}

/// Follows openraft's metrics and publishes what the layers above want to know. A group whose log
/// stopped stops with it, also where it would not touch its log for a long time.
pub(crate) async fn publish_state(raft: Raft, log: Log, state: watch::Sender<GroupState>) {
    let mut metrics = raft.server_metrics();
    let changes = crate::metrics::leader_changes();
    let mut led_by = None;
    loop {
        let now = {
            let metrics = metrics.borrow_watched();
            let role = match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Candidate => Role::Candidate,
                ServerState::Follower => Role::Follower,
                ServerState::Learner | ServerState::Shutdown => Role::Learner,
            };
            let leader = metrics.current_leader.and_then(|id| {
                let peer = metrics.membership_config.get_node(&id)?;
                Some((ReplicaId(id), peer.node))
            });
            GroupState {
                role,
                term: metrics.vote.leader_id.term,
                leader,
                failed: None,
            }
        };
        if now.leader.is_some() && now.leader != led_by {
            changes.increment(1);
            led_by = now.leader;
        }
        let _changed = state.send_if_modified(|old| {
            let changed = *old != now;
            if changed {
                *old = now;
            }
            changed
        });
        tokio::select! {
            biased;
            changed = metrics.changed() => {
                if changed.is_err() {
                    break;
                }
            }
            _why = log.stopped() => {
                if let Err(error) = Box::pin(raft.shutdown()).await {
                    tracing::debug!(%error, "the group had stopped already");
                }
                break;
            }
        }
    }
    let why = if let Some(why) = log.poisoned() {
        why.to_string()
    } else {
        let receiver = raft.metrics();
        let running = receiver.borrow_watched().running_state.clone();
        running
            .err()
            .map_or_else(|| "closed".to_owned(), |fatal| fatal.to_string())
    };
    state.send_modify(|state| {
        state.role = Role::Learner;
        state.leader = None;
        state.failed = Some(why);
    });
}
