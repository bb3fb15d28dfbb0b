//! Everything that touches a file: disks (real and simulated), the frame format, segments and their
//! index, group commit, the tail cache, recovery, hard state, and the metadata store.
//!
//! It knows log ids, offsets and batches, and nothing of Raft's rules or the network. Start at
//! [`Storage`], which owns one data directory, and [`Log`], one replica's log in it.
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    expect(
        clippy::todo,
        clippy::unused_async,
        unused_variables,
        dead_code,
        reason = "the API comes first"
    )
)]

mod bin;
pub mod disk;
mod error;
pub mod frame;
mod identity;
mod log;
mod meta;
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
    Boundary, LogId, LogKey, LogKeyError, LogOptions, StorageOptions, StorageStats, Vote,
};
pub use votes::HardState;
