//! Errors of the storage layer.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use seriatim_proto::ids::Offset;

use crate::{LogId, LogKey, frame::FrameError};

/// What went wrong; cheap to clone, because one failed round answers many callers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Arc<io::Error>,
    },
    /// Bytes that were durable are missing or wrong. They are never served; the replica must be
    /// rebuilt from its peers.
    #[error("{} is damaged at byte {position}: {what}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The byte at which the damaged part begins.
        position: u64,
        /// What is wrong there.
        what: String,
    },
    /// Another process has the data directory.
    #[error(
        "data directory {} is in use by another process; stop it first, or choose another data_dir",
        dir.display()
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// A file of a newer or unknown format.
    #[error(
        "{} has format version {found}, this program reads {supported}; use the version that wrote it",
        file.display()
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u16,
        /// The version known here.
        supported: u16,
    },
    /// An append that does not continue the log.
    #[error(
        "append of {found} at offset {offset} does not continue the log, which expects index {expected_index} at offset {expected_offset}"
    )]
    NotContiguous {
        /// The entry.
        found: LogId,
        /// Its base offset.
        offset: Offset,
        /// The index that must come next.
        expected_index: u64,
        /// The offset that must come next.
        expected_offset: Offset,
    },
    /// A frame handed in is malformed.
    #[error("a frame is malformed")]
    Frame(#[from] FrameError),
    /// The entry was purged, or does not exist yet.
    #[error("the log holds {first}..{end}, not {index}")]
    OutOfRange {
        /// What was asked for.
        index: u64,
        /// The first index there is.
        first: u64,
        /// The index after the last.
        end: u64,
    },
    /// The log stopped earlier and refuses writes.
    #[error("log {key} has stopped after an error")]
    Poisoned {
        /// The log.
        key: LogKey,
        /// The first error.
        #[source]
        source: Arc<StorageError>,
    },
    /// The log was set aside as damaged; its replica id must not come back with less than it had.
    #[error("log {key} was set aside as damaged; its replica needs a new id")]
    SetAside {
        /// The log.
        key: LogKey,
    },
    /// The log is already open, or was removed while in use.
    #[error("log {key} is {state}")]
    Busy {
        /// The log.
        key: LogKey,
        /// In what state it is.
        state: &'static str,
    },
    /// The metadata store failed.
    #[error("metadata store: {0}")]
    Meta(String),
    /// A value that cannot be stored.
    #[error("{what} has {bytes} bytes, at most {limit} are possible")]
    TooLarge {
        /// The value.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The most there may be.
        limit: usize,
    },
    /// The storage is shut down.
    #[error("storage is shut down")]
    Closed,
}

/// Results of this crate.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

impl StorageError {
    /// Whether bytes that were durable are lost here, so that the replica must be rebuilt.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::SetAside { .. } => true,
            Self::Poisoned { source, .. } => source.is_damage(),
            _ => false,
        }
    }

    /// Damage at a place.
    pub fn damaged(file: &Path, position: u64, what: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.to_owned(),
            position,
            what: what.into(),
        }
    }

    /// Whether a write failed for want of space only, so that the same write may be tried again. A sync
    /// never may, whatever its error.
    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            Self::Io { op, source, .. } => {
                *op != "sync"
                    && matches!(
                        source.kind(),
                        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                    )
            }
            _ => false,
        }
    }
}

/// Adds operation and path to an I/O result.
pub(crate) trait IoContext<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| StorageError::Io {
            op,
            path: path.to_owned(),
            source: Arc::new(error),
        })
    }
}
