//! Leaving the group.

use std::time::Duration;

use seriatim_proto::v1::{Leave, member_request::Request};
use tokio::{sync::oneshot, time::Instant};

use super::Member;
use crate::{error::ClientError, group::part::Phase};

/// How long the coordinator may take to say that the member has left.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

type Reply = oneshot::Sender<Result<(), ClientError>>;

/// An end that was asked for.
pub(super) struct Closing {
    /// Nobody waits where the consumer was dropped.
    reply: Option<Reply>,
    /// The coordinator was told; until then it may answer.
    left: Option<Instant>,
}

impl Closing {
    pub(super) const fn until(&self) -> Option<Instant> {
        self.left
    }
}

impl Member {
    /// Lets go of everything, with a last commit.
    pub(super) fn close(&mut self, reply: Reply) {
        let mut state = self.shared.state.lock();
        let _any = state.note_returned();
        state.close();
        drop(state);
        self.closing = Some(Closing {
            reply: Some(reply),
            left: None,
        });
    }

    /// The consumer was dropped: what is not committed comes again elsewhere.
    pub(super) fn abandon(&mut self) {
        if self.closing.is_some() {
            return;
        }
        let mut state = self.shared.state.lock();
        state.closing = true;
        state.parts.clear();
        state.lost.clear();
        drop(state);
        self.callback = None;
        self.commits.drop_waiters(&ClientError::Closed("consumer"));
        self.closing = Some(Closing {
            reply: None,
            left: None,
        });
    }

    pub(super) fn has_left(&self) -> bool {
        self.closing.as_ref().is_some_and(|c| c.left.is_some())
    }

    /// Leaves once everything is let go of.
    pub(super) fn finish_closing(&mut self) {
        if self.closing.is_none() || self.has_left() {
            return;
        }
        let held = {
            let state = self.shared.state.lock();
            let held = state.parts.values().any(|p| p.phase != Phase::Released);
            held || !state.lost.is_empty()
        };
        if held || self.callback.is_some() || !self.commits.is_idle() {
            return;
        }
        // A member with an instance id keeps its place.
        let stays = !self.shared.options.instance_id.is_empty();
        let told = !stays
            && self
                .link
                .as_ref()
                .is_some_and(|l| l.send(Request::Leave(Leave {})));
        if !told {
            return self.finish(Ok(()));
        }
        if let Some(closing) = &mut self.closing {
            closing.left = Some(Instant::now() + LEAVE_TIMEOUT);
        }
    }

    pub(super) fn finish(&mut self, outcome: Result<(), ClientError>) {
        self.over = true;
        if let Some(reply) = self.closing.take().and_then(|closing| closing.reply) {
            // Who asked may have given up.
            let _gone = reply.send(outcome);
        }
    }
}
