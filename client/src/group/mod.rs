//! Consumer groups: members share the partitions of topics and remember how far they are.
//!
//! ```text
//!  application <- GroupConsumer <- deliveries <- Readers, one for each partition
//!       |              |                             ^ started and stopped by
//!       | drop         | State (what is owned, what is handed on, what came back)
//!       v              |
//!     Ticket --------> + <-- Member (one task) <-> Link <-> coordinator
//! ```
//!
//! The [member's task](member) owns the conversation with the coordinator; the [consumer](consumer)
//! hands on what the readers bring. Both meet in the [state](state), which knows no clock and no network.

mod admin;
mod batch;
mod builder;
mod consumer;
mod coordinator;
mod handle;
mod lease;
mod link;
mod member;
mod options;
mod part;
mod plan;
mod reset;
mod shared;
mod state;
#[cfg(test)]
mod state_tests;
mod tracker;

pub(crate) use self::coordinator::Coordinators;
pub use self::{
    admin::{CommittedOffset, GroupDescription, GroupList, GroupMember, GroupState, GroupSummary},
    batch::GroupBatch,
    builder::GroupBuilder,
    consumer::GroupConsumer,
    handle::{GroupHandle, PartitionLag},
    options::{Rebalance, Strategy},
    reset::{OffsetChange, ResetTo},
    shared::CommitOffset,
};
