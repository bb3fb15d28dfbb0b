//! The real file system.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
};

use rustix::{
    buffer::spare_capacity,
    fs::{self, FlockOperation},
    io::Errno,
};

use super::{DirEntry, DirLock, Disk, DiskFile, OpenMode};
use crate::bin::len64;

/// Most slices that one system call takes (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// The file system of this machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct PosixDisk;

impl Disk for PosixDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let options = options.read(true);
        let options = match mode {
            OpenMode::Read => options,
            OpenMode::Write => options.write(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
            OpenMode::Create => options.write(true).create(true).truncate(false),
        };
        Ok(Arc::new(PosixFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry { name, is_dir });
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::rename(from, to)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let file = OpenOptions::new().read(true).open(dir)?;
        Ok(fs::fsync(&file)?)
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let stat = fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(PosixLock { _file: file })),
            Err(Errno::WOULDBLOCK) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn is_simulated(&self) -> bool {
        false
    }
}

/// The lock goes with the open file.
#[derive(Debug)]
struct PosixLock {
    _file: File,
}

impl DirLock for PosixLock {}

#[derive(Debug)]
struct PosixFile(File);

impl DiskFile for PosixFile {
    fn read_at(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        // Read into spare capacity: zeroing a buffer of megabytes first would cost as much as the
        // read from the page cache.
        let mut buffer = Vec::with_capacity(len);
        while buffer.len() < len {
            let at = position + len64(buffer.len());
            match rustix::io::pread(&self.0, spare_capacity(&mut buffer), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The allocator may have given more room than was asked for.
        buffer.truncate(len);
        Ok(buffer)
    }

    fn write_at(&self, mut position: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let now = slices.get(..SLICES_MAX).unwrap_or(slices);
            match rustix::io::pwritev(&self.0, now, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += len64(written);
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fs::fdatasync(&self.0)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    #[cfg(target_os = "linux")]
    fn reserve(&self, from: u64, bytes: u64) -> io::Result<()> {
        loop {
            match fs::fallocate(&self.0, fs::FallocateFlags::KEEP_SIZE, from, bytes) {
                Err(Errno::INTR) => {}
                reserved => return Ok(reserved?),
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn space_that_is_set_aside_changes_nothing_but_the_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = PosixDisk.open(&path, OpenMode::Create).unwrap();
        file.write_at(0, &mut [IoSlice::new(b"abc")]).unwrap();
        match file.reserve(3, 1 << 20) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
            reserved => reserved.unwrap(),
        }
        assert_eq!(file.len().unwrap(), 3);
        assert_eq!(file.read_at(0, 10).unwrap(), b"abc");
        let blocks = std::fs::metadata(&path).unwrap().blocks();
        assert!(blocks * 512 >= 1 << 20, "{blocks} blocks");
    }
}
