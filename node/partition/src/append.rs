//! Appending: admission in order, submission to the group, the wait for the answer.

use std::{sync::Arc, time::Duration};

use seriatim_consensus::{Applied, GroupState, Pending, Proposal, ProposeError, Reply};
use seriatim_proto::{
    batch::RecordBatch,
    ids::{LeaderEpoch, Offset},
};
use seriatim_runtime::{
    clock, hit,
    mutant::{self, Mutant},
    task,
};
use tokio::{
    sync::{MutexGuard, futures::Notified, watch},
    time::{Instant, error::Elapsed},
};

use crate::{
    confirm::Unconfirmed,
    error::AppendError,
    machine::Machine,
    partition::{NotLeading, Partition, epoch, leading},
    retention,
    sequencer::{Decision, Ticket, Wait},
};

/// How long a batch waits for those of its producer that should have come before it. Requests that
/// were sent together arrive within a few milliseconds of each other; what is missing after this
/// was lost, and only the producer can send it again.
const GAP_PATIENCE: Duration = Duration::from_millis(200);

/// How long an append that came while leadership was handed over waits to hear who leads now.
const HANDOVER: Duration = Duration::from_secs(1);

/// Longest wait of one batch for old records to go.
const SLOWED: Duration = Duration::from_millis(20);

/// Pause between two looks at whether they went.
const LOOK: Duration = Duration::from_millis(2);

/// A batch to append.
#[derive(Debug, Clone)]
pub struct Append {
    /// The batch, as [`RecordBatch::from_producer`] gave it.
    pub batch: RecordBatch,
    /// Append only if the partition ends exactly here.
    pub expected_end: Option<Offset>,
    /// When to give up.
    pub deadline: Instant,
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// It had been appended by an earlier request.
    pub duplicate: bool,
    /// The first offset there is in the partition.
    pub log_start_offset: Offset,
}

/// What admission leads to.
enum Admitted {
    Stored(Offset),
    Submitted(InFlight),
}

impl Partition {
    /// Appends a batch; returns when it is committed, as durable as the topic's settings say.
    ///
    /// A batch of an idempotent producer that is in the log already, or on its way there, is not
    /// appended again but answered with its place. Batches of one producer may be given all at once,
    /// up to five; they are appended in order of their sequence numbers.
    ///
    /// Dropping the future does not take the batch back.
    pub async fn append(&self, request: Append) -> Result<Appended, AppendError> {
        let bytes = request.batch.header.total_bytes();
        let limit = self.inner.settings.read().max_message_bytes as usize;
        if bytes > limit {
            return Err(AppendError::TooLarge { bytes, limit });
        }
        let deadline = request.deadline;
        let (base_offset, duplicate) = match self.admit(request).await? {
            Admitted::Stored(base_offset) => (base_offset, true),
            Admitted::Submitted(in_flight) => (in_flight.answer(self, deadline).await?, false),
        };
        Ok(Appended {
            base_offset,
            duplicate,
            log_start_offset: self.inner.machine.log().log_start_offset(),
        })
    }

    async fn admit(&self, request: Append) -> Result<Admitted, AppendError> {
        let header = request.batch.header;
        let machine = &self.inner.machine;
        let mut state = self.inner.state.clone();
        let mut order = Some(self.in_order(request.deadline).await?);
        let mut gap_ends = None;
        // Whether a majority has confirmed, since the batch came, that this replica leads: what it knows
        // about producers and about the end of the log is the truth then.
        let mut confirmed = false;
        loop {
            let changed = machine.progress().notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            let _ = changed.as_mut().enable();
            let term = leading(&state.borrow_and_update()).map_err(AppendError::from)?;
            let refusals = self.inner.group.refusals();
            let decision = machine.decide((term, refusals), &header, request.expected_end);
            // Until when a change may still help, and the answer after that.
            let mut until = request.deadline;
            let mut refusal = None;
            match decision {
                Some(Decision::Submit(ticket)) => {
                    return self.submit(ticket, term, request.batch).await;
                }
                Some(Decision::Duplicate(_)) if mutant::on(Mutant::DuplicateWrongOffset) => {
                    return Ok(Admitted::Stored(machine.high_watermark()));
                }
                Some(Decision::Duplicate(stored)) => {
                    hit!("partition.append.duplicate");
                    return Ok(Admitted::Stored(stored.base_offset));
                }
                Some(Decision::WrongEnd(actual)) => {
                    hit!("partition.append.wrong-end");
                    let expected = request.expected_end.unwrap_or_default();
                    // A log only grows: what ends behind it here does so everywhere.
                    confirmed |= expected < actual;
                    until = clock::now();
                    refusal = Some(AppendError::WrongEndOffset { expected, actual });
                }
                Some(Decision::Refuse(error)) => {
                    hit!("partition.append.refused");
                    until = clock::now();
                    refusal = Some(AppendError::sequence(error, &header));
                }
                // Others must not overtake: nothing may be submitted until all is answered.
                Some(Decision::Wait(Wait::Drain)) | None => hit!("partition.append.drained"),
                Some(Decision::Wait(Wait::InFlight)) => {
                    hit!("partition.append.in-flight");
                    order = None;
                }
                Some(Decision::Wait(Wait::Gap(error))) => {
                    hit!("partition.append.gap");
                    order = None;
                    let ends = *gap_ends.get_or_insert_with(|| clock::now() + GAP_PATIENCE);
                    if ends < request.deadline {
                        until = ends;
                        refusal = Some(AppendError::sequence(error, &header));
                    }
                }
            }
            if wait(changed, &mut state, until).await.is_err() {
                match refusal {
                    None => return Err(not_in_time()),
                    Some(refusal) if confirmed => return Err(refusal),
                    Some(_) => {
                        // Others need not wait for the answers of the replicas.
                        order = None;
                        self.confirm(request.deadline).await?;
                        confirmed = true;
                    }
                }
            }
            if order.is_none() {
                order = Some(self.in_order(request.deadline).await?);
            }
        }
    }

    async fn in_order(&self, deadline: Instant) -> Result<MutexGuard<'_, ()>, AppendError> {
        clock::timeout_at(deadline, self.inner.order.lock())
            .await
            .map_err(|_elapsed| not_in_time())
    }

    /// Submits a batch; the caller holds the order.
    async fn submit(
        &self,
        ticket: Ticket,
        term: u64,
        batch: RecordBatch,
    ) -> Result<Admitted, AppendError> {
        let mut in_flight = InFlight {
            machine: Arc::clone(&self.inner.machine),
            ticket,
            pending: None,
            resolved: false,
        };
        // Looked at here and not earlier, so that a batch that is in the log is answered all the same.
        if self.inner.storage.is_disk_full() {
            hit!("partition.append.disk-full");
            in_flight.resolve(false);
            return Err(AppendError::DiskFull);
        }
        self.slow_down().await;
        let proposal = Proposal::Batch {
            after: ticket.after(),
            batch,
        };
        match self.inner.group.submit(proposal, term).await {
            Ok(pending) => {
                in_flight.pending = Some(pending);
                // The next of this producer may be waiting for this one.
                self.inner.machine.progress().notify_waiters();
                Ok(Admitted::Submitted(in_flight))
            }
            Err(error) => {
                in_flight.resolve(false);
                Err(proposed(error, term))
            }
        }
    }
}

impl Partition {
    /// Waits a little while the log is longer than its retention allows, which is so where old records
    /// go more slowly than new ones come. The caller holds the order, so this slows all appends; none
    /// of them waits for long, whatever holds the old records up.
    async fn slow_down(&self) {
        let Some(limit) = retention::crowded_bytes(&self.inner.settings.read()) else {
            return;
        };
        let log = self.inner.machine.log();
        let mut left = SLOWED;
        while log.size_bytes() > limit && !left.is_zero() {
            clock::sleep(LOOK).await;
            left = left.saturating_sub(LOOK);
        }
    }
}

/// Waits until a decision may have changed.
async fn wait(
    changed: std::pin::Pin<&mut Notified<'_>>,
    state: &mut watch::Receiver<GroupState>,
    until: Instant,
) -> Result<(), Elapsed> {
    let any = async {
        tokio::select! {
            biased;
            // Without a sender the group has stopped: the state says so.
            _ = state.changed() => {}
            () = changed => {}
        }
    };
    clock::timeout_at(until, any).await
}

/// A submission without an answer. However it ends, the sequencer hears of it.
struct InFlight {
    machine: Arc<Machine>,
    ticket: Ticket,
    /// Invariant: `None` only before the submission was enqueued or after the answer came.
    pending: Option<Pending>,
    resolved: bool,
}

impl InFlight {
    async fn answer(
        mut self,
        partition: &Partition,
        deadline: Instant,
    ) -> Result<Offset, AppendError> {
        let term = partition.inner.state.borrow().term;
        let Some(pending) = self.pending.as_mut() else {
            return Err(not_in_time());
        };
        let answer = clock::timeout_at(deadline, pending)
            .await
            .map_err(|_elapsed| AppendError::Timeout {
                maybe_applied: true,
            })?;
        self.pending = None;
        self.resolve(is_stored(&answer));
        match answer {
            Ok(Applied {
                reply: Reply::Batch { base_offset },
                ..
            }) => Ok(base_offset),
            // A batch before it was refused because the leader had lost touch.
            Ok(Applied {
                reply: Reply::None, ..
            }) => Err(AppendError::NoMajority),
            Ok(applied) => Err(AppendError::Stopped {
                reason: format!("a batch was answered with {:?}", applied.reply),
                maybe_applied: true,
            }),
            Err(ProposeError::NotLeader {
                maybe_applied: false,
                ..
            }) => {
                hit!("partition.append.not-leader");
                // Leadership is on its way to another replica: the caller should hear which.
                let left = deadline.saturating_duration_since(clock::now());
                let group = &partition.inner.group;
                group.until_handed_over(left.min(HANDOVER)).await;
                Err(not_leading(partition))
            }
            Err(error) => Err(proposed(error, term)),
        }
    }

    fn resolve(&mut self, stored: bool) {
        if !std::mem::replace(&mut self.resolved, true) {
            self.machine.resolve(self.ticket, stored);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.resolved {
            return;
        }
        hit!("partition.append.abandoned");
        // Its caller gave up. The sequencer must hear of the answer all the same.
        let on_runtime = tokio::runtime::Handle::try_current().is_ok();
        match self.pending.take() {
            Some(pending) if on_runtime => {
                let (machine, ticket) = (Arc::clone(&self.machine), self.ticket);
                drop(task::spawn("append-without-caller", async move {
                    let stored = is_stored(&pending.await);
                    machine.resolve(ticket, stored);
                }));
            }
            // Never enqueued; or the process ends.
            _ => self.resolve(false),
        }
    }
}

impl From<NotLeading> for AppendError {
    fn from(not: NotLeading) -> Self {
        match not.failed {
            Some(reason) => Self::Stopped {
                reason,
                maybe_applied: false,
            },
            None => Self::NotLeader {
                leader: not.leader,
                epoch: not.epoch,
                maybe_applied: false,
            },
        }
    }
}

impl From<Unconfirmed> for AppendError {
    fn from(why: Unconfirmed) -> Self {
        match why {
            Unconfirmed::NotLeading(not) => not.into(),
            Unconfirmed::NotReady | Unconfirmed::NoMajority => Self::NoMajority,
        }
    }
}

/// Whether the answer says that the batch is in the log.
fn is_stored(answer: &Result<Applied, ProposeError>) -> bool {
    matches!(answer, Ok(applied) if matches!(applied.reply, Reply::Batch { .. }))
}

/// The batch was not submitted before its deadline.
fn not_in_time() -> AppendError {
    AppendError::Timeout {
        maybe_applied: false,
    }
}

/// What to tell the caller of a proposal that was refused because this replica did not lead.
fn not_leading(partition: &Partition) -> AppendError {
    match leading(&partition.inner.state.borrow()) {
        Err(not) => not.into(),
        // It leads again, in another term.
        Ok(_term) => AppendError::NotLeader {
            leader: None,
            epoch: LeaderEpoch::default(),
            maybe_applied: false,
        },
    }
}

/// What a refused proposal means to the caller.
fn proposed(error: ProposeError, term: u64) -> AppendError {
    match error {
        ProposeError::NotLeader {
            leader,
            maybe_applied,
        } => AppendError::NotLeader {
            leader,
            epoch: leader.map_or(LeaderEpoch::default(), |_| epoch(term)),
            maybe_applied,
        },
        ProposeError::LeaseExpired => AppendError::NoMajority,
        ProposeError::Stopped(reason) => AppendError::Stopped {
            reason,
            maybe_applied: true,
        },
    }
}
