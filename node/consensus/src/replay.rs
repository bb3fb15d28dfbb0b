//! Committed entries read again, as a state machine was given them.

use std::ops::Range;

use seriatim_storage::{Log, StorageError};

use crate::{AppliedEntry, codec, machine};

/// Entries that one call returns at most.
const CHUNK: u64 = 1024;

/// Why entries cannot be read again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// They were purged, or the log failed.
    #[error("read applied entries again")]
    Storage(#[from] StorageError),
    /// An entry's checksum matches but it cannot be read.
    #[error("read applied entries again: {0}")]
    Malformed(String),
}

/// The first entries of a range of indexes that were applied, in the form in which
/// [`crate::StateMachine::apply`] gets them; at least one unless the range is empty.
pub async fn applied_entries(
    log: &Log,
    range: Range<u64>,
) -> Result<Vec<AppliedEntry>, ReplayError> {
    let end = range.end.min(range.start.saturating_add(CHUNK));
    let heads = log.read_heads(range.start..end).await?;
    let malformed = |error: &dyn std::fmt::Display| ReplayError::Malformed(error.to_string());
    let entries = heads.into_iter().map(|head| {
        let entry = codec::head_entry(head).map_err(|error| malformed(&error))?;
        machine::to_applied(entry).map_err(|error| malformed(&error))
    });
    entries.collect()
}
