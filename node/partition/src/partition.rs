//! The handle of one partition's replica on this node.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use seriatim_consensus::{Consensus, Group, GroupSpec, GroupState, Role};
use seriatim_proto::{
    ids::{LeaderEpoch, NodeId, Offset, TopicPartition},
    settings::TopicSettings,
};
use seriatim_runtime::task::JoinHandle;
use seriatim_storage::{LogKey, LogOptions, Storage};
use tokio::sync::watch;

use crate::{
    error::PartitionError,
    machine::{Handle, Machine},
    retention, trim,
};

/// Which replica to open.
#[derive(Debug, Clone)]
pub struct PartitionSpec {
    /// The partition.
    pub name: TopicPartition,
    /// Its Raft group and this replica's id.
    pub key: LogKey,
    /// Its topic's settings.
    pub settings: TopicSettings,
}

/// One partition's replica on this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Partition {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) name: TopicPartition,
    pub(crate) consensus: Consensus,
    pub(crate) storage: Storage,
    pub(crate) group: Group,
    pub(crate) machine: Arc<Machine>,
    /// Role and term of this replica.
    pub(crate) state: watch::Receiver<GroupState>,
    pub(crate) settings: RwLock<TopicSettings>,
    /// Held from the decision about a batch until it is submitted, so that batches are submitted in
    /// the order in which they were decided about.
    pub(crate) order: tokio::sync::Mutex<()>,
    /// Base offset of the file that is written to and the time of its first record, once looked up.
    pub(crate) first_record: Mutex<Option<(Offset, i64)>>,
    dropping: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.dropping.abort();
    }
}

/// How a replica is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Whether this replica leads.
    pub leads: bool,
    /// The term.
    pub term: u64,
    /// Who leads, where known.
    pub leader: Option<NodeId>,
    /// The first offset there is.
    pub log_start_offset: Offset,
    /// End of what is committed, as far as this replica has heard.
    pub high_watermark: Offset,
    /// End of this replica's log.
    pub log_end_offset: Offset,
    /// Batches submitted here whose answers are due.
    pub appends_in_flight: usize,
    /// Why the replica stopped, if it did.
    pub failed: Option<String>,
}

/// This replica does not lead.
pub(crate) struct NotLeading {
    pub(crate) leader: Option<NodeId>,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) failed: Option<String>,
}

impl Partition {
    /// Opens a replica, created if absent.
    pub async fn open(consensus: &Consensus, spec: PartitionSpec) -> Result<Self, PartitionError> {
        let options = log_options(&spec.settings);
        let storage = consensus.storage().clone();
        let log = storage.open_log(spec.key, options).await?;
        let machine = Machine::load(spec.name.clone(), log).await?;
        let group_spec = GroupSpec {
            key: spec.key,
            log: options,
            name: spec.name.to_string(),
        };
        let handle = Arc::new(Handle(Arc::clone(&machine)));
        let group = consensus.open(group_spec, handle).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                name: spec.name,
                consensus: consensus.clone(),
                storage,
                state: group.state(),
                dropping: trim::start(&group, &machine),
                first_record: Mutex::new(None),
                group,
                machine,
                settings: RwLock::new(spec.settings),
                order: tokio::sync::Mutex::new(()),
            }),
        })
    }

    /// The partition's name.
    pub fn name(&self) -> &TopicPartition {
        &self.inner.name
    }

    /// Its Raft group.
    pub fn group(&self) -> &Group {
        &self.inner.group
    }

    /// Follows the high watermark: the end of what is committed, as far as this replica has heard.
    pub fn high_watermark(&self) -> watch::Receiver<Offset> {
        self.inner.machine.watch()
    }

    /// Follows role, term and leader.
    pub fn state(&self) -> watch::Receiver<GroupState> {
        self.inner.group.state()
    }

    /// The topic's settings that this replica uses.
    pub fn settings(&self) -> TopicSettings {
        self.inner.settings.read().clone()
    }

    /// Uses other settings from now on.
    pub fn set_settings(&self, settings: TopicSettings) {
        if *self.inner.settings.read() == settings {
            return;
        }
        self.inner.machine.log().set_options(log_options(&settings));
        *self.inner.settings.write() = settings;
    }

    /// How this replica is now.
    pub fn status(&self) -> PartitionStatus {
        let state = self.inner.state.borrow().clone();
        let log = self.inner.machine.log();
        PartitionStatus {
            leads: state.role == Role::Leader,
            term: state.term,
            leader: state.leader.map(|(_, node)| node),
            log_start_offset: log.log_start_offset(),
            high_watermark: self.inner.machine.high_watermark(),
            log_end_offset: log.next_offset(),
            appends_in_flight: self.inner.machine.in_flight(),
            failed: state.failed,
        }
    }

    /// Stops the replica. Appends that wait for their acknowledgement fail.
    pub async fn close(&self) {
        self.inner.dropping.abort();
        self.inner
            .consensus
            .close(self.inner.group.key().group)
            .await;
        self.inner.machine.checkpoint().await;
    }
}

/// The term, if this replica leads in it as far as it has heard.
pub(crate) fn leading(state: &GroupState) -> Result<u64, NotLeading> {
    if state.role == Role::Leader && state.failed.is_none() {
        return Ok(state.term);
    }
    Err(NotLeading {
        leader: state.leader.map(|(_, node)| node),
        epoch: epoch(state.term),
        failed: state.failed.clone(),
    })
}

/// A term as Kafka's leader epoch.
pub(crate) fn epoch(term: u64) -> LeaderEpoch {
    LeaderEpoch(i32::try_from(term).unwrap_or(i32::MAX))
}

fn log_options(settings: &TopicSettings) -> LogOptions {
    LogOptions {
        segment_bytes: retention::segment_bytes(settings),
        durability: settings.durability,
    }
}
