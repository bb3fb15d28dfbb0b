//! Proposing a command, and what became of it.

use bytes::Bytes;
use seriatim_consensus::{Group, Proposal, ProposeError, Reply};

use crate::command::{self, Refusal};

/// Why a command had no effect, or none that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing was changed, on any replica.
    Refused(Refusal),
    /// It was not, or perhaps not, replicated.
    Proposal(ProposeError),
}

/// Has a command replicated by the leader of `term`; answers once it is applied.
pub(crate) async fn propose(group: &Group, term: u64, command: Bytes) -> Result<(), Failure> {
    let pending = group.submit(Proposal::Command(command), term).await;
    let applied = pending.map_err(Failure::Proposal)?.await;
    match applied.map_err(Failure::Proposal)?.reply {
        Reply::Command(bytes) => command::decode_reply(&bytes).map_err(Failure::Refused),
        Reply::Batch { .. } | Reply::None => Err(Failure::Refused(Refusal::malformed(
            "it was applied as something else",
        ))),
    }
}
