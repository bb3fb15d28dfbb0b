//! What a leader says for good only if a majority confirms that it leads.
//!
//! One that was replaced and does not know it yet would refuse by what it knew then what its successor
//! takes or has: a batch after others, an offset near the end.

use seriatim_proto::ids::Offset;
use seriatim_runtime::{
    clock::{self, Instant},
    hit,
    mutant::{self, Mutant},
};

use crate::partition::{NotLeading, Partition, leading};

/// Why this replica cannot say what holds for good.
pub(crate) enum Unconfirmed {
    /// Another replica leads, or none.
    NotLeading(NotLeading),
    /// It leads and does not know yet all that was committed before.
    NotReady,
    /// It leads, and no majority has said so in time.
    NoMajority,
}

impl Partition {
    /// The term in which this replica leads, and the end of what may be read as far as it knows.
    pub(crate) fn serving(&self) -> Result<(u64, Offset), Unconfirmed> {
        let term = leading(&self.inner.state.borrow()).map_err(Unconfirmed::NotLeading)?;
        let machine = &self.inner.machine;
        if mutant::on(Mutant::ReadAboveHighWatermark) {
            return Ok((term, machine.log().next_offset()));
        }
        if mutant::on(Mutant::ServesBeforeReady) {
            return Ok((term, machine.high_watermark()));
        }
        if mutant::on(Mutant::CommitsOlderTerm) {
            let known = machine.ready(term);
            return Ok((term, known.unwrap_or_else(|| machine.log().next_offset())));
        }
        let end = machine.ready(term).ok_or(Unconfirmed::NotReady)?;
        Ok((term, end))
    }

    /// The end of what may be read. That it is before `offset` is said only if a majority confirms it.
    pub(crate) async fn end_for(
        &self,
        offset: Offset,
        deadline: Instant,
    ) -> Result<Offset, Unconfirmed> {
        let (_term, end) = self.serving()?;
        if offset <= end || mutant::on(Mutant::EndNotConfirmed) {
            return Ok(end);
        }
        self.confirm(deadline).await?;
        let (_term, end) = self.serving()?;
        Ok(end)
    }

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
