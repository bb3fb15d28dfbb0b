//! What becomes of proposals that follow one that was refused.
//!
//! A leader that has not heard from a majority for a while refuses proposals, and a moment later takes
//! them again in the same term. Proposals that were under way meanwhile assume that the refused one stands
//! before them: taken, they would leave a gap. So a proposal may say how many refusals its proposer knew
//! of. One task of the group refuses and appends, one at a time: when such a proposal is appended, every
//! refusal before it is counted, and if there are more than it knows of, an empty entry takes its place.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use openraft::{
    EntryPayload, OptionalSend, async_runtime::OneshotSender as _, errors::ClientWriteError,
    raft::ClientWriteResult, type_config::alias::OneshotSenderOf,
};

use crate::raft::{Data, Payload, Types};

/// Counts the proposals that a replica refused. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals(Arc<AtomicU64>);

impl Refusals {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Whether a proposal that is about to be appended assumes one that was refused.
    pub(crate) fn leave_no_place(&self, payload: &Payload) -> bool {
        match payload {
            EntryPayload::Normal(Data::Batch { after, .. }) => {
                after.is_some_and(|known| known < self.count())
            }
            _ => false,
        }
    }
}

/// Where the result of a proposal goes. Counts it if it is a refusal, before anybody hears of it.
pub(crate) struct Responder<T: OptionalSend> {
    result: OneshotSenderOf<Types, T>,
    refusals: Refusals,
    is_refusal: fn(&T) -> bool,
}

impl Responder<ClientWriteResult<Types>> {
    pub(crate) fn new(
        result: OneshotSenderOf<Types, ClientWriteResult<Types>>,
        refusals: Refusals,
    ) -> Self {
        Self {
            result,
            refusals,
            is_refusal: |result| matches!(result, Err(ClientWriteError::ForwardToLeader(_))),
        }
    }
}

impl<T: OptionalSend + 'static> openraft::raft::responder::Responder<Types, T> for Responder<T> {
    fn on_complete(self, result: T) {
        if (self.is_refusal)(&result) {
            let _before = self.refusals.0.fetch_add(1, Ordering::AcqRel);
        }
        // Whoever proposed may have gone.
        let _gone = self.result.send(result);
    }
}
