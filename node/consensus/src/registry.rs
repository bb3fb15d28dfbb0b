//! All groups of a node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openraft::{Config, SnapshotPolicy};
use parking_lot::{Mutex, RwLock};
use seriatim_proto::ids::GroupId;
use seriatim_runtime::{
    mutant::{self, Mutant},
    task::TaskGroup,
};
use seriatim_storage::{Log, LogOptions, Storage};
use tokio::sync::{Semaphore, watch};

use crate::{
    ConsensusError, ConsensusOptions, Group, GroupSpec, GroupState, Lane, Role, StateMachine,
    compact, driver, group,
    log_store::LogStore,
    machine::Machine,
    network::Factory,
    pace::{Pace, Throttle},
    raft::Raft,
    receive::Receiver,
    refusals::Refusals,
};

/// Files that the log of a group consists of, about, when it is compacted.
const COMPACTED_SEGMENTS: u64 = 8;

/// Smallest file of such a log.
const MIN_SEGMENT_BYTES: u64 = 64 << 10;

/// The open groups by id, in an order that does not change from run to run.
#[derive(Default)]
pub(crate) struct Groups(RwLock<BTreeMap<GroupId, Group>>);

impl Groups {
    pub(crate) fn get(&self, group: GroupId) -> Option<Group> {
        self.0.read().get(&group).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Group> {
        self.0.read().values().cloned().collect()
    }
}

/// The groups of a node. Cloning is cheap.
#[derive(Clone)]
pub struct Consensus(Arc<Inner>);

struct Inner {
    options: ConsensusOptions,
    config: Arc<Config>,
    storage: Storage,
    lane: Lane,
    groups: Arc<Groups>,
    /// What all followers that are behind share.
    throttle: Arc<Throttle>,
    /// Turns to hold elections.
    elections: Arc<Semaphore>,
    tasks: TaskGroup,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

impl Consensus {
    /// Serves Raft messages on `lane` and drives heartbeats and elections of the groups that will
    /// be opened.
    pub fn new(options: ConsensusOptions, storage: Storage, lane: Lane) -> Self {
        let groups = Arc::new(Groups::default());
        lane.set_handler(Arc::new(Receiver::new(groups.clone())));
        let tasks = TaskGroup::new();
        let _running = tasks.spawn("raft-driver", driver::run(groups.clone(), options.clone()));
        let _running = tasks.spawn("raft-compact", compact::run(groups.clone()));
        let config = Arc::new(config(&options));
        let throttle = Arc::new(Throttle::new(options.catch_up_bytes_per_s));
        Self(Arc::new(Inner {
            options,
            config,
            storage,
            lane,
            groups,
            throttle,
            elections: Arc::new(Semaphore::new(group::ELECTIONS)),
            tasks,
        }))
    }

    /// Opens one replica and lets it take part.
    pub async fn open(
        &self,
        spec: GroupSpec,
        machine: Arc<dyn StateMachine>,
    ) -> Result<Group, ConsensusError> {
        let inner = &self.0;
        if inner.groups.get(spec.key.group).is_some() {
            return Err(ConsensusError::Open(spec.key));
        }
        let compact_after = machine.compact_after_bytes();
        let log = self.open_log(&spec, compact_after).await?;
        if mutant::on(Mutant::RestartTruncatesBelowCommit)
            && let Some(committed) = log.committed()
        {
            let cut = log.truncate_from(committed.index + 1).await;
            cut.map_err(ConsensusError::Storage)?;
        }
        let applied = Arc::new(Mutex::new(None));
        let machine = Machine {
            machine,
            log: log.clone(),
            applied: applied.clone(),
            saving: Arc::default(),
        };
        let pace = Pace::new(log.clone(), Arc::clone(&inner.throttle));
        let refusals = Refusals::default();
        let store = LogStore {
            storage: inner.storage.clone(),
            log: log.clone(),
            refusals: refusals.clone(),
            max_read_bytes: inner.options.max_append_bytes,
        };
        let network = Factory {
            lane: inner.lane.clone(),
            group: spec.key.group,
            pace: pace.clone(),
        };
        let replica = spec.key.replica.0;
        let raft = Box::pin(Raft::new(
            replica,
            inner.config.clone(),
            network,
            store,
            machine,
        ))
        .await;
        let raft = raft.map_err(|fatal| match log.poisoned() {
            // What is applied again is read from the log, which may find damage behind the checkpoint.
            Some(poison) if poison.is_damage() => ConsensusError::Damaged((*poison).clone()),
            _ => ConsensusError::Stopped(fatal.to_string()),
        })?;
        pace.follow(raft.metrics());
        let (sender, state) = watch::channel(GroupState {
            role: Role::Learner,
            term: 0,
            leader: None,
            failed: None,
        });
        let _running = inner.tasks.spawn(
            "raft-state",
            group::publish_state(raft.clone(), log.clone(), sender),
        );
        let elections = Arc::clone(&inner.elections);
        let parts = (pace, compact_after);
        let group = Group::new(
            (spec.key, spec.name),
            raft,
            (log, applied, refusals),
            state,
            parts,
            elections,
        );
        let _none = inner.groups.0.write().insert(spec.key.group, group.clone());
        Ok(group)
    }

    async fn open_log(
        &self,
        spec: &GroupSpec,
        compact_after: Option<u64>,
    ) -> Result<Log, ConsensusError> {
        let options = log_options(spec.log, compact_after);
        let opened = self.0.storage.open_log(spec.key, options).await;
        opened.map_err(|error| {
            if error.is_damage() {
                ConsensusError::Damaged(error)
            } else {
                ConsensusError::Storage(error)
            }
        })
    }

    /// Closes a group on this node; its log stays.
    pub async fn close(&self, group: GroupId) {
        let closed = self.0.groups.0.write().remove(&group);
        if let Some(group) = closed
            && let Err(error) = Box::pin(group.raft().shutdown()).await
        {
            tracing::warn!(group = group.name(), %error, "the group did not stop cleanly");
        }
    }

    /// From now on no replica of this node asks for votes, because the node is about to stop.
    pub fn stop_elections(&self) {
        self.0.elections.close();
    }

    /// The storage that the groups' logs are in.
    pub fn storage(&self) -> &Storage {
        &self.0.storage
    }

    pub(crate) fn groups(&self) -> Vec<Group> {
        self.0.groups.all()
    }

    pub(crate) fn lane(&self) -> &Lane {
        &self.0.lane
    }

    /// An open group.
    pub fn get(&self, group: GroupId) -> Option<Group> {
        self.0.groups.get(group)
    }

    /// Closes every group.
    pub async fn shutdown(&self) {
        let all = self.0.groups.all();
        let closing = all.iter().map(|group| self.close(group.key().group));
        let _done: Vec<()> = futures::future::join_all(closing).await;
        if !self.0.tasks.shutdown(Duration::from_secs(5)).await {
            tracing::warn!("some tasks of the Raft groups did not end in time");
        }
    }
}

/// Small files where the log is compacted: only whole ones go.
fn log_options(mut options: LogOptions, compact_after: Option<u64>) -> LogOptions {
    if let Some(bytes) = compact_after {
        let most = (bytes / COMPACTED_SEGMENTS).max(MIN_SEGMENT_BYTES);
        options.segment_bytes = options.segment_bytes.min(most);
    }
    options
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's settings: its own timers are off, the driver runs them for all groups together.
fn config(options: &ConsensusOptions) -> Config {
    let timeout = millis(options.election_timeout);
    Config {
        cluster_name: "seriatim".to_owned(),
        heartbeat_interval: millis(options.heartbeat_interval),
        // No room for chance: the driver draws when to ask for votes, from the node's own source.
        election_timeout_min: timeout.saturating_sub(1),
        election_timeout_max: timeout,
        max_payload_entries: 256,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        api_channel_size: Some(1024),
        notification_channel_size: Some(1024),
        state_machine_channel_size: Some(1024),
        enable_tick: false,
        enable_heartbeat: true,
        enable_elect: true,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}
