//! Telling the application what changed, one thing at a time.

use seriatim_proto::ids::TopicPartition;
use tokio::sync::oneshot;

use super::Member;
use crate::{
    group::{handle::GroupHandle, options::Rebalance, part::Phase, state::Acquired},
    rt,
};

/// A callback that runs.
pub(super) struct Callback {
    kind: Kind,
    of: Acquired,
    done: oneshot::Receiver<()>,
    _task: rt::Task,
}

/// Resolves when the callback returns.
type Running = (oneshot::Receiver<()>, rt::Task);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Assigned,
    Revoked,
    Lost,
}

/// Returns when the callback has.
pub(super) async fn done(callback: &mut Option<Callback>) {
    match callback {
        Some(callback) => {
            if (&mut callback.done).await.is_err() {
                tracing::error!("the rebalance callback panicked");
            }
        }
        None => std::future::pending().await,
    }
}

impl Member {
    /// Tells what there is to tell: first what is gone, then what is to go, then what is new.
    pub(super) fn start_callbacks(&mut self) {
        while self.callback.is_none() {
            let Some((kind, of)) = self.next_change() else {
                return;
            };
            let partitions = of.iter().map(|(tp, _)| tp.clone()).collect();
            let change = match kind {
                Kind::Assigned => Rebalance::Assigned(partitions),
                Kind::Revoked => Rebalance::Revoked(partitions),
                Kind::Lost => Rebalance::Lost(partitions),
            };
            match self.call(change) {
                Some((done, _task)) => {
                    self.callback = Some(Callback {
                        kind,
                        of,
                        done,
                        _task,
                    });
                }
                None => self.told(kind, &of),
            }
        }
    }

    fn next_change(&self) -> Option<(Kind, Acquired)> {
        let mut state = self.shared.state.lock();
        if !state.lost.is_empty() {
            let lost = std::mem::take(&mut state.lost).into_iter();
            return Some((Kind::Lost, lost.map(|tp| (tp, 0)).collect()));
        }
        let drained = state.in_phase(Phase::Drained);
        if !drained.is_empty() {
            state.enter(&drained, Phase::Drained, Phase::Leaving);
            return Some((Kind::Revoked, drained));
        }
        let assigned = state.in_phase(Phase::Assigned);
        if !assigned.is_empty() {
            state.enter(&assigned, Phase::Assigned, Phase::Announcing);
            return Some((Kind::Assigned, assigned));
        }
        None
    }

    fn call(&self, change: Rebalance) -> Option<Running> {
        let listener = self.shared.options.listener.as_ref()?;
        let handle = GroupHandle {
            shared: std::sync::Arc::clone(&self.shared),
        };
        let called = std::sync::Arc::clone(listener);
        let (sender, done) = oneshot::channel();
        let task = rt::Task::spawn(async move {
            called(change, handle).await;
            // The member may have ended.
            let _gone = sender.send(());
        });
        Some((done, task))
    }

    /// Tells the last of what is lost; nobody waits for the callback.
    pub(super) fn call_lost(&self, lost: Vec<TopicPartition>) {
        if !lost.is_empty()
            && let Some((_done, task)) = self.call(Rebalance::Lost(lost))
        {
            task.detach();
        }
    }

    pub(super) fn on_called(&mut self) {
        if let Some(callback) = self.callback.take() {
            self.told(callback.kind, &callback.of);
        }
    }

    fn told(&mut self, kind: Kind, of: &[(TopicPartition, u64)]) {
        let mut state = self.shared.state.lock();
        match kind {
            Kind::Lost => {}
            Kind::Assigned => state.enter(of, Phase::Announcing, Phase::Locating),
            Kind::Revoked => {
                state.enter(of, Phase::Leaving, Phase::Released);
                let mut released = state.in_phase(Phase::Released);
                released.retain(|part| of.contains(part));
                drop(state);
                if self.closing.is_none() {
                    let released: Vec<_> = released.into_iter().map(|(tp, _)| tp).collect();
                    self.send_released(&released);
                }
            }
        }
    }
}
