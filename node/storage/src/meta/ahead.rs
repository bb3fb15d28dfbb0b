//! Space set aside behind the end of the metadata store's file.
//!
//! sled takes a full disk for a broken one and refuses everything from then on, and it writes up to half
//! a second after a change was made: that there was room then says little. Blocks that the file already has
//! cannot be taken by anybody meanwhile.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use crate::disk::DiskFile;

/// Bytes that are set aside at a time.
const AHEAD_BYTES: u64 = 8 << 20;

/// Bytes of them that must be left before a change.
const LEFT_BYTES: u64 = 4 << 20;

/// Whether there is space for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// It is set aside.
    Enough,
    /// None could be set aside.
    None,
    /// Nothing can be set aside here.
    Unknown,
}

/// What is set aside for one file.
#[derive(Debug)]
pub(super) struct Ahead {
    file: Arc<dyn DiskFile>,
    unsupported: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// How long the file was.
    len: u64,
    /// Where what is set aside ends.
    end: u64,
}

impl Ahead {
    pub(super) fn of(file: Arc<dyn DiskFile>) -> Self {
        Self {
            file,
            unsupported: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }

    /// Whether enough is set aside, told without waiting for whoever sets more aside.
    pub(super) fn is_enough(&self) -> bool {
        let (Ok(len), Some(mut known)) = (self.file.len(), self.known.try_lock()) else {
            return false;
        };
        let enough = known.is_enough(len);
        if enough {
            known.len = len;
        }
        enough
    }

    /// Looks at the file, and sets more aside where that is needed.
    pub(super) fn room(&self) -> Room {
        if self.unsupported.load(Ordering::Relaxed) {
            return Room::Unknown;
        }
        let Ok(len) = self.file.len() else {
            return Room::Unknown;
        };
        let mut known = self.known.lock();
        if len < known.len {
            // A file that is cut gives up what is behind its end.
            known.end = len;
        }
        known.len = len;
        if known.is_enough(len) {
            return Room::Enough;
        }
        match self.file.reserve(len, AHEAD_BYTES) {
            Ok(()) => {
                known.end = len + AHEAD_BYTES;
                Room::Enough
            }
            Err(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Room::None,
                io::ErrorKind::Unsupported => {
                    self.unsupported.store(true, Ordering::Relaxed);
                    Room::Unknown
                }
                // The store itself will meet it, and say so.
                _ => Room::Unknown,
            },
        }
    }
}

impl Known {
    /// Whether a file of this length has enough; never if it was cut.
    const fn is_enough(&self, len: u64) -> bool {
        self.len <= len && self.end >= len + LEFT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::disk::{Disk as _, OpenMode, PosixDisk};

    /// A file for which one can set aside so many bytes in all.
    #[derive(Debug)]
    struct Limited {
        file: Arc<dyn DiskFile>,
        limit: Mutex<u64>,
    }

    impl DiskFile for Limited {
        fn read_at(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
            self.file.read_at(position, len)
        }

        fn write_at(&self, position: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
            self.file.write_at(position, slices)
        }

        fn sync(&self) -> io::Result<()> {
            self.file.sync()
        }

        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.file.set_len(len)
        }

        fn reserve(&self, from: u64, bytes: u64) -> io::Result<()> {
            if from + bytes > *self.limit.lock() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    fn limited(limit: u64) -> (tempfile::TempDir, Arc<Limited>) {
        let dir = tempfile::tempdir().unwrap();
        let file = PosixDisk.open(&dir.path().join("f"), OpenMode::Create);
        let limit = Mutex::new(limit);
        let file = Arc::new(Limited {
            file: file.unwrap(),
            limit,
        });
        (dir, file)
    }

    #[test]
    fn changes_have_room_as_long_as_enough_is_left() {
        let (_dir, file) = limited(AHEAD_BYTES);
        let ahead = Ahead::of(Arc::clone(&file) as Arc<dyn DiskFile>);
        assert!(!ahead.is_enough());
        assert_eq!(ahead.room(), Room::Enough);
        file.set_len(AHEAD_BYTES - LEFT_BYTES).unwrap();
        assert!(ahead.is_enough());
        assert_eq!(ahead.room(), Room::Enough);
        file.set_len(AHEAD_BYTES - LEFT_BYTES + 1).unwrap();
        assert!(!ahead.is_enough());
        assert_eq!(ahead.room(), Room::None);
        *file.limit.lock() = u64::MAX;
        assert_eq!(ahead.room(), Room::Enough);
    }

    #[test]
    fn what_a_cut_took_is_set_aside_again() {
        let (_dir, file) = limited(u64::MAX);
        let ahead = Ahead::of(Arc::clone(&file) as Arc<dyn DiskFile>);
        file.set_len(100).unwrap();
        assert_eq!(ahead.room(), Room::Enough);
        file.set_len(50).unwrap();
        assert!(!ahead.is_enough());
        *file.limit.lock() = 0;
        assert_eq!(ahead.room(), Room::None);
    }

    #[test]
    fn where_nothing_can_be_set_aside_nobody_knows() {
        #[derive(Debug)]
        struct Plain(Arc<dyn DiskFile>);

        impl DiskFile for Plain {
            fn read_at(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
                self.0.read_at(position, len)
            }

            fn write_at(&self, position: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
                self.0.write_at(position, slices)
            }

            fn sync(&self) -> io::Result<()> {
                self.0.sync()
            }

            fn len(&self) -> io::Result<u64> {
                self.0.len()
            }

            fn set_len(&self, len: u64) -> io::Result<()> {
                self.0.set_len(len)
            }
        }

        let (_dir, file) = limited(u64::MAX);
        let ahead = Ahead::of(Arc::new(Plain(file)));
        assert_eq!((ahead.room(), ahead.room()), (Room::Unknown, Room::Unknown));
    }
}
