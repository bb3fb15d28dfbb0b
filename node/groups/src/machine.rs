//! The state machine of a shard: applies commands to its groups and keeps them in the metadata
//! store, and in memory for those who read.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use seriatim_consensus::{
    AppliedEntry, AppliedPayload, AppliedState, Reply, SmError, Snapshot, StateMachine,
};
use seriatim_proto::{ids::Offset, internal::v1 as wire};
use seriatim_runtime::{
    mutant::{self, Mutant},
    task,
};
use seriatim_storage::{LogId, LogKey, Storage};
use tokio::sync::Notify;

use crate::{
    apply::apply,
    command::{self, GroupCommand},
    records,
    state::{Group, Shard},
    store::{self, Keys, StoreError},
    touched::Touched,
};

/// Groups and position, which change together.
#[derive(Debug, Default)]
struct State {
    shard: Shard,
    applied: Option<LogId>,
    membership: Option<Bytes>,
}

impl State {
    /// `None` where nothing was applied.
    fn record(&self) -> Option<wire::AppliedRecord> {
        self.applied.map(|applied| wire::AppliedRecord {
            term: applied.term,
            index: applied.index,
            membership: self.membership.clone(),
        })
    }

    fn applied_state(&self) -> AppliedState {
        AppliedState {
            log_id: self.applied,
            membership: self.membership.clone(),
        }
    }
}

/// The state machine of one shard.
#[derive(Debug)]
pub(crate) struct ShardMachine {
    name: String,
    /// Bytes of log that are kept.
    log_bytes: u64,
    storage: Storage,
    keys: Keys,
    /// Invariant: as on disk, or newer by the batch that is being written; only `apply` and
    /// `install`, of which one runs at a time, change it.
    state: RwLock<State>,
    /// Groups whose members changed, for the coordinator.
    changed: Mutex<BTreeSet<String>>,
    /// Somebody takes what changed; otherwise it is not collected.
    followed: AtomicBool,
    changes: Notify,
}

impl ShardMachine {
    /// Reads the shard from disk.
    pub(crate) fn load(
        storage: &Storage,
        key: LogKey,
        (name, log_bytes): (String, u64),
    ) -> Result<Arc<Self>, StoreError> {
        let keys = Keys::new(key);
        let (shard, applied) = store::load(storage.meta(), &keys)?;
        let state = State {
            shard,
            applied: applied.as_ref().map(|applied| LogId {
                term: applied.term,
                index: applied.index,
            }),
            membership: applied.and_then(|applied| applied.membership),
        };
        Ok(Arc::new(Self {
            name,
            log_bytes,
            storage: storage.clone(),
            keys,
            state: RwLock::new(state),
            changed: Mutex::default(),
            followed: AtomicBool::new(false),
            changes: Notify::new(),
        }))
    }

    /// A group as of the last applied entry. Not to be held for long: a change copies it then.
    pub(crate) fn group(&self, id: &str) -> Option<Arc<Group>> {
        self.state.read().shard.groups.get(id).cloned()
    }

    /// Whether no group may grow.
    pub(crate) fn is_full(&self) -> bool {
        self.state.read().shard.is_full()
    }

    /// Looks at every group.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&str, &Group)) {
        for (id, group) in &self.state.read().shard.groups {
            look(id, group);
        }
    }

    /// Begins or ends to collect which groups' members changed.
    pub(crate) fn follow(&self, on: bool) {
        self.followed.store(on, Ordering::Release);
        self.changed.lock().clear();
    }

    /// Returns once there is something in [`Self::take_changed`].
    pub(crate) async fn changes(&self) {
        self.changes.notified().await;
    }

    /// Groups whose members changed since the last call.
    pub(crate) fn take_changed(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.changed.lock())
    }

    fn publish(&self, touched: Touched) {
        if !self.followed.load(Ordering::Acquire) {
            return;
        }
        let concerns = |change: &crate::touched::Change| {
            change.wiped || change.head || !change.members.is_empty()
        };
        let groups = touched.groups.into_iter();
        let mut groups = groups.filter(|(_, change)| concerns(change)).peekable();
        if groups.peek().is_some() {
            self.changed.lock().extend(groups.map(|(id, _)| id));
            self.changes.notify_one();
        }
    }

    fn apply_all(&self, entries: Vec<AppliedEntry>) -> Result<(Touched, Vec<Reply>), SmError> {
        let mut touched = Touched::default();
        let mut replies = Vec::with_capacity(entries.len());
        let meta = self.storage.meta();
        let batch = {
            let mut state = self.state.write();
            for entry in entries {
                let reply = match entry.payload {
                    AppliedPayload::Command(bytes) => {
                        let applied = GroupCommand::decode(&bytes)
                            .and_then(|command| apply(&mut state.shard, command, &mut touched));
                        Reply::Command(command::encode_reply(applied))
                    }
                    AppliedPayload::Membership(membership) => {
                        state.membership = Some(membership);
                        Reply::None
                    }
                    AppliedPayload::Blank | AppliedPayload::Batch(_) => Reply::None,
                };
                state.applied = Some(entry.log_id);
                replies.push(reply);
            }
            let applied = state.record();
            if mutant::on(Mutant::GroupOffsetsNotStored) {
                touched = Touched::default();
            }
            store::changes(meta, &self.keys, (&state.shard, &touched), applied.as_ref())
        };
        let written = batch.and_then(|batch| meta.transact(batch));
        written.map_err(|error| self.failed(error))?;
        Ok((touched, replies))
    }

    fn failed(&self, error: impl Into<StoreError>) -> SmError {
        let error = error.into();
        tracing::error!(shard = self.name, %error, "the store of consumer groups failed");
        SmError::new(error.to_string())
    }
}

/// The state machine as the consensus layer holds it.
#[derive(Debug, Clone)]
pub(crate) struct Handle(pub(crate) Arc<ShardMachine>);

#[async_trait]
impl StateMachine for Handle {
    fn applied_state(&self) -> Result<AppliedState, SmError> {
        Ok(self.0.state.read().applied_state())
    }

    async fn apply(&self, entries: Vec<AppliedEntry>) -> Result<Vec<Reply>, SmError> {
        self.0.storage.wait_for_meta_room().await;
        let machine = Arc::clone(&self.0);
        let applied = task::blocking("groups-apply", move || machine.apply_all(entries));
        let (touched, replies) = applied.await?;
        self.0.publish(touched);
        Ok(replies)
    }

    fn compact_after_bytes(&self) -> Option<u64> {
        Some(self.0.log_bytes)
    }

    async fn snapshot(&self) -> Result<Snapshot, SmError> {
        // Copies the groups' handles, not the groups.
        let (shard, state) = {
            let state = self.0.state.read();
            (state.shard.clone(), state.applied_state())
        };
        let data =
            task::blocking("groups-snapshot", move || records::encode_snapshot(&shard)).await;
        Ok(Snapshot {
            data,
            state,
            // Commands take no offset.
            next_offset: Offset(0),
        })
    }

    async fn install(&self, snapshot: Snapshot) -> Result<(), SmError> {
        self.0.storage.wait_for_meta_room().await;
        let machine = Arc::clone(&self.0);
        task::blocking("groups-install", move || {
            let shard = records::decode_snapshot(&snapshot.data).map_err(|error| {
                tracing::error!(shard = machine.name, %error, "unusable snapshot");
                SmError::new(error.to_string())
            })?;
            let state = State {
                shard,
                applied: snapshot.state.log_id,
                membership: snapshot.state.membership,
            };
            let meta = machine.storage.meta();
            let applied = state.record();
            store::replace(meta, &machine.keys, &state.shard, applied.as_ref())
                .map_err(|error| machine.failed(error))?;
            *machine.state.write() = state;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
