//! Where to begin in partitions that are new.

use futures::{FutureExt as _, future::BoxFuture};
use seriatim_proto::ids::{Offset, TopicPartition};

use super::Member;
use crate::{
    consumer::{Position, ResetPolicy},
    error::ClientError,
    group::{part::Phase, state::State},
};

pub(super) type Lookup = BoxFuture<'static, Found>;

/// Where a partition begins or ends.
pub(super) struct Found {
    tp: TopicPartition,
    acquired: u64,
    at: Result<Vec<Offset>, ClientError>,
}

impl Member {
    /// Begins to read what is this member's: where it was sought to or stopped, at the committed
    /// offset, or as the reset policy says.
    pub(super) fn start_reading(&mut self) {
        let mut state = self.shared.state.lock();
        if state.closing {
            return;
        }
        for (tp, acquired) in state.in_phase(Phase::Locating) {
            let round = state.number();
            let Some(part) = state.acquired(&tp, acquired) else {
                continue;
            };
            if let (None, Some(committed)) = (&part.tracker, part.committed) {
                part.begin(round, committed, false);
            }
            if part.tracker.is_some() {
                self.shared.read(&mut state, &tp);
            } else if !part.looking {
                part.looking = true;
                let lookup = self.lookup(tp, acquired);
                self.lookups.push(lookup);
            }
        }
    }

    fn lookup(&self, tp: TopicPartition, acquired: u64) -> Lookup {
        let client = self.shared.client.clone();
        let group = self.shared.group.clone();
        let policy = self.shared.options.reset;
        async move {
            let wanted = match policy {
                ResetPolicy::Start => Ok(Position::Start),
                ResetPolicy::End => Ok(Position::End),
                ResetPolicy::Fail => Err(ClientError::NoOffset {
                    group,
                    partition: tp.clone(),
                }),
            };
            let at = match wanted {
                Ok(position) => {
                    let admin = client.admin();
                    admin.list_offsets(&[(tp.clone(), position)]).await
                }
                Err(error) => Err(error),
            };
            Found { tp, acquired, at }
        }
        .boxed()
    }

    pub(super) fn on_found(&mut self, found: Found) {
        let mut state = self.shared.state.lock();
        let round = state.number();
        let Some(part) = state.acquired(&found.tp, found.acquired) else {
            return;
        };
        part.looking = false;
        // It was sought meanwhile, or is to be let go of.
        if part.tracker.is_some() || part.phase != Phase::Locating {
            return;
        }
        match found.at.map(|offsets| offsets.first().copied()) {
            Ok(Some(offset)) => part.begin(round, offset.0, false),
            Ok(None) => {}
            Err(error) if error.is_retryable() => {
                tracing::warn!(partition = %found.tp, %error, "where to begin is not known yet");
            }
            Err(error) => {
                part.phase = Phase::Running;
                self.tell(&mut state, error);
            }
        }
    }

    fn tell(&self, state: &mut State, error: ClientError) {
        state.report(error);
        self.shared.consumer.wake();
    }
}
