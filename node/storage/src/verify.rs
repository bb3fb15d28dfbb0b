//! Offline verification of a data directory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{FrameHeader, LogKey, Result, disk::Disk};

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The byte at which the damaged part begins.
    pub position: u64,
    /// What is wrong there.
    pub what: String,
}

/// What [`verify_dir`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Logs seen.
    pub logs: u64,
    /// Files read.
    pub files: u64,
    /// Frames whose checksums match.
    pub frames: u64,
    /// Record batches among them.
    pub batches: u64,
    /// Records in these.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes of torn tails, which the next start cuts; no damage.
    pub torn_bytes: u64,
    /// Every damaged place.
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Reads every file of a data directory and verifies every checksum; changes nothing. Refuses with
/// [`crate::StorageError::Locked`] while a node has the directory. `progress` is told the bytes read so far and
/// the bytes in all.
pub fn verify_dir(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport> {
    todo!()
}

/// A frame and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedFrame {
    /// The log.
    pub log: LogKey,
    /// The segment file.
    pub file: PathBuf,
    /// The frame's first byte in it.
    pub position: u64,
    /// The frame's header.
    pub header: FrameHeader,
    /// The batch's header; `None` for other kinds.
    pub batch: Option<seriatim_proto::batch::BatchHeader>,
}

/// Calls `each` for every frame of the logs in a data directory, or of one of them, in order, until it returns
/// `false`; stops with an error at the first damage.
pub fn dump(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    only: Option<LogKey>,
    each: &mut dyn FnMut(DumpedFrame) -> bool,
) -> Result<()> {
    todo!()
}
