//! One data directory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    HardState, IdentityFile, Log, LogKey, LogOptions, MetaStore, Result, StorageOptions,
    StorageStats, disk::Disk,
};

/// Node-wide storage of one data directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    dir: Arc<PathBuf>,
}

impl Storage {
    /// Opens a data directory, created if absent, and takes its lock.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: StorageOptions) -> Result<Self> {
        todo!()
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Logs found on disk or opened since, in order.
    pub fn logs(&self) -> Vec<LogKey> {
        todo!()
    }

    /// Opens a log, created if absent; recovers it. Opening an open log again gives the same log.
    pub async fn open_log(&self, key: LogKey, options: LogOptions) -> Result<Log> {
        todo!()
    }

    /// Removes a log and its vote.
    pub async fn remove_log(&self, key: LogKey) -> Result<()> {
        todo!()
    }

    /// Moves a damaged log out of the way and says where to. Its key can never be opened again.
    pub async fn set_aside_log(&self, key: LogKey, why: &str) -> Result<PathBuf> {
        todo!()
    }

    /// Votes of all replicas.
    pub fn votes(&self) -> &HardState {
        todo!()
    }

    /// The metadata store; never used for votes.
    pub fn meta(&self) -> &MetaStore {
        todo!()
    }

    /// Who this node is.
    pub fn identity(&self) -> &IdentityFile {
        todo!()
    }

    /// Figures of this moment.
    pub fn stats(&self) -> StorageStats {
        todo!()
    }

    /// Whether writes wait for space, or soon will: the free space is below the reserve, or a write
    /// met a full disk. Clears by itself.
    pub fn is_disk_full(&self) -> bool {
        todo!()
    }

    /// Writes and syncs what was appended, then stops the disk threads.
    pub async fn shutdown(&self) {
        todo!()
    }
}
