//! Consensus: many Raft groups in one process. The only crate that names openraft.
//!
//! A [`Group`] replicates one [`seriatim_storage::Log`] and feeds a [`StateMachine`] with what is
//! committed. [`Consensus`] is the registry of all groups of a node and drives their heartbeats and
//! elections; [`Lane`] carries their messages. It knows nothing of topics or clients.
#![warn(missing_docs)]

mod codec;
mod compact;
#[cfg(test)]
mod compact_tests;
mod driver;
mod group;
#[cfg(test)]
mod group_tests;
mod handover;
#[cfg(test)]
mod handover_tests;
mod lane;
mod log_store;
mod machine;
pub mod metrics;
mod network;
mod pace;
#[cfg(test)]
mod pace_tests;
mod parts;
mod raft;
mod receive;
mod refusals;
#[cfg(test)]
mod refusals_tests;
mod registry;
mod replay;
mod seam;
#[cfg(test)]
mod suite_tests;
mod types;
mod under_way;
#[cfg(test)]
mod under_way_tests;

pub use group::{Group, Pending};
pub use lane::{Lane, LaneError, LaneService};
pub use registry::Consensus;
pub use replay::{ReplayError, applied_entries};
pub use types::{
    Applied, AppliedEntry, AppliedPayload, AppliedState, ConsensusError, ConsensusOptions,
    GroupSpec, GroupState, GroupStatus, Member, Proposal, ProposeError, Reply, Role, SmError,
    Snapshot, StateMachine,
};
