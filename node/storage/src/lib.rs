//! Everything that touches a file: disks (real and simulated), the frame format, segments and their
//! index, group commit, the tail cache, recovery, hard state, and the metadata store.
//!
//! It knows log ids, offsets and batches, and nothing of Raft's rules or the network. Start at
//! [`Storage`], which owns one data directory, and [`Log`], one replica's log in it.
#![warn(missing_docs)]

mod bin;
mod cache;
mod core;
pub mod disk;
mod engine;
mod error;
mod file;
pub mod frame;
#[cfg(test)]
mod golden;
mod handles;
mod identity;
mod log;
mod meta;
pub mod metrics;
mod progress;
mod rolled;
mod scrub;
mod segment;
mod space;
mod storage;
mod types;
pub mod verify;
mod votes;

pub use error::{Result, StorageError};
pub use frame::{Frame, FrameError, FrameHead, FrameHeader, FrameKind};
pub use identity::{Identity, IdentityFile};
pub use log::{AppendDone, Log};
pub use meta::{MetaBatch, MetaStore};
pub use storage::Storage;
pub use types::{
    Boundary, LogId, LogKey, LogKeyError, LogOptions, SegmentInfo, StorageOptions, StorageStats,
    Vote,
};
pub use votes::HardState;
