//! Consumer groups: who shares a topic's partitions, and where each group is.
//!
//! A group belongs to one of eight shards, Raft groups that the cluster layer places like the
//! partitions of a topic. The leader of a shard coordinates its groups.
#![warn(missing_docs)]

mod apply;
mod assign;
mod command;
pub mod limits;
mod names;
mod offsets;
mod records;
mod state;
mod touched;

pub use names::shard_of;
