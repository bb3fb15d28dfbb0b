//! What breaks and mends, one file for each way.

mod clock;
mod full_disk;
mod graceful;
mod kill;
mod membership;
mod operator;
mod partition;
mod pause;
mod power;
mod proxy;
mod rot;
mod syncs;
mod upgrade;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use parking_lot::Mutex;
use seriatim_runtime::clock::{self as time, Instant};
use tokio_util::sync::CancellationToken;

use super::{
    schedule::{Fault, Schedule, Strike},
    stage::Stage,
};
use crate::history::{self, FaultPhase, Recorder};

/// Plays a schedule. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Nemesis {
    stage: Arc<Stage>,
    recorder: Recorder,
    /// Faults end and none begins any more.
    enough: CancellationToken,
    state: Arc<Mutex<State>>,
    /// Held by the one thing that an operator does at a time.
    operator: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Faults under way, by their numbers.
    open: Vec<(u64, String)>,
    struck: usize,
    /// Faults that could not be made: something else had the node.
    skipped: usize,
    failures: Vec<String>,
}

/// What a nemesis has done.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Faults made.
    pub(super) struck: usize,
    /// Faults left out because another one had the node.
    pub(super) skipped: usize,
    /// Why faults could not be made or mended: the run proves nothing then.
    pub(super) failures: Vec<String>,
}

impl Nemesis {
    pub(super) fn new(stage: Arc<Stage>, recorder: Recorder) -> Self {
        Self {
            stage,
            recorder,
            enough: CancellationToken::new(),
            state: Arc::default(),
            operator: Arc::default(),
        }
    }

    /// Makes all faults and mends them; returns when nothing is broken any more.
    pub(super) async fn play(&self, schedule: &Schedule, began: Instant) {
        let strikes = schedule.strikes.iter().map(async |strike| {
            let at = began + Duration::from_millis(strike.at_ms);
            let waited = self.enough.run_until_cancelled(time::sleep_until(at));
            if waited.await.is_some() {
                self.strike(strike).await;
            }
        });
        let _all: Vec<()> = join_all(strikes).await;
    }

    /// Ends all faults early.
    pub(super) fn enough(&self) {
        self.enough.cancel();
    }

    /// Waits for something, or until faults are to end.
    pub(super) async fn or_enough(&self, wait: impl Future<Output = ()>) {
        let _early = self.enough.run_until_cancelled(wait).await;
    }

    /// What is broken at present, in words.
    pub(super) fn open(&self) -> Vec<String> {
        let state = self.state.lock();
        state.open.iter().map(|(_, what)| what.clone()).collect()
    }

    /// What it has done so far.
    pub(super) fn tally(&self) -> Tally {
        let state = self.state.lock();
        Tally {
            struck: state.struck,
            skipped: state.skipped,
            failures: state.failures.clone(),
        }
    }

    async fn strike(&self, strike: &Strike) {
        let is_operator = strike.fault.kind().is_operator();
        let _alone = if is_operator {
            Some(self.operator.lock().await)
        } else {
            None
        };
        let nodes = strike.fault.nodes();
        let claim = if is_operator {
            self.claim(&nodes).await
        } else {
            self.stage.cluster.claim(&nodes)
        };
        let Some(claim) = claim.filter(|_| !self.enough.is_cancelled()) else {
            self.state.lock().skipped += 1;
            tracing::info!(fault = %strike.fault, "left out: another fault has the node");
            return;
        };
        let id = self.recorder.fault_id();
        let what = strike.fault.to_string();
        self.note(id, &strike.fault, FaultPhase::Begin);
        {
            let mut state = self.state.lock();
            state.struck += 1;
            state.open.push((id, what.clone()));
        }
        let began = self.begin(id, &strike.fault).await;
        if !is_operator {
            let lasts = Duration::from_millis(strike.lasts_ms);
            self.or_enough(time::sleep(lasts)).await;
        }
        let ended = self.end(id, &strike.fault).await;
        self.state.lock().open.retain(|(open, _)| *open != id);
        self.note(id, &strike.fault, FaultPhase::End);
        for error in [began, ended].into_iter().filter_map(Result::err) {
            tracing::error!(error = format!("{error:#}"), what, "a fault failed");
            let mut state = self.state.lock();
            state.failures.push(format!("{what}: {error:#}"));
        }
        drop(claim);
    }

    fn note(&self, id: u64, fault: &Fault, phase: FaultPhase) {
        tracing::debug!(id, %fault, ?phase, "fault");
        self.recorder.fault(history::Fault {
            id,
            what: fault.kind().name(),
            detail: fault.to_string(),
            phase,
        });
    }

    async fn begin(&self, id: u64, fault: &Fault) -> anyhow::Result<()> {
        let stage = &*self.stage;
        match fault {
            Fault::Kill { nodes } => kill::begin(stage, nodes).await,
            Fault::Pause { nodes } => pause::begin(stage, nodes).await,
            Fault::Restart { node } => graceful::begin(stage, *node).await,
            Fault::Partition { shape } => partition::begin(stage, id, shape).await,
            Fault::Loss { node, percent } => partition::lose(stage, id, *node, *percent).await,
            Fault::Proxy { node, weather } => {
                proxy::begin(stage, *node, *weather);
                Ok(())
            }
            Fault::Clock { node, offset_ms } => clock::set(stage, *node, *offset_ms).await,
            Fault::FullDisk { node, room_bytes } => {
                full_disk::set(stage, *node, Some(*room_bytes)).await
            }
            Fault::PowerLoss { nodes } => power::begin(stage, nodes).await,
            Fault::SlowDisk { node, sync_ms } => syncs::slow(stage, *node, *sync_ms).await,
            Fault::StuckDisk { node } => syncs::stuck(stage, *node, true).await,
            Fault::FailingDisk { node } => syncs::fail(stage, *node).await,
            Fault::Rot { node, flips } => rot::strike(self, *node, *flips).await,
            Fault::Grow { node } => membership::grow(self, *node).await,
            Fault::Shrink { node } => membership::shrink(self, *node).await,
            Fault::Replace { node } => membership::replace(self, *node).await,
            Fault::Upgrade => upgrade::strike(self).await,
        }
    }

    async fn end(&self, id: u64, fault: &Fault) -> anyhow::Result<()> {
        let stage = &*self.stage;
        match fault {
            Fault::Kill { nodes } => kill::end(stage, nodes).await,
            Fault::Pause { nodes } => pause::end(stage, nodes).await,
            Fault::Restart { node } => graceful::end(stage, *node).await,
            Fault::Partition { .. } | Fault::Loss { .. } => partition::end(stage, id).await,
            Fault::Proxy { node, .. } => {
                proxy::end(stage, *node);
                Ok(())
            }
            Fault::Clock { node, .. } => clock::set(stage, *node, 0).await,
            Fault::FullDisk { node, .. } => full_disk::set(stage, *node, None).await,
            Fault::PowerLoss { nodes } => power::end(stage, nodes).await,
            Fault::SlowDisk { node, .. } => syncs::slow(stage, *node, 0).await,
            Fault::StuckDisk { node } => syncs::stuck(stage, *node, false).await,
            Fault::FailingDisk { node } => syncs::heal(stage, *node).await,
            Fault::Rot { .. }
            | Fault::Grow { .. }
            | Fault::Shrink { .. }
            | Fault::Replace { .. }
            | Fault::Upgrade => Ok(()),
        }
    }
}
