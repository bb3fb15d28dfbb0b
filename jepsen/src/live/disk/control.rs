//! What a disk is told, and what it answers: a line each way, in JSON.

use serde::{Deserialize, Serialize};

/// What a disk is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Command {
    /// Files can grow by so many bytes together, or as they like.
    Room(Option<u64>),
    /// Syncs take up to so many milliseconds.
    Slow(u64),
    /// Syncs do not return, or do again.
    Stuck(bool),
    /// Syncs fail, or succeed again.
    Failing(bool),
    /// The power fails. Whoever used the disk must be gone.
    PowerLoss,
    /// So many bits flip.
    Rot(u32),
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    /// Done; what came of it, in words.
    Done(String),
    /// Why not.
    Failed(String),
}
