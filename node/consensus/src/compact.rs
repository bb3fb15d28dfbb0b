//! Shortening a group's log: first a boundary, then the entries before it.
//!
//! Partitions say themselves where their log is to begin ([`Group::compact`]). Groups whose state
//! machine holds everything ([`crate::StateMachine::compact_after_bytes`]) are watched from here,
//! on every replica by itself: what one replica drops is no concern of the others, who get a
//! snapshot where they need what is gone.

use std::{sync::Arc, time::Duration};

use openraft::async_runtime::watch::WatchReceiver as _;
use seriatim_runtime::{
    clock::{self, Instant},
    hit,
};
use seriatim_storage::LogId;

use crate::{ConsensusError, Group, raft::from_raft, registry::Groups};

/// How often the sizes of logs are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long building a snapshot may take.
const BUILD: Duration = Duration::from_secs(120);

/// How long the entries of a group that is all state wait for a follower that is being sent them,
/// because its snapshot may be large. The boundary of a partition is not: its log waits for nobody.
const FOLLOWERS: Duration = Duration::from_secs(2);

/// How long a purge may take after that.
const PURGE: Duration = Duration::from_secs(20);

const STEP: Duration = Duration::from_millis(10);

impl Group {
    /// Makes the log begin behind `upto` on this replica: stores a boundary at or behind it, unless
    /// there is one, then purges. `upto` MUST be applied. May be repeated.
    pub async fn compact(&self, upto: LogId) -> Result<(), ConsensusError> {
        if self.purged() >= Some(upto.index) {
            return Ok(());
        }
        self.ensure_boundary(upto).await?;
        let trigger = self.raft().trigger();
        let asked = Box::pin(trigger.purge_log(upto.index)).await;
        asked.map_err(|fatal| ConsensusError::Stopped(fatal.to_string()))?;
        let began = clock::now();
        let mut cut_off = false;
        let patience = match self.compact_after_bytes() {
            Some(_) => FOLLOWERS,
            None => Duration::ZERO,
        };
        while self.purged() < Some(upto.index) {
            self.running()?;
            if !cut_off && began.elapsed() >= patience {
                // openraft keeps what is on its way to a follower, however slow that is.
                cut_off = true;
                self.withhold(upto.index);
            }
            late(began, PURGE, "purge the log")?;
            clock::sleep(STEP).await;
        }
        Ok(())
    }

    /// Waits for a boundary at or behind `upto` that openraft knows of.
    async fn ensure_boundary(&self, upto: LogId) -> Result<(), ConsensusError> {
        let began = clock::now();
        let mut asked = None;
        while self.snapshot() < Some(upto.index) {
            self.running()?;
            // One that was on its way already may end before `upto`; while it is, asking does nothing.
            if asked.is_none_or(|at: Instant| at.elapsed() >= LOOK) {
                asked = Some(clock::now());
                let trigger = self.raft().trigger();
                let triggered = Box::pin(trigger.snapshot()).await;
                triggered.map_err(|fatal| ConsensusError::Stopped(fatal.to_string()))?;
            }
            late(began, BUILD, "build a snapshot")?;
            clock::sleep(STEP).await;
        }
        Ok(())
    }

    fn purged(&self) -> Option<u64> {
        self.log().purged_log_id().map(|id| id.index)
    }

    /// The snapshot that openraft knows of.
    fn snapshot(&self) -> Option<u64> {
        let metrics = self.raft().metrics();
        let snapshot = metrics.borrow_watched().snapshot;
        snapshot.as_ref().map(|id| from_raft(id).index)
    }

    fn running(&self) -> Result<(), ConsensusError> {
        match &self.state().borrow().failed {
            Some(why) => Err(ConsensusError::Stopped(why.clone())),
            None => Ok(()),
        }
    }
}

fn late(began: Instant, limit: Duration, what: &str) -> Result<(), ConsensusError> {
    if began.elapsed() < limit {
        return Ok(());
    }
    Err(ConsensusError::Refused(format!(
        "could not {what} within {} s",
        limit.as_secs()
    )))
}

/// Compacts the groups that ask for it; one at a time, because a snapshot is in memory as a whole.
pub(crate) async fn run(groups: Arc<Groups>) {
    loop {
        clock::sleep(LOOK).await;
        for group in groups.all() {
            let Some(upto) = due(&group) else {
                continue;
            };
            match group.compact(upto).await {
                Ok(()) => {
                    hit!("consensus.compacted");
                    tracing::info!(group = group.name(), %upto, "the log begins behind a snapshot");
                }
                Err(error) => {
                    tracing::warn!(group = group.name(), %error, "compact the log");
                }
            }
        }
    }
}

/// Up to where a group's log should be dropped: the last applied entry of all files but the last, if
/// these are more than its machine allows. What is left is for followers that are a little behind.
fn due(group: &Group) -> Option<LogId> {
    let limit = group.compact_after_bytes()?;
    let applied = group.status().applied?;
    let segments = group.log().segments();
    let (_, closed) = segments.split_last()?;
    let mut bytes = 0;
    let mut upto = None;
    for segment in closed.iter().take_while(|s| s.last.index <= applied.index) {
        bytes += segment.bytes;
        upto = Some(segment.last);
    }
    upto.filter(|_| bytes >= limit)
}
