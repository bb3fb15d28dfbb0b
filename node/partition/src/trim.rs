//! Moving the start of the records: for retention, on request, and then dropping the log before it.

use std::{sync::Arc, time::Duration};

use seriatim_consensus::{Applied, Group, Proposal, ProposeError, Reply};
use seriatim_proto::{batch::BatchHeader, ids::Offset};
use seriatim_runtime::{
    clock,
    mutant::{self, Mutant},
    task,
};
use tokio::time::Instant;

use crate::{
    command::{Command, LogStart, Outcome},
    confirm::Unconfirmed,
    error::TrimError,
    machine::Machine,
    partition::{Partition, leading},
    retention,
};

/// Pause before the log is tried to be dropped again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a retention pass waits for its command.
const RETAIN: Duration = Duration::from_secs(10);

impl Partition {
    /// Looks once after old records: seals a file that is old, on every replica, and on the leader
    /// moves the log start over what is too old or too much. Returns the new start where it moved.
    pub async fn retain(&self, now_ms: i64) -> Result<Option<Offset>, TrimError> {
        let settings = self.settings();
        let log = self.inner.machine.log();
        self.roll_if_due(now_ms).await?;
        let leads = leading(&self.inner.state.borrow()).is_ok();
        let applied = self.inner.machine.applied();
        let (true, Some(applied)) = (leads, applied) else {
            return Ok(None);
        };
        let place = (log.log_start_offset(), applied.index);
        let Some(cut) = retention::cut(&log.segments(), &settings, place, now_ms) else {
            return Ok(None);
        };
        let start = LogStart {
            offset: cut.offset,
            upto: Some(cut.upto),
        };
        self.begin_at(start, clock::now() + RETAIN).await.map(Some)
    }

    /// Removes the records below `offset`, which may be the end. Returns where they begin now.
    ///
    /// Dropping the future does not take it back.
    pub async fn trim(&self, offset: Offset, deadline: Instant) -> Result<Offset, TrimError> {
        let machine = &self.inner.machine;
        let end = self.end_for(offset, deadline).await?;
        if offset > end || offset < Offset(0) {
            return Err(TrimError::OutOfRange { offset, end });
        }
        if offset <= machine.log().log_start_offset() {
            return Ok(machine.log().log_start_offset());
        }
        let applied = machine.applied().map_or(0, |applied| applied.index);
        let upto = retention::last_below(&machine.log().segments(), offset, applied);
        self.begin_at(LogStart { offset, upto }, deadline).await
    }

    /// Replicates a log start.
    async fn begin_at(&self, start: LogStart, deadline: Instant) -> Result<Offset, TrimError> {
        let term = leading(&self.inner.state.borrow()).map_err(Unconfirmed::NotLeading)?;
        let raise = || self.inner.machine.log().raise_start_offset(start.offset);
        if mutant::on(Mutant::TrimBeforeCommit) {
            raise();
        }
        let proposal = Proposal::Command(Command::LogStart(start).encode());
        let pending = self.inner.group.submit(proposal, term).await?;
        let timeout = |_elapsed| TrimError::Timeout;
        let applied = clock::timeout_at(deadline, pending)
            .await
            .map_err(timeout)??;
        match applied {
            Applied {
                reply: Reply::Command(bytes),
                ..
            } => match Outcome::decode(bytes) {
                Some(Outcome::Start(offset)) => {
                    if mutant::on(Mutant::LogStartOnlyOnLeader) {
                        raise();
                    }
                    Ok(offset)
                }
                Some(Outcome::Beyond(end)) => Err(TrimError::OutOfRange {
                    offset: start.offset,
                    end,
                }),
                None => Err(TrimError::Stopped(
                    "an answer of another version".to_owned(),
                )),
            },
            other => Err(TrimError::Stopped(format!(
                "a log start was answered with {:?}",
                other.reply
            ))),
        }
    }

    /// Seals the file that is written to if its first record is old.
    async fn roll_if_due(&self, now_ms: i64) -> Result<(), TrimError> {
        let settings = self.settings();
        let log = self.inner.machine.log();
        let segments = log.segments();
        let Some(active) = segments.last().filter(|segment| !segment.sealed) else {
            return Ok(());
        };
        if active.next_offset == active.base_offset {
            return Ok(());
        }
        let known = *self.inner.first_record.lock();
        let first_ms = match known {
            Some((base, first_ms)) if base == active.base_offset => first_ms,
            _ => {
                let from = active.base_offset.max(log.log_start_offset());
                let pieces = log.read_batches(from, active.next_offset, 1).await?;
                let Some(header) = pieces.first().and_then(|it| BatchHeader::parse(it).ok()) else {
                    return Ok(());
                };
                *self.inner.first_record.lock() = Some((active.base_offset, header.base_timestamp));
                header.base_timestamp
            }
        };
        if retention::is_due_to_roll(&settings, first_ms, now_ms) {
            log.roll().await?;
        }
        Ok(())
    }
}

/// Drops the log up to where it may be, whenever that has moved; ends with the partition.
pub(crate) async fn drop_log(group: Group, machine: Arc<Machine>) {
    let mut droppable = machine.droppable();
    loop {
        let upto = *droppable.borrow_and_update();
        if let Some(upto) = upto
            && machine
                .log()
                .purged_log_id()
                .is_none_or(|purged| purged < upto)
            && let Err(error) = group.compact(upto).await
        {
            if group.state().borrow().failed.is_some() {
                return;
            }
            tracing::warn!(group = group.name(), %error, "drop the old part of the log");
            clock::sleep(AGAIN).await;
            continue;
        }
        if droppable.changed().await.is_err() {
            return;
        }
    }
}

/// Starts [`drop_log`].
pub(crate) fn start(group: &Group, machine: &Arc<Machine>) -> task::JoinHandle<()> {
    let (group, machine) = (group.clone(), Arc::clone(machine));
    task::spawn("partition-drop-log", drop_log(group, machine))
}

impl From<Unconfirmed> for TrimError {
    fn from(why: Unconfirmed) -> Self {
        match why {
            Unconfirmed::NotLeading(not) => match not.failed {
                Some(reason) => Self::Stopped(reason),
                None => Self::NotLeader { leader: not.leader },
            },
            Unconfirmed::NotReady => Self::NotReady,
            Unconfirmed::NoMajority => Self::NoMajority,
        }
    }
}

impl From<ProposeError> for TrimError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader, .. } => Self::NotLeader { leader },
            ProposeError::LeaseExpired => Self::NoMajority,
            ProposeError::Stopped(why) => Self::Stopped(why),
        }
    }
}
