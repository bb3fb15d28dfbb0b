//! The metadata group's state machine: applies commands to the image and keeps it in sled.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use seriatim_consensus::{
    AppliedEntry, AppliedPayload, AppliedState, Reply, SmError, Snapshot, StateMachine,
};
use seriatim_proto::{ids::Offset, internal::v1 as wire};
use seriatim_runtime::task;
use seriatim_storage::{LogId, Storage};
use tokio::sync::watch;

use crate::{
    apply::{Touched, apply},
    command,
    image::Image,
    store::{self, StoreError},
};

/// Image and position, which change together.
#[derive(Debug, Clone, Default)]
struct State {
    image: Arc<Image>,
    applied: Option<LogId>,
    membership: Option<Bytes>,
}

impl State {
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

/// The state machine of group 0.
#[derive(Debug)]
pub(crate) struct MetaMachine {
    storage: Storage,
    /// Bytes of log after which a snapshot takes its place.
    log_bytes: u64,
    /// Invariant: the same image and position as on disk, or newer by one batch while it is
    /// written; only `apply` and `install`, of which one runs at a time, change it.
    state: Mutex<State>,
    image: watch::Sender<Arc<Image>>,
}

impl MetaMachine {
    /// Reads the image from disk.
    pub(crate) fn load(storage: &Storage, log_bytes: u64) -> Result<Arc<Self>, StoreError> {
        let (image, applied) = store::load(storage.meta())?;
        let image = Arc::new(image);
        let state = State {
            image: Arc::clone(&image),
            applied: applied.as_ref().map(|applied| LogId {
                term: applied.term,
                index: applied.index,
            }),
            membership: applied.and_then(|applied| applied.membership),
        };
        Ok(Arc::new(Self {
            storage: storage.clone(),
            log_bytes,
            state: Mutex::new(state),
            image: watch::Sender::new(image),
        }))
    }

    /// The image as of the last applied command.
    pub(crate) fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow())
    }

    /// Follows the image.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Image>> {
        self.image.subscribe()
    }

    /// Returns once the image is the one behind the entry at `index`, or a later one.
    pub(crate) async fn applied(&self, index: u64) -> Result<(), watch::error::RecvError> {
        let mut image = self.watch();
        while self.state.lock().applied.map_or(0, |at| at.index) < index {
            image.changed().await?;
        }
        Ok(())
    }

    /// Forgets everything, so that it is received anew. The published image stays until then:
    /// it is what this node last knew.
    pub(crate) fn reset(&self) -> Result<(), StoreError> {
        store::replace(self.storage.meta(), &Image::default(), None)?;
        *self.state.lock() = State::default();
        Ok(())
    }

    fn publish(&self, state: State) {
        let image = Arc::clone(&state.image);
        *self.state.lock() = state;
        let _ = self.image.send_if_modified(|published| {
            let changed = !Arc::ptr_eq(published, &image);
            *published = image;
            changed
        });
    }
}

fn failed(error: impl Into<StoreError>) -> SmError {
    let error = error.into();
    tracing::error!(%error, "metadata store failed");
    SmError::new(error.to_string())
}

/// Applies entries to a copy of the state; what they changed; what they answered.
fn apply_all(mut state: State, entries: Vec<AppliedEntry>) -> (State, Touched, Vec<Reply>) {
    let mut touched = Touched::default();
    let mut changed = None;
    let mut replies = Vec::with_capacity(entries.len());
    for entry in entries {
        let reply = match entry.payload {
            AppliedPayload::Command(bytes) => {
                let image = changed.get_or_insert_with(|| (*state.image).clone());
                let answer =
                    command::decode(&bytes).and_then(|command| apply(image, command, &mut touched));
                Reply::Command(command::encode_reply(answer).encode_to_vec().into())
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
    if let Some(image) = changed {
        state.image = Arc::new(image);
    }
    (state, touched, replies)
}

#[async_trait]
impl StateMachine for MetaMachine {
    fn applied_state(&self) -> Result<AppliedState, SmError> {
        Ok(self.state.lock().applied_state())
    }

    async fn apply(&self, entries: Vec<AppliedEntry>) -> Result<Vec<Reply>, SmError> {
        self.storage.wait_for_meta_room().await;
        let state = self.state.lock().clone();
        let storage = self.storage.clone();
        let (state, replies) = task::blocking("meta-apply", move || {
            let (state, touched, replies) = apply_all(state, entries);
            if let Some(applied) = state.record() {
                store::save(storage.meta(), &state.image, &touched, &applied).map_err(failed)?;
            }
            Ok::<_, SmError>((state, replies))
        })
        .await?;
        self.publish(state);
        Ok(replies)
    }

    fn compact_after_bytes(&self) -> Option<u64> {
        Some(self.log_bytes)
    }

    async fn snapshot(&self) -> Result<Snapshot, SmError> {
        let state = self.state.lock().clone();
        Ok(Snapshot {
            data: store::encode_snapshot(&state.image),
            state: state.applied_state(),
            // Commands take no offset.
            next_offset: Offset(0),
        })
    }

    async fn install(&self, snapshot: Snapshot) -> Result<(), SmError> {
        self.storage.wait_for_meta_room().await;
        let state = State {
            image: Arc::new(store::decode_snapshot(&snapshot.data).map_err(failed)?),
            applied: snapshot.state.log_id,
            membership: snapshot.state.membership,
        };
        store::replace(self.storage.meta(), &state.image, state.record().as_ref())
            .map_err(failed)?;
        self.publish(state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use seriatim_storage::{StorageOptions, disk::PosixDisk};
    use wire::meta_command::Command;

    use super::*;

    /// A node that came back with an image of before a power loss was ready as soon as it found itself in
    /// that image, and denied a topic that had been created since (simulator seed 13892).
    #[tokio::test]
    async fn who_waits_for_an_entry_waits_until_it_is_applied() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(PosixDisk);
        let storage = Storage::open(disk, dir.path(), StorageOptions::default()).unwrap();
        let machine = MetaMachine::load(&storage, u64::MAX).unwrap();
        let entry = |index| {
            let command = Command::AllocateProducerIds(wire::AllocateProducerIds { count: 1 });
            AppliedEntry {
                log_id: LogId { term: 1, index },
                base_offset: Offset(0),
                payload: AppliedPayload::Command(command::encode(command)),
            }
        };
        let _replies = machine.apply((0..3).map(entry).collect()).await.unwrap();
        assert!(machine.applied(0).now_or_never().is_some());
        assert!(machine.applied(2).now_or_never().is_some());
        let mut waiting = Box::pin(machine.applied(4));
        assert!((&mut waiting).now_or_never().is_none());
        let _replies = machine.apply(vec![entry(3)]).await.unwrap();
        assert!((&mut waiting).now_or_never().is_none());
        let _replies = machine.apply(vec![entry(4)]).await.unwrap();
        waiting.now_or_never().unwrap().unwrap();
        storage.shutdown().await;
    }
}
