//! What a leader says for good only if a majority confirms that it leads.
//!
//! One that was replaced and does not know it yet would refuse by what it knew then what its successor
//! takes or has: a batch after others, an offset near the end.

use seriatim_runtime::{
    clock::{self, Instant},
    hit,
};

use crate::partition::{NotLeading, Partition, leading};

/// Why a refusal is not to be believed.
pub(crate) enum Unconfirmed {
    /// Another replica leads, or none.
    NotLeading(NotLeading),
    /// No majority has answered in time.
    NoMajority,
}

impl Partition {
    /// Asks a majority whether this replica leads. Once it has said so, this replica knows all that was
    /// committed when it was asked.
    pub(crate) async fn confirm(&self, deadline: Instant) -> Result<(), Unconfirmed> {
        let barrier = self.inner.group.read_barrier();
        let refused = match clock::timeout_at(deadline, barrier).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        hit!("partition.unconfirmed");
        tracing::debug!(partition = %self.inner.name, refused, "leadership is not confirmed");
        let _term = leading(&self.inner.state.borrow()).map_err(Unconfirmed::NotLeading)?;
        Err(Unconfirmed::NoMajority)
    }
}
