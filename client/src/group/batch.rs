//! What a member hands to the application.

use std::{ops::Deref, sync::Arc};

use seriatim_proto::ids::{Offset, TopicPartition};

use super::shared::Shared;
use crate::consumer::ConsumedBatch;

/// A batch of records that the group has not processed yet.
///
/// Dropping it says that all of it is processed; see the [rules](super::GroupConsumer#what-is-committed)
/// about when that is committed. It may be moved to another task or thread and dropped there; batches
/// of one partition may be dropped in any order.
///
/// Dropped by a panic it counts as not processed, like [`abandon`](Self::abandon).
#[derive(Debug)]
#[must_use = "dropping a batch says that it is processed"]
pub struct GroupBatch {
    pub(super) batch: ConsumedBatch,
    pub(super) ticket: Ticket,
    pub(super) granted: u64,
}

impl GroupBatch {
    /// The generation in which the group gave the partition to this member, or to the process whose
    /// place it took under its instance id: above that of every owner before. A group with neither
    /// members nor offsets is gone; one that is made under its name begins with the first generation.
    pub const fn granted_generation(&self) -> u64 {
        self.granted
    }

    /// Gives the batch up: it is not processed, and neither it nor anything behind it in its
    /// partition is committed by this member. It comes again when the partition goes to another
    /// member, when this one starts anew, or after a [seek](super::GroupHandle::seek).
    pub fn abandon(mut self) {
        self.ticket.until = self.ticket.from;
    }

    /// Only the records before `next` are processed. The others, and what is behind them, are given
    /// up as by [`abandon`](Self::abandon).
    pub fn processed_until(mut self, next: Offset) {
        self.ticket.until = next.0.min(self.ticket.until);
    }
}

impl Deref for GroupBatch {
    type Target = ConsumedBatch;

    fn deref(&self) -> &ConsumedBatch {
        &self.batch
    }
}

/// Tells the member when the application is done with a batch.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) partition: Arc<TopicPartition>,
    pub(super) round: u64,
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.until = self.from;
        }
        self.shared
            .came_back(&self.partition, self.round, (self.from, self.until));
    }
}
