//! Consumer groups: who shares a topic's partitions, and where each group is.
//!
//! A group belongs to one of eight shards, Raft groups that the cluster layer places like the
//! partitions of a topic; each node runs its replicas of them, and the leader of a shard coordinates
//! its groups.
//!
//! | module | what it is |
//! |---|---|
//! | `state`, `command`, `apply`, `offsets`, `assign` | the pure half: what a group is and how it changes |
//! | `machine`, `store`, `records` | a shard's state machine, in the metadata store |
//! | `host` | opens and closes this node's replicas for the cluster layer |
//! | `coordinator` | sessions, heartbeats, assignments: the work of a shard's leader |
//! | `groups`, `member`, `commit`, `admin` | what the layers above may ask |
//!
//! It knows nothing of wire formats.
#![warn(missing_docs)]

mod admin;
mod apply;
mod assign;
mod command;
mod commit;
mod coordinator;
mod errors;
mod groups;
mod host;
pub mod limits;
mod machine;
mod member;
pub mod metrics;
mod names;
mod offsets;
mod propose;
mod records;
mod state;
mod store;
mod topics;
mod touched;

pub use groups::{GroupOptions, Groups};
pub use member::MemberStream;
pub use names::shard_of;
