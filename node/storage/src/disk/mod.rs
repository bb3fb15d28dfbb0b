//! The disk as a trait, so that its faults can be simulated. Nothing else in this crate touches a
//! file, except sled.

use std::{
    fmt,
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
    time::Duration,
};

mod posix;
pub mod sim;

pub use posix::PosixDisk;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file, for reading and writing; fails with `AlreadyExists` if there is one.
    CreateNew,
    /// A file for reading and writing, created if absent, never cut.
    Create,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without the folder. Names that are not UTF-8 are left out of listings.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// Holds a lock until dropped.
pub trait DirLock: fmt::Debug + Send + Sync {}

/// A file system.
///
/// Durability: after a power loss a created, renamed or removed name is certain only if
/// [`Disk::sync_dir`] of its folder returned after the change, and a file's bytes and length only if
/// [`DiskFile::sync`] returned after them. All methods may be called from any thread; they block.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a folder and the folders above it; no error if it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Names in a folder, sorted; `NotFound` if there is no such folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Renames a file or folder; replaces a file of the new name in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; handles that are open keep reading it.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that may still be written where `path` lies.
    fn free_space(&self, path: &Path) -> io::Result<u64>;

    /// Takes the exclusive lock of a file, which is created if absent; `WouldBlock` if another
    /// holder has it. The lock ends with the process at the latest.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;

    /// Whether this disk exists in memory only. Then no thread is started for it, and everything
    /// happens in the order of the simulator.
    fn is_simulated(&self) -> bool;

    /// How long so many syncs will take. The engine of a simulation waits for that before it syncs, so
    /// that what is written can be lost for as long. Real disks take their time by themselves.
    fn sync_time(&self, _syncs: u32) -> Duration {
        Duration::ZERO
    }

    /// How long the syncs since the last call took in simulated time; zero on real disks.
    fn take_delay(&self) -> Duration {
        Duration::ZERO
    }
}

/// An open file. Positions are absolute; there is no cursor, so that threads can share a handle.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads up to `len` bytes at `position`; fewer only at the end of the file.
    fn read_at(&self, position: u64, len: usize) -> io::Result<Vec<u8>>;

    /// Writes all slices one after the other at `position`, extending the file as needed. After an
    /// error any part may have been written. An error of kind `StorageFull` may be answered by
    /// the same write again.
    fn write_at(&self, position: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Makes the bytes written so far durable, and the length where needed to read them.
    ///
    /// After an error the state of the file is unknown: the caller MUST NOT try again, because the
    /// system may have dropped the dirty pages and would report success.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or extends it by zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Sets space aside for so many bytes from `from` on, which is not before the end: a write there
    /// finds room even if the disk is full by then, unless the file was cut meanwhile. Length and bytes stay
    /// what they are. `StorageFull` if there is no room, `Unsupported` where this cannot be done.
    fn reserve(&self, _from: u64, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
