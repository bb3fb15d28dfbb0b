//! The state of one partition's replica, and how entries of the log change it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use seriatim_consensus::{
    AppliedEntry, AppliedPayload, AppliedState, Reply, SmError, Snapshot, StateMachine,
};
use seriatim_proto::{
    batch::BatchHeader,
    ids::{Offset, TopicPartition},
};
use seriatim_runtime::task;
use seriatim_storage::{Log, LogId};
use tokio::sync::{Notify, watch};

use crate::{
    error::PartitionError,
    producer_table::ProducerTable,
    sequencer::{Decision, Sequencer, Ticket, View},
    table_codec::{Checkpoint, decode_table, encode_checkpoint, encode_table},
};

/// Applied bytes after which a checkpoint is written: what a restart reads again at most.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// What applying the log leads to, and what this leader has on its way.
#[derive(Debug, Default)]
struct Core {
    /// The last entry applied.
    applied: Option<LogId>,
    /// The last membership applied; opaque.
    membership: Option<Bytes>,
    /// End of the applied batches. Invariant: never goes down, and equals the base offset of the next
    /// batch that is applied.
    high_watermark: Offset,
    table: ProducerTable,
    sequencer: Sequencer,
    /// Bytes of batches applied since the last checkpoint.
    since_checkpoint: u64,
}

/// A partition's replica: the state machine of its Raft group.
#[derive(Debug)]
pub(crate) struct Machine {
    name: TopicPartition,
    log: Log,
    core: Mutex<Core>,
    /// Invariant: equals the core's, or is behind it while `apply` runs.
    high_watermark: watch::Sender<Offset>,
    /// Told whenever a decision that was to wait may now be another.
    progress: Notify,
    /// Whether a checkpoint is being written.
    checkpointing: AtomicBool,
}

impl Machine {
    /// The state as of the checkpoint or the boundary of the log, whichever is later.
    pub(crate) fn load(name: TopicPartition, log: Log) -> Result<Arc<Self>, PartitionError> {
        let mut core = Core::default();
        if let Some(boundary) = log.boundary() {
            core.applied = Some(boundary.log_id);
            core.membership = Some(boundary.membership).filter(|bytes| !bytes.is_empty());
            core.high_watermark = boundary.next_offset;
            core.table = decode_table(boundary.state)?;
        }
        if let Some((at, bytes)) = log.checkpoint()
            && core.applied.is_none_or(|boundary| at > boundary)
        {
            let checkpoint = Checkpoint::decode(bytes)?;
            core.applied = Some(at);
            core.membership = checkpoint.membership;
            core.high_watermark = checkpoint.next_offset;
            core.table = checkpoint.table;
        }
        Ok(Arc::new(Self {
            name,
            log,
            high_watermark: watch::Sender::new(core.high_watermark),
            core: Mutex::new(core),
            progress: Notify::new(),
            checkpointing: AtomicBool::new(false),
        }))
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn progress(&self) -> &Notify {
        &self.progress
    }

    /// Follows the high watermark.
    pub(crate) fn watch(&self) -> watch::Receiver<Offset> {
        self.high_watermark.subscribe()
    }

    /// End of the applied batches.
    pub(crate) fn high_watermark(&self) -> Offset {
        self.core.lock().high_watermark
    }

    /// Batches submitted by this leader that wait for their answers.
    pub(crate) fn in_flight(&self) -> usize {
        self.core.lock().sequencer.in_flight()
    }

    /// The high watermark, if an entry of this term, in which this replica leads, is applied:
    /// only then does it know of everything that earlier leaders committed.
    pub(crate) fn ready(&self, term: u64) -> Option<Offset> {
        let core = self.core.lock();
        let ready = core.applied.is_some_and(|applied| applied.term == term);
        ready.then_some(core.high_watermark)
    }

    /// Decides about a batch; `None` before an entry of this term is applied.
    pub(crate) fn decide(
        &self,
        term: u64,
        header: &BatchHeader,
        expected_end: Option<Offset>,
    ) -> Option<Decision> {
        let mut core = self.core.lock();
        if core.applied.is_none_or(|applied| applied.term != term) {
            return None;
        }
        let Core {
            table,
            sequencer,
            high_watermark,
            ..
        } = &mut *core;
        let view = View {
            table,
            high_watermark: *high_watermark,
            log_end: self.log.next_offset(),
            term,
        };
        Some(sequencer.decide(view, header, expected_end))
    }

    /// Takes note of the answer to a submission.
    pub(crate) fn resolve(&self, ticket: Ticket, stored: bool) {
        self.core.lock().sequencer.resolve(ticket, stored);
        self.progress.notify_waiters();
    }

    /// Writes a checkpoint of what is applied, so that a restart has less to read.
    pub(crate) async fn checkpoint(&self) {
        let Some((at, data)) = self.core.lock().take_checkpoint() else {
            return;
        };
        // Without it the last one counts, and more of the log is read again.
        if let Err(error) = self.log.save_checkpoint(at, data).await {
            tracing::warn!(partition = %self.name, %error, "save a checkpoint");
        }
    }
}

impl Core {
    fn take_checkpoint(&mut self) -> Option<(LogId, Bytes)> {
        let at = self.applied?;
        self.since_checkpoint = 0;
        let data = encode_checkpoint(self.high_watermark, self.membership.as_ref(), &self.table);
        Some((at, data))
    }

    fn apply(&mut self, entry: AppliedEntry) -> Result<Reply, SmError> {
        let reply = match entry.payload {
            AppliedPayload::Batch(header) => {
                if entry.base_offset != self.high_watermark {
                    return Err(SmError::new(format!(
                        "entry {} has base offset {}, but the entries before it end at {}",
                        entry.log_id, entry.base_offset, self.high_watermark
                    )));
                }
                self.table
                    .apply(entry.log_id.index, entry.base_offset, &header);
                self.high_watermark = Offset(entry.base_offset.0 + i64::from(header.record_count));
                self.since_checkpoint += header.total_bytes() as u64;
                Reply::Batch {
                    base_offset: entry.base_offset,
                }
            }
            AppliedPayload::Membership(membership) => {
                self.membership = Some(membership);
                Reply::None
            }
            // No command is known at this feature level; one that is here was written by a newer
            // version, and passing over it would make this replica differ from the others.
            AppliedPayload::Command(_) => {
                return Err(SmError::new(format!(
                    "entry {} is a command that this version does not know",
                    entry.log_id
                )));
            }
            AppliedPayload::Blank => Reply::None,
        };
        self.applied = Some(entry.log_id);
        Ok(reply)
    }
}

/// The machine as consensus holds it: shared, because a checkpoint outlives the call that starts it.
#[derive(Debug)]
pub(crate) struct Handle(pub(crate) Arc<Machine>);

#[async_trait]
impl StateMachine for Handle {
    fn applied_state(&self) -> Result<AppliedState, SmError> {
        let core = self.0.core.lock();
        Ok(AppliedState {
            log_id: core.applied,
            membership: core.membership.clone(),
        })
    }

    async fn apply(&self, entries: Vec<AppliedEntry>) -> Result<Vec<Reply>, SmError> {
        let machine = &self.0;
        let (replies, high_watermark, due) = {
            let mut core = machine.core.lock();
            let replies: Result<Vec<Reply>, SmError> =
                entries.into_iter().map(|entry| core.apply(entry)).collect();
            let due = core.since_checkpoint >= CHECKPOINT_BYTES;
            (replies?, core.high_watermark, due)
        };
        let _ = machine.high_watermark.send_if_modified(|published| {
            let changed = *published != high_watermark;
            *published = high_watermark;
            changed
        });
        machine.progress.notify_waiters();
        if due && !machine.checkpointing.swap(true, Ordering::AcqRel) {
            let machine = Arc::clone(machine);
            drop(task::spawn("partition-checkpoint", async move {
                machine.checkpoint().await;
                machine.checkpointing.store(false, Ordering::Release);
            }));
        }
        Ok(replies)
    }

    async fn snapshot(&self) -> Result<Snapshot, SmError> {
        let core = self.0.core.lock();
        Ok(Snapshot {
            state: AppliedState {
                log_id: core.applied,
                membership: core.membership.clone(),
            },
            next_offset: core.high_watermark,
            data: encode_table(&core.table),
        })
    }

    async fn install(&self, snapshot: Snapshot) -> Result<(), SmError> {
        let table = decode_table(snapshot.data).map_err(|error| SmError::new(error.to_string()))?;
        {
            let mut core = self.0.core.lock();
            core.applied = snapshot.state.log_id;
            core.membership = snapshot.state.membership;
            core.high_watermark = snapshot.next_offset;
            core.table = table;
            core.sequencer = Sequencer::default();
        }
        let _ = self.0.high_watermark.send_replace(snapshot.next_offset);
        self.0.progress.notify_waiters();
        Ok(())
    }
}
