//! openraft's state machine over [`StateMachine`].

use std::{io, sync::Arc};

use futures::{Stream, StreamExt as _};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    alias::{SnapshotMetaOf, SnapshotOf},
    storage::{EntryResponder, RaftStateMachine},
};
use parking_lot::Mutex;
use seriatim_proto::ids::Offset;
use seriatim_runtime::hit;
use seriatim_storage::{Boundary, FrameKind, Log, LogId};

use crate::{
    AppliedEntry, AppliedPayload, AppliedState, Snapshot, StateMachine, codec,
    raft::{Data, RaftEntry, RaftLogId, StoredMembership, Types, from_raft, io_error, to_raft},
};

/// Entries handed to the state machine at once.
const BATCH: usize = 512;

/// One group's state machine as openraft sees it.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) machine: Arc<dyn StateMachine>,
    pub(crate) log: Log,
    /// The last entry applied, for status.
    pub(crate) applied: Arc<Mutex<Option<LogId>>>,
    /// Held while the boundary is replaced.
    pub(crate) saving: Arc<tokio::sync::Mutex<()>>,
}

impl Machine {
    fn stored(state: &AppliedState) -> io::Result<StoredMembership> {
        match &state.membership {
            Some(bytes) => codec::decode_stored(bytes.clone()).map_err(io_error),
            None => Ok(StoredMembership::default()),
        }
    }

    fn snapshot_of(snapshot: Snapshot) -> io::Result<SnapshotOf<Types, Snapshot>> {
        let meta = SnapshotMetaOf::<Types> {
            last_log_id: snapshot.state.log_id.map(to_raft),
            last_membership: Self::stored(&snapshot.state)?,
        };
        Ok(SnapshotOf::<Types, Snapshot> { meta, snapshot })
    }

    async fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        let Some(log_id) = snapshot.state.log_id else {
            return Ok(());
        };
        let _one_at_a_time = self.saving.lock().await;
        // One that was built may be overtaken by one that was installed, and must not replace it:
        // openraft has heard of the newer one, and the log may begin behind it.
        if self.log.boundary_id() >= Some(log_id) {
            hit!("consensus.snapshot.overtaken");
            return Ok(());
        }
        let boundary = Boundary {
            log_id,
            next_offset: snapshot.next_offset,
            membership: snapshot.state.membership.clone().unwrap_or_default(),
            state: snapshot.data.clone(),
        };
        self.log.save_boundary(boundary).await.map_err(io_error)
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, StoredMembership)> {
        let state = self.machine.applied_state().map_err(io_error)?;
        *self.applied.lock() = state.log_id;
        Ok((state.log_id.map(to_raft), Self::stored(&state)?))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(BATCH);
        while let Some(chunk) = chunks.next().await {
            let mut batch = Vec::with_capacity(chunk.len());
            let mut waiting = Vec::with_capacity(chunk.len());
            for item in chunk {
                let (entry, responder) = item?;
                batch.push(to_applied(entry)?);
                waiting.push(responder);
            }
            let last = batch.last().map(|entry| entry.log_id);
            if let Some(last) = last.filter(|_| self.machine.keeps_state()) {
                // Committed may be what only others have on disk. A state that survives a crash which its
                // log does not could not be gone on from.
                self.log.flushed(last.index).await.map_err(io_error)?;
            }
            let replies = self.machine.apply(batch).await.map_err(io_error)?;
            if replies.len() != waiting.len() {
                return Err(io::Error::other(
                    "the state machine must answer every entry",
                ));
            }
            if last.is_some() {
                *self.applied.lock() = last;
            }
            for (responder, reply) in waiting.into_iter().zip(replies) {
                if let Some(responder) = responder {
                    responder.send(reply);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        snapshot: Snapshot,
    ) -> io::Result<()> {
        hit!("consensus.snapshot.installed");
        self.save(&snapshot).await?;
        self.machine.install(snapshot).await.map_err(io_error)?;
        *self.applied.lock() = meta.last_log_id.as_ref().map(from_raft);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, Snapshot>>> {
        let Some(boundary) = self.log.boundary().await.map_err(io_error)? else {
            return Ok(None);
        };
        let membership = (!boundary.membership.is_empty()).then_some(boundary.membership);
        Self::snapshot_of(Snapshot {
            state: AppliedState {
                log_id: Some(boundary.log_id),
                membership,
            },
            next_offset: boundary.next_offset,
            data: boundary.state,
        })
        .map(Some)
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, Snapshot>> {
        let snapshot = self.machine.snapshot().await.map_err(io_error)?;
        self.save(&snapshot).await?;
        Self::snapshot_of(snapshot)
    }
}

pub(crate) fn to_applied(entry: RaftEntry) -> io::Result<AppliedEntry> {
    let log_id = from_raft(&entry.log_id);
    let (base_offset, payload) = match entry.payload {
        EntryPayload::Blank => (Offset(0), AppliedPayload::Blank),
        EntryPayload::Membership(membership) => {
            let stored = StoredMembership::new(Some(entry.log_id), membership);
            let bytes = codec::encode_stored(&stored);
            (Offset(0), AppliedPayload::Membership(bytes))
        }
        EntryPayload::Normal(Data::Command(bytes)) => (Offset(0), AppliedPayload::Command(bytes)),
        EntryPayload::Normal(Data::Head(head)) if head.header.kind == FrameKind::Command => (
            head.header.base_offset,
            AppliedPayload::Command(head.payload),
        ),
        EntryPayload::Normal(Data::Head(head)) => match head.batch {
            Some(batch) => (head.header.base_offset, AppliedPayload::Batch(batch)),
            None => return Err(io::Error::other("a batch without a header")),
        },
        EntryPayload::Normal(Data::Framed(frame)) => match frame.batch_header() {
            Some(batch) => (frame.base_offset(), AppliedPayload::Batch(batch)),
            None => return Err(io::Error::other("a batch without a header")),
        },
        EntryPayload::Normal(Data::Batch { .. }) => {
            return Err(io::Error::other("a batch that no log has stamped"));
        }
    };
    Ok(AppliedEntry {
        log_id,
        base_offset,
        payload,
    })
}
