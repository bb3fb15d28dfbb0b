//! The metadata store: ordered keys and values for materialised state machines.
//!
//! On a real disk it is sled. On a simulated one, which sled cannot use, it is a map with a journal
//! of transactions that behaves alike: a crash keeps a prefix of them.

use std::{
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::{
    Result, StorageError,
    disk::{Disk, DiskFile, OpenMode},
    error::IoContext,
};

mod ahead;
mod journal;

use ahead::Ahead;
pub(crate) use ahead::Room;

/// How often sled writes to its file by itself, in milliseconds.
const FLUSH_EVERY_MS: u64 = 500;

/// Bytes that sled may cache.
const CACHE_BYTES: u64 = 16 << 20;

/// Changes that take effect together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetaBatch {
    /// In order; `None` deletes.
    ops: Vec<Change>,
}

/// A key and its new value.
type Change = (Vec<u8>, Option<Vec<u8>>);

impl MetaBatch {
    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.push((key.into(), Some(value.into())));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.ops.push((key.into(), None));
    }
}

/// Ordered keys and values. A crash may lose the last transactions, never a part of one.
#[derive(Debug)]
pub struct MetaStore(RwLock<Option<Backend>>);

#[derive(Debug)]
enum Backend {
    Sled(Sled),
    Journal(journal::MetaJournal),
}

/// sled, and its file.
#[derive(Debug)]
struct Sled {
    db: sled::Db,
    /// sled's own flush hands the bytes to the disk, but waits neither for the disk's cache nor for
    /// the length of the file: after it a power loss could still take them.
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    ahead: Ahead,
}

impl Sled {
    fn open(disk: &dyn Disk, folder: &Path) -> Result<Self> {
        let db = sled::Config::new()
            .path(folder)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .cache_capacity(CACHE_BYTES)
            .open()
            .map_err(failed)?;
        let path = folder.join("db");
        let file = disk.open(&path, OpenMode::Write).at("open", &path)?;
        let ahead = Ahead::of(Arc::clone(&file));
        let this = Self {
            db,
            file,
            path,
            ahead,
        };
        this.flush()?;
        // sled syncs neither what it is configured with nor the names of its files.
        let conf = folder.join("conf");
        let sync = || disk.open(&conf, OpenMode::Read)?.sync();
        sync().at("sync", &conf)?;
        for folder in [&folder.join("blobs"), folder] {
            disk.sync_dir(folder).at("sync", folder)?;
        }
        Ok(this)
    }

    fn flush(&self) -> Result<()> {
        let _bytes = self.db.flush().map_err(failed)?;
        self.file.sync().at("sync", &self.path)
    }
}

impl MetaStore {
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self> {
        if disk.is_simulated() {
            let journal = journal::MetaJournal::open(&**disk, dir)?;
            return Ok(Self(RwLock::new(Some(Backend::Journal(journal)))));
        }
        let sled = Sled::open(&**disk, &dir.join("meta"))?;
        Ok(Self(RwLock::new(Some(Backend::Sled(sled)))))
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.0.read().as_ref().ok_or(StorageError::Closed)? {
            Backend::Sled(Sled { db, .. }) => {
                let value = db.get(key).map_err(failed)?;
                Ok(value.map(|value| Bytes::copy_from_slice(&value)))
            }
            Backend::Journal(journal) => Ok(journal.get(key)),
        }
    }

    /// All keys that begin with `prefix`, in order, with their values.
    pub fn scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        match self.0.read().as_ref().ok_or(StorageError::Closed)? {
            Backend::Sled(Sled { db, .. }) => db
                .scan_prefix(prefix)
                .map(|entry| {
                    let (key, value) = entry.map_err(failed)?;
                    Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
                })
                .collect(),
            Backend::Journal(journal) => Ok(journal.scan(prefix)),
        }
    }

    /// Applies a batch: all of it or nothing. Not yet durable on return.
    pub fn transact(&self, batch: MetaBatch) -> Result<()> {
        match self.0.read().as_ref().ok_or(StorageError::Closed)? {
            Backend::Sled(Sled { db, .. }) => {
                let mut changes = sled::Batch::default();
                for (key, value) in batch.ops {
                    match value {
                        Some(value) => changes.insert(key, value),
                        None => changes.remove(key),
                    }
                }
                db.apply_batch(changes).map_err(failed)
            }
            Backend::Journal(journal) => journal.transact(&batch),
        }
    }

    /// Whether room for changes is set aside already. Does not block.
    pub(crate) fn has_room(&self) -> bool {
        match self.0.read().as_ref() {
            Some(Backend::Sled(sled)) => sled.ahead.is_enough(),
            Some(Backend::Journal(_)) | None => false,
        }
    }

    /// Whether there is room for changes. May block for as long as it takes to set some aside.
    pub(crate) fn room(&self) -> Room {
        match self.0.read().as_ref() {
            Some(Backend::Sled(sled)) => sled.ahead.room(),
            Some(Backend::Journal(_)) | None => Room::Unknown,
        }
    }

    /// Flushes, and gives up the files.
    pub(crate) fn close(&self) -> Result<()> {
        let flushed = match self.flush() {
            Err(StorageError::Closed) => Ok(()),
            result => result,
        };
        let backend = self.0.write().take();
        if flushed.is_err() {
            // sled syncs once more when it is dropped, and panics where that fails. What it holds
            // ends with the process, which is about to.
            let _never_dropped = backend.map(ManuallyDrop::new);
        }
        flushed
    }

    /// Makes all transactions so far durable. Blocks for a sync.
    pub fn flush(&self) -> Result<()> {
        match self.0.read().as_ref().ok_or(StorageError::Closed)? {
            Backend::Sled(sled) => sled.flush(),
            Backend::Journal(journal) => journal.flush(),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: sled::Error) -> StorageError {
    StorageError::Meta(error.to_string())
}
