//! The life of one partition's replica on this node: open, first leader, damage, members.

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt as _, OptionFuture};
use seriatim_consensus::{Group, Role};
use seriatim_partition::Partition;
use seriatim_proto::{
    error::chain, ids::TopicPartition, internal::v1 as wire, settings::TopicSettings,
};
use seriatim_runtime::{clock, hit};
use seriatim_storage::{LogKey, StorageError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::meta_command::Command;

use crate::{
    cluster::Inner,
    command::Refusal,
    control,
    error::ClusterError,
    image::{PartitionInfo, Replica},
    membership,
    moving::{self, Goal},
    opened::{OpenError, Opened},
};

/// How long one request for a new replica id may take.
const REPLACE: Duration = Duration::from_secs(10);

/// Pause before a replica that could not be opened is tried again.
const REOPEN: Duration = Duration::from_secs(5);

/// Pause before a replica is opened whose predecessor here has not closed yet.
const BUSY: Duration = Duration::from_millis(100);

/// How long each founder in turn has to initialize a new partition.
const INITIALIZE: Duration = Duration::from_secs(1);

/// The state of a replica on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalState {
    /// Being opened.
    Opening,
    /// Takes part.
    Running,
    /// Checksums found damage (file, position); a new replica takes its place.
    Damaged(String),
    /// Stopped, by an I/O error for instance.
    Failed(String),
    /// Took the place of a damaged or lost replica and receives its log from the leader.
    Rebuilding,
}

/// A replica that the image gives to this node.
#[derive(Debug, Clone)]
pub struct LocalReplica {
    /// The partition.
    pub tp: TopicPartition,
    /// Its group and the replica's id.
    pub key: LogKey,
    /// Its state.
    pub state: LocalState,
    /// Its Raft group, while it is open.
    pub group: Option<Group>,
    /// The partition, while it is open; none where the topic is internal.
    pub partition: Option<Partition>,
}

/// What the image wants of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) goal: Goal,
    pub(crate) founders: Vec<Replica>,
    pub(crate) settings: TopicSettings,
}

impl Target {
    /// Some replica was moved or replaced since the group was created.
    fn is_changed(&self) -> bool {
        self.goal.moving || self.goal.replicas != self.founders
    }

    fn is_founder(&self, key: LogKey) -> bool {
        self.founders
            .iter()
            .any(|founder| founder.id == key.replica)
    }
}

/// One replica's task.
pub(crate) struct ReplicaTask {
    pub(crate) inner: Arc<Inner>,
    pub(crate) tp: TopicPartition,
    pub(crate) key: LogKey,
    pub(crate) target: watch::Receiver<Target>,
    pub(crate) cancel: CancellationToken,
}

/// Why a replica stopped running.
enum End {
    Cancelled,
    Damaged(String),
    Failed(String),
}

impl ReplicaTask {
    /// Runs until cancelled. The partition is closed on return.
    pub(crate) async fn run(mut self) {
        match self.open_and_watch().await {
            None | Some(End::Cancelled) => {}
            Some(End::Damaged(why)) => {
                hit!("cluster.replica.damaged");
                tracing::error!(partition = %self.tp, why, "replica damaged");
                self.set(LocalState::Damaged(why), None);
                self.replace().await;
            }
            Some(End::Failed(why)) => {
                hit!("cluster.replica.stopped");
                tracing::error!(partition = %self.tp, why, "replica stopped");
                self.set(LocalState::Failed(why), None);
                // A log that failed must not be used again by this process.
                self.cancel.cancelled().await;
            }
        }
    }

    fn set(&self, state: LocalState, opened: Option<Opened>) {
        self.inner.replicas.set(&self.tp, self.key, state, opened);
    }

    /// `None` where it is cancelled before it is open.
    async fn open_and_watch(&mut self) -> Option<End> {
        let partition = loop {
            let cancel = self.cancel.clone();
            let opened = tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                permit = self.inner.replicas.may_open() => {
                    let permit = permit?;
                    let opened = self.open().await;
                    drop(permit);
                    opened
                }
            };
            let pause = match opened {
                Ok(partition) => break partition,
                Err(error) if error.is_damage() => {
                    return Some(End::Damaged(chain(&error)));
                }
                // A partition that moves away and comes back: the former replica goes first.
                Err(error) if error.is_busy() => BUSY,
                Err(error) => {
                    let why = chain(&error);
                    tracing::error!(partition = %self.tp, why, "open a replica");
                    self.set(LocalState::Failed(why), None);
                    REOPEN
                }
            };
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return None,
                () = clock::sleep(pause) => {}
            }
        };
        let end = self.watch(&partition).await;
        self.set(LocalState::Opening, None);
        self.inner.leaders.left(self.key.group);
        partition.close().await;
        Some(end)
    }

    async fn open(&self) -> Result<Opened, OpenError> {
        let settings = self.target.borrow().settings.clone();
        Opened::open(&self.inner, &self.tp, self.key, settings).await
    }

    async fn watch(&mut self, partition: &Opened) -> End {
        let group = partition.group().clone();
        let mut state = group.state();
        let mut target = self.target.borrow_and_update().clone();
        let mut rebuilding = !target.is_founder(self.key);
        let empty = rebuilding && !group.is_initialized().await.unwrap_or(true);
        partition.set_settings(target.settings.clone());
        self.find_leader(&group, &target);
        let running = if rebuilding {
            LocalState::Rebuilding
        } else {
            LocalState::Running
        };
        self.set(running, Some(partition.clone()));
        let mut settling: Option<BoxFuture<'static, ()>> = None;
        loop {
            let now = state.borrow_and_update().clone();
            let leader = now.leader.map(|(_, node)| node);
            self.inner.leaders.observe(self.key.group, now.term, leader);
            if let Some(why) = now.failed {
                return failure(&group, why);
            }
            if rebuilding && matches!(now.role, Role::Follower | Role::Leader) {
                rebuilding = false;
                if empty {
                    hit!("cluster.replica.rebuilt");
                    tracing::info!(partition = %self.tp, "new replica has received its log");
                }
                self.set(LocalState::Running, Some(partition.clone()));
            }
            if now.role == Role::Leader && target.is_changed() && settling.is_none() {
                let (inner, goal) = (Arc::clone(&self.inner), target.goal.clone());
                settling = Some(moving::settle(inner, group.clone(), goal).boxed());
            }
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return End::Cancelled,
                changed = state.changed() => if changed.is_err() {
                    return failure(&group, "the group stopped".to_owned());
                },
                changed = self.target.changed() => {
                    if changed.is_err() {
                        return End::Cancelled;
                    }
                    target = self.target.borrow_and_update().clone();
                    partition.set_settings(target.settings.clone());
                    // What is being settled may be out of date: begin again.
                    settling = None;
                }
                Some(()) = OptionFuture::from(settling.as_mut()) => {
                    settling = Some(futures::future::pending().boxed());
                }
            }
            if state.borrow().role != Role::Leader {
                settling = None;
            }
        }
    }

    /// Gets the group its first leader, and one after a restart, in the background.
    fn find_leader(&self, group: &Group, target: &Target) {
        let founders = target.founders.clone();
        let position = |replicas: &[Replica]| {
            replicas
                .iter()
                .position(|replica| replica.id == self.key.replica)
        };
        let rank = position(&target.goal.replicas).unwrap_or(0);
        let founder = position(&founders);
        let group = group.clone();
        let cancel = self.cancel.clone();
        let name = self.tp.clone();
        self.inner.spawn("first-leader", async move {
            let find = async {
                // A group that failed is no news here: its state says so.
                let initialized = group.is_initialized().await.unwrap_or(true);
                match founder {
                    Some(rank) if !initialized => {
                        initialize(&group, &founders, rank, &name).await;
                    }
                    // A replacement waits for the leader to find it.
                    None if !initialized => {}
                    _ => membership::elect(&group, rank).await,
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = find => {}
            }
        });
    }

    /// Asks the controller for a new replica in this one's place. The image then says so, and the
    /// reconciler puts the damaged log aside; until then it stays where it is, so that a restart
    /// finds the damage again and never an empty log under an old id.
    async fn replace(&self) {
        let replace = wire::ReplaceReplica {
            group_id: self.key.group.0,
            replica_id: self.key.replica.0,
        };
        loop {
            let command = Command::ReplaceReplica(replace);
            let deadline = clock::now() + REPLACE;
            let asked = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return,
                asked = control::command(&self.inner, command, deadline) => asked,
            };
            match asked {
                // Unknown: replaced before, or the topic is gone. The image will say.
                Ok(_) | Err(ClusterError::Refused(Refusal::UnknownReplica { .. })) => break,
                Err(error) => {
                    tracing::warn!(partition = %self.tp, %error, "waiting for a new replica");
                }
            }
        }
        self.cancel.cancelled().await;
    }
}

/// Initializes a new partition: the first founder at once, each further one only if nobody did for
/// a second longer. All use the same members, so two that do it at once do no harm.
async fn initialize(group: &Group, founders: &[Replica], rank: usize, name: &TopicPartition) {
    let turn = INITIALIZE * u32::try_from(rank).unwrap_or(u32::MAX);
    if rank > 0 && group.led(turn).await {
        return;
    }
    if group.status().membership.is_empty() {
        if let Err(error) = group.initialize(PartitionInfo::members(founders)).await {
            tracing::warn!(partition = %name, %error, "initialize a partition");
        }
        // The election that this starts fails where the others have not opened their replicas.
        if group.led(Duration::from_millis(50)).await {
            return;
        }
    }
    membership::elect(group, 0).await;
}

fn failure(group: &Group, why: String) -> End {
    match group.log().poisoned() {
        Some(poison) if matches!(*poison, StorageError::Damaged { .. }) => {
            End::Damaged(poison.to_string())
        }
        _ => End::Failed(why),
    }
}
