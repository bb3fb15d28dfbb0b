//! The progress file: for every log of the node how far it is synced and committed. Written after a
//! round and left to the page cache; after a crash it is a hint that may be old, never one that is wrong.
//!
//! ```text
//! offset size field
//!      0   64 file header (`file.rs`), kind progress, padded with zeros
//!     64   64 slot, any number of them:
//!        0  4   CRC-32 of the rest of the slot
//!        4  4   1 if the log has a committed entry, else 0
//!        8  8   group
//!       16  8   replica
//!       24  8   index after the last synced entry
//!       32  8   term of the last committed entry
//!       40  8   its index
//!       48 16   reserved, zero
//! ```
//! A slot of zeros is free. A slot that fails its CRC was torn, and says nothing.

use std::{
    collections::BTreeMap,
    io::IoSlice,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use seriatim_proto::ids::{GroupId, ReplicaId};
use seriatim_runtime::hit;

use crate::{
    LogId, LogKey, Result, StorageError,
    bin::{Reader, len_usize, len64},
    disk::{Disk, DiskFile, OpenMode},
    error::IoContext,
    file::{self, FileKind},
};

const SLOT_BYTES: usize = 64;

/// How far a log has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogProgress {
    /// Every entry below is durable.
    pub(crate) synced_end: u64,
    /// The last committed entry known here.
    pub(crate) committed: Option<LogId>,
}

/// The file and who has which slot.
#[derive(Debug)]
pub(crate) struct Progress {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    by_key: BTreeMap<LogKey, (u64, LogProgress)>,
    free: Vec<u64>,
    /// Slots in the file.
    count: u64,
}

impl Progress {
    /// Opens the file, created if absent. A damaged header only costs the hints.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let path = dir.join("progress");
        let file = disk.open(&path, OpenMode::Create).at("open", &path)?;
        let len = file.len().at("read the length of", &path)?;
        let bytes = file.read_at(0, len_usize(len)).at("read", &path)?;
        let header_bytes = len64(SLOT_BYTES);
        let slots = match file::parse_header(&path, &bytes, FileKind::Progress, 0) {
            Ok(_) => read_slots(bytes.get(SLOT_BYTES..).unwrap_or_default()),
            Err(error @ StorageError::Version { .. }) => return Err(error),
            Err(error) => {
                if len > 0 {
                    hit!("storage.progress.anew");
                    tracing::warn!(%error, "start the progress file anew");
                }
                file.set_len(0).at("empty", &path)?;
                let header = file::encode_header(FileKind::Progress, &[]);
                file.write_at(0, &mut [IoSlice::new(&header)])
                    .at("write", &path)?;
                file.set_len(header_bytes).at("extend", &path)?;
                Slots::default()
            }
        };
        Ok(Self {
            path,
            file,
            slots: Mutex::new(slots),
        })
    }

    /// What is known of a log.
    pub(crate) fn get(&self, key: LogKey) -> LogProgress {
        self.slots
            .lock()
            .by_key
            .get(&key)
            .map_or_else(LogProgress::default, |slot| slot.1)
    }

    /// Writes a log's progress, not synced.
    pub(crate) fn put(&self, key: LogKey, progress: LogProgress) -> Result<()> {
        let slot = {
            let mut slots = self.slots.lock();
            let slot = match slots.by_key.get(&key) {
                Some((_, same)) if *same == progress => return Ok(()),
                Some((slot, _)) => *slot,
                // A log without a slot has nothing to take back.
                None if progress == LogProgress::default() => return Ok(()),
                None => slots.free.pop().unwrap_or_else(|| {
                    slots.count += 1;
                    slots.count - 1
                }),
            };
            // What the file says is not known before the write is done.
            let _ = slots.by_key.insert(key, (slot, LogProgress::default()));
            slot
        };
        self.write(slot, &encode(key, progress))?;
        if let Some(known) = self.slots.lock().by_key.get_mut(&key) {
            known.1 = progress;
        }
        Ok(())
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().at("sync", &self.path)
    }

    /// Forgets a log.
    pub(crate) fn remove(&self, key: LogKey) -> Result<()> {
        let Some((slot, _)) = self.slots.lock().by_key.remove(&key) else {
            return Ok(());
        };
        self.write(slot, &[0; SLOT_BYTES])?;
        self.slots.lock().free.push(slot);
        Ok(())
    }

    fn write(&self, slot: u64, bytes: &[u8]) -> Result<()> {
        let position = (slot + 1) * len64(SLOT_BYTES);
        self.file
            .write_at(position, &mut [IoSlice::new(bytes)])
            .at("write", &self.path)
    }
}

/// Reads the hints of a data directory without touching it; also returns what is damaged.
pub(crate) fn read_all(disk: &dyn Disk, dir: &Path) -> Result<(Hints, Vec<StorageError>)> {
    let path = dir.join("progress");
    let mut damaged = Vec::new();
    let Ok(file) = disk.open(&path, OpenMode::Read) else {
        return Ok((Hints::new(), damaged));
    };
    let len = file.len().at("read the length of", &path)?;
    let bytes = file.read_at(0, len_usize(len)).at("read", &path)?;
    let is_lost = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    if bytes.get(..SLOT_BYTES).is_none_or(is_lost) {
        // Never synced, and the power was lost.
        return Ok((Hints::new(), damaged));
    }
    if let Err(error) = file::parse_header(&path, &bytes, FileKind::Progress, 0) {
        return Ok((Hints::new(), vec![error]));
    }
    let slots = bytes.get(SLOT_BYTES..).unwrap_or_default();
    for (number, slot) in (1u64..).zip(slots.chunks(SLOT_BYTES)) {
        if !is_lost(slot) && decode(slot).is_none() {
            let position = number * len64(SLOT_BYTES);
            let what = "the CRC of a log's progress does not match";
            damaged.push(StorageError::damaged(&path, position, what));
        }
    }
    let hints = read_slots(slots).by_key.into_iter();
    let hints = hints.map(|(key, (_, progress))| (key, progress)).collect();
    Ok((hints, damaged))
}

type Hints = BTreeMap<LogKey, LogProgress>;

fn read_slots(bytes: &[u8]) -> Slots {
    let mut slots = Slots::default();
    for chunk in bytes.chunks(SLOT_BYTES) {
        let slot = slots.count;
        slots.count += 1;
        match decode(chunk) {
            Some((key, progress)) => {
                let _ = slots.by_key.insert(key, (slot, progress));
            }
            None => slots.free.push(slot),
        }
    }
    slots
}

fn encode(key: LogKey, progress: LogProgress) -> Vec<u8> {
    let committed = progress.committed.unwrap_or_default();
    let mut rest = Vec::with_capacity(SLOT_BYTES);
    rest.extend_from_slice(&u32::from(progress.committed.is_some()).to_be_bytes());
    rest.extend_from_slice(&key.group.0.to_be_bytes());
    rest.extend_from_slice(&key.replica.0.to_be_bytes());
    rest.extend_from_slice(&progress.synced_end.to_be_bytes());
    rest.extend_from_slice(&committed.term.to_be_bytes());
    rest.extend_from_slice(&committed.index.to_be_bytes());
    rest.extend_from_slice(&[0; 16]);
    let mut out = crc32fast::hash(&rest).to_be_bytes().to_vec();
    out.extend_from_slice(&rest);
    debug_assert_eq!(out.len(), SLOT_BYTES);
    out
}

fn decode(slot: &[u8]) -> Option<(LogKey, LogProgress)> {
    let mut reader = Reader(slot);
    let crc = reader.u32()?;
    if reader.0.len() != SLOT_BYTES - 4 || crc32fast::hash(reader.0) != crc {
        return None;
    }
    let has_committed = reader.u32()? == 1;
    let key = LogKey {
        group: GroupId(reader.u64()?),
        replica: ReplicaId(reader.u64()?),
    };
    let synced_end = reader.u64()?;
    let committed = LogId {
        term: reader.u64()?,
        index: reader.u64()?,
    };
    Some((
        key,
        LogProgress {
            synced_end,
            committed: has_committed.then_some(committed),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::PosixDisk;

    fn key(group: u64) -> LogKey {
        LogKey {
            group: GroupId(group),
            replica: ReplicaId(1),
        }
    }

    fn progress(synced_end: u64) -> LogProgress {
        LogProgress {
            synced_end,
            committed: Some(LogId {
                term: 1,
                index: synced_end,
            }),
        }
    }

    #[test]
    fn survives_reopening_and_reuses_slots() {
        let dir = tempfile::tempdir().unwrap();
        let file = Progress::open(&PosixDisk, dir.path()).unwrap();
        for group in 0..10 {
            file.put(key(group), progress(group)).unwrap();
        }
        file.put(key(3), progress(33)).unwrap();
        file.remove(key(4)).unwrap();
        file.put(key(11), progress(11)).unwrap();
        let len = file.file.len().unwrap();
        let file = Progress::open(&PosixDisk, dir.path()).unwrap();
        assert_eq!(file.get(key(3)), progress(33));
        assert_eq!(file.get(key(4)), LogProgress::default());
        assert_eq!(file.get(key(11)), progress(11));
        assert_eq!(len, 11 * 64);
    }

    #[test]
    fn golden_progress() {
        let dir = tempfile::tempdir().unwrap();
        let file = Progress::open(&PosixDisk, dir.path()).unwrap();
        file.put(key(1), progress(5)).unwrap();
        let nothing_committed = LogProgress {
            synced_end: 9,
            committed: None,
        };
        file.put(key(2), nothing_committed).unwrap();
        let bytes = std::fs::read(dir.path().join("progress")).unwrap();
        crate::golden::check("progress.bin", &bytes);
    }

    #[test]
    fn a_torn_slot_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = Progress::open(&PosixDisk, dir.path()).unwrap();
        file.put(key(0), progress(5)).unwrap();
        file.put(key(1), progress(6)).unwrap();
        let path = dir.path().join("progress");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[64 + 30] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let file = Progress::open(&PosixDisk, dir.path()).unwrap();
        assert_eq!(file.get(key(0)), LogProgress::default());
        assert_eq!(file.get(key(1)), progress(6));
    }
}
