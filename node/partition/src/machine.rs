//! The state of one partition's replica, and how entries of the log change it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use seriatim_consensus::{
    AppliedEntry, AppliedPayload, AppliedState, ReplayError, Reply, SmError, Snapshot,
    StateMachine, applied_entries,
};
use seriatim_proto::{
    batch::BatchHeader,
    ids::{Offset, TopicPartition},
};
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
    task,
};
use seriatim_storage::{Log, LogId};
use tokio::sync::{Notify, watch};

use crate::{
    command::LogStart,
    error::PartitionError,
    producer_table::ProducerTable,
    sequencer::{Decision, Sequencer, Ticket, View},
    state::State,
    table_codec::encode_checkpoint,
};

/// Applied bytes after which a checkpoint is written: what a restart reads again at most.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// What applying the log leads to, and what this leader has on its way.
#[derive(Debug, Default)]
struct Core {
    state: State,
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
    /// Up to where the log may be dropped. Invariant: as in the core's log start, or behind it while
    /// `apply` runs.
    droppable: watch::Sender<Option<LogId>>,
    /// Told whenever a decision that was to wait may now be another.
    progress: Notify,
    /// Whether a checkpoint is being written.
    checkpointing: AtomicBool,
}

impl Machine {
    /// The state as of the checkpoint or the boundary of the log, whichever is later.
    pub(crate) async fn load(name: TopicPartition, log: Log) -> Result<Arc<Self>, PartitionError> {
        let state = load(&log).await?;
        if !mutant::on(Mutant::LogStartOnlyOnLeader) {
            log.raise_start_offset(state.log_start.offset);
        }
        Ok(Arc::new(Self {
            name,
            log,
            high_watermark: watch::Sender::new(state.high_watermark),
            droppable: watch::Sender::new(state.log_start.upto),
            core: Mutex::new(Core {
                state,
                ..Core::default()
            }),
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

    /// Follows up to where the log may be dropped.
    pub(crate) fn droppable(&self) -> watch::Receiver<Option<LogId>> {
        self.droppable.subscribe()
    }

    /// The last entry applied.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.core.lock().state.applied
    }

    /// Follows the high watermark.
    pub(crate) fn watch(&self) -> watch::Receiver<Offset> {
        self.high_watermark.subscribe()
    }

    /// End of the applied batches.
    pub(crate) fn high_watermark(&self) -> Offset {
        self.core.lock().state.high_watermark
    }

    /// Batches submitted by this leader that wait for their answers.
    pub(crate) fn in_flight(&self) -> usize {
        self.core.lock().sequencer.in_flight()
    }

    /// The high watermark, if an entry of this term, in which this replica leads, is applied:
    /// only then does it know of everything that earlier leaders committed.
    pub(crate) fn ready(&self, term: u64) -> Option<Offset> {
        let core = self.core.lock();
        let ready = core
            .state
            .applied
            .is_some_and(|applied| applied.term == term);
        ready.then_some(core.state.high_watermark)
    }

    /// Decides about a batch, with so many refusals of the group in view; `None` before an entry of this
    /// term is applied.
    pub(crate) fn decide(
        &self,
        (term, refusals): (u64, u64),
        header: &BatchHeader,
        expected_end: Option<Offset>,
    ) -> Option<Decision> {
        let mut core = self.core.lock();
        if core
            .state
            .applied
            .is_none_or(|applied| applied.term != term)
            && !mutant::on(Mutant::DecidesBeforeReady)
        {
            return None;
        }
        let Core {
            state, sequencer, ..
        } = &mut *core;
        if mutant::on(Mutant::ProducersLostOnFailover) && sequencer.is_new(term) {
            state.table = ProducerTable::default();
        }
        let view = View {
            table: &state.table,
            high_watermark: state.high_watermark,
            log_end: self.log.next_offset(),
            term,
            refusals,
        };
        Some(sequencer.decide(view, header, expected_end))
    }

    /// Takes note of the answer to a submission.
    pub(crate) fn resolve(&self, ticket: Ticket, stored: bool) {
        self.core.lock().sequencer.resolve(ticket, stored);
        self.progress.notify_waiters();
    }

    /// Tells everybody how far the log is applied and where it begins.
    fn publish(&self, high_watermark: Offset, log_start: &LogStart) {
        if !mutant::on(Mutant::LogStartOnlyOnLeader) {
            self.log.raise_start_offset(log_start.offset);
        }
        let _ = self.high_watermark.send_if_modified(|published| {
            let changed = *published != high_watermark;
            *published = high_watermark;
            changed
        });
        let _ = self.droppable.send_if_modified(|published| {
            let changed = *published != log_start.upto;
            *published = log_start.upto;
            changed
        });
        self.progress.notify_waiters();
    }

    /// The state as of an applied entry, or of a boundary behind it: from the last state that is
    /// stored, by applying what follows it again.
    pub(crate) async fn state_at(&self, upto: LogId) -> Result<State, SmError> {
        let failed =
            |error: &dyn std::error::Error| SmError::new(seriatim_proto::error::chain(error));
        loop {
            let boundary = self.log.boundary().await.map_err(|error| failed(&error))?;
            let known = boundary.as_ref().map(|boundary| boundary.log_id);
            let mut state = match boundary {
                Some(boundary) => State::of_boundary(boundary).map_err(|error| failed(&error))?,
                None => State::default(),
            };
            if let Some((at, bytes)) = self.log.checkpoint()
                && at <= upto
                && Some(at) > state.applied
            {
                state = State::of_checkpoint(at, bytes).map_err(|error| failed(&error))?;
            }
            match self.replay(&mut state, upto).await {
                Ok(()) => return Ok(state),
                // Another boundary was installed meanwhile, and what it stands for is gone.
                Err(_) if self.log.boundary_id() > known => {
                    hit!("partition.boundary.moved");
                }
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    async fn replay(&self, state: &mut State, upto: LogId) -> Result<(), ReplayError> {
        while state.next_index() <= upto.index {
            let mut range = state.next_index()..upto.index + 1;
            if mutant::on(Mutant::BoundaryOffByOne) {
                range.end = upto.index;
            }
            for entry in applied_entries(&self.log, range).await? {
                let _reply = state
                    .apply(entry)
                    .map_err(|error| ReplayError::Malformed(error.to_string()))?;
            }
            if mutant::on(Mutant::BoundaryOffByOne) {
                state.applied = Some(upto);
            }
        }
        Ok(())
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
        let state = &self.state;
        let at = state.applied?;
        self.since_checkpoint = 0;
        let data = encode_checkpoint(
            state.high_watermark,
            state.membership.as_ref(),
            &state.log_start,
            &state.table,
        );
        Some((at, data))
    }

    fn apply(&mut self, entry: AppliedEntry) -> Result<Reply, SmError> {
        if let AppliedPayload::Batch(header) = &entry.payload {
            self.since_checkpoint += header.total_bytes() as u64;
        }
        self.state.apply(entry)
    }
}

/// The state as of the checkpoint or the boundary of the log, whichever is later.
async fn load(log: &Log) -> Result<State, PartitionError> {
    let boundary = log.boundary().await?;
    let boundary = boundary.map(State::of_boundary).transpose()?;
    let state = boundary.unwrap_or_default();
    match log.checkpoint() {
        Some((at, bytes)) if state.applied.is_none_or(|boundary| at > boundary) => {
            Ok(State::of_checkpoint(at, bytes)?)
        }
        _ => Ok(state),
    }
}

/// The machine as consensus holds it: shared, because a checkpoint outlives the call that starts it.
#[derive(Debug)]
pub(crate) struct Handle(pub(crate) Arc<Machine>);

#[async_trait]
impl StateMachine for Handle {
    fn applied_state(&self) -> Result<AppliedState, SmError> {
        Ok(self.0.core.lock().state.applied_state())
    }

    async fn apply(&self, entries: Vec<AppliedEntry>) -> Result<Vec<Reply>, SmError> {
        let machine = &self.0;
        let (replies, high_watermark, log_start, due) = {
            let mut core = machine.core.lock();
            let replies: Result<Vec<Reply>, SmError> =
                entries.into_iter().map(|entry| core.apply(entry)).collect();
            let due = core.since_checkpoint >= CHECKPOINT_BYTES;
            let state = &core.state;
            (replies?, state.high_watermark, state.log_start, due)
        };
        machine.publish(high_watermark, &log_start);
        if due && !machine.checkpointing.swap(true, Ordering::AcqRel) {
            let machine = Arc::clone(machine);
            drop(task::spawn("partition-checkpoint", async move {
                machine.checkpoint().await;
                machine.checkpointing.store(false, Ordering::Release);
            }));
        }
        Ok(replies)
    }

    /// Of the entry up to which the log may be dropped: the log after it stays what followers read,
    /// and the boundary must be one that it can begin at.
    async fn snapshot(&self) -> Result<Snapshot, SmError> {
        let machine = &self.0;
        let upto = machine.core.lock().state.log_start.upto;
        match upto {
            Some(upto) => Ok(machine.state_at(upto).await?.to_snapshot()),
            None => Ok(machine.core.lock().state.to_snapshot()),
        }
    }

    async fn install(&self, snapshot: Snapshot) -> Result<(), SmError> {
        let state =
            State::of_snapshot(snapshot).map_err(|error| SmError::new(error.to_string()))?;
        hit!("partition.boundary.installed");
        let (high_watermark, log_start) = (state.high_watermark, state.log_start);
        {
            let mut core = self.0.core.lock();
            core.state = state;
            core.sequencer = Sequencer::default();
        }
        self.0.publish(high_watermark, &log_start);
        Ok(())
    }
}
