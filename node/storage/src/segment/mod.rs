//! A segment: one file of a log, from one index and base offset on.
//!
//! ```text
//! offset size field
//!      0   16 file header (`file.rs`), kind segment; its CRC covers what follows
//!     16    8 group
//!     24    8 replica
//!     32    8 base offset
//!     40    8 first Raft index
//!     48      frames (`frame.rs`); each write round begins with a Mark frame
//!             active: zeros up to the end of the file, if the file was written ahead
//!             sealed: the footer (`footer.rs`) up to the end of the file
//! ```
//! The name is `<base offset>-<first index>.seg`, both with 20 digits. Segments of a log follow each
//! other without gaps. All but the last are sealed, and were synced before the next was created.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use seriatim_proto::ids::Offset;

use crate::{
    LogId, LogKey, Result, StorageError,
    bin::{Reader, len64},
    disk::{Disk, DiskFile, OpenMode},
    error::IoContext,
    file::{self, FileKind},
    frame::{Frame, FrameKind},
};

pub(crate) mod footer;
pub(crate) mod scan;
pub(crate) mod tail;

/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: u64 = 48;

/// Distance between entries of the sparse index.
pub(crate) const INDEX_INTERVAL: u64 = 64 << 10;

const EXTRA_BYTES: usize = 32;
const SUFFIX: &str = ".seg";
const DIGITS: usize = 20;

const _: () = assert!(file::PREFIX_BYTES + EXTRA_BYTES == 48);

/// Where an entry lies, of one entry in every [`INDEX_INTERVAL`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Raft index of the frame at `position`.
    pub(crate) index: u64,
    /// Its base offset.
    pub(crate) offset: Offset,
    /// Its first byte.
    pub(crate) position: u64,
    /// Largest timestamp in the segment before it.
    pub(crate) max_timestamp_before: i64,
}

/// What is known of a segment's frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The position after the last written frame. Readers look at no byte beyond.
    pub(crate) end: u64,
    /// The last entry.
    pub(crate) last: Option<LogId>,
    /// Offset after the last record.
    pub(crate) next_offset: Offset,
    /// No record in the segment is later; after a truncation perhaps none is as late.
    pub(crate) max_timestamp: i64,
    /// The first entry of every term in this segment.
    pub(crate) epochs: Vec<LogId>,
    /// Whether the file has its footer and is never written again.
    pub(crate) sealed: bool,
}

impl Summary {
    /// Index after the last entry.
    pub(crate) fn end_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }
}

/// One file of a log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) key: LogKey,
    pub(crate) base_offset: Offset,
    pub(crate) first_index: u64,
    pub(crate) path: PathBuf,
    pub(crate) summary: Mutex<Summary>,
    /// The sparse index; `None` until it is needed of a sealed segment.
    pub(crate) index: Mutex<Option<Vec<IndexEntry>>>,
    /// A handle for readers, kept by [`crate::handles::Handles`].
    pub(crate) reader: Mutex<Option<Arc<dyn DiskFile>>>,
}

impl Segment {
    /// A segment without frames; touches no file.
    pub(crate) fn new(key: LogKey, dir: &Path, base_offset: Offset, first_index: u64) -> Self {
        Self {
            key,
            base_offset,
            first_index,
            path: dir.join(name_of(base_offset, first_index)),
            summary: Mutex::new(Summary {
                end: HEADER_BYTES,
                last: None,
                next_offset: base_offset,
                max_timestamp: i64::MIN,
                epochs: Vec::new(),
                sealed: false,
            }),
            index: Mutex::new(Some(Vec::new())),
            reader: Mutex::new(None),
        }
    }

    /// Creates the file with its header and nothing else; not yet durable. A file of this name can
    /// only be the rest of an attempt that failed, and is emptied.
    pub(crate) fn create(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>> {
        let file = disk
            .open(&self.path, OpenMode::Create)
            .at("create", &self.path)?;
        file.set_len(0).at("empty", &self.path)?;
        let mut extra = Vec::with_capacity(EXTRA_BYTES);
        extra.extend_from_slice(&self.key.group.0.to_be_bytes());
        extra.extend_from_slice(&self.key.replica.0.to_be_bytes());
        extra.extend_from_slice(&self.base_offset.0.to_be_bytes());
        extra.extend_from_slice(&self.first_index.to_be_bytes());
        let header = file::encode_header(FileKind::Segment, &extra);
        file.write_at(0, &mut [IoSlice::new(&header)])
            .at("write", &self.path)?;
        Ok(file)
    }

    /// Opens the file for writing.
    pub(crate) fn open(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>> {
        self.opened(disk.open(&self.path, OpenMode::Write))
    }

    /// Opens the file for one reader that goes through all of it.
    pub(crate) fn open_reader(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>> {
        self.opened(disk.open(&self.path, OpenMode::Read))
    }

    /// The handle for readers.
    pub(crate) fn reader(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>> {
        let mut slot = self.reader.lock();
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let file = self.opened(disk.open(&self.path, OpenMode::Read))?;
        *slot = Some(Arc::clone(&file));
        Ok(file)
    }

    fn opened(&self, result: io::Result<Arc<dyn DiskFile>>) -> Result<Arc<dyn DiskFile>> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StorageError::damaged(&self.path, 0, "the file is missing"))
            }
            result => result.at("open", &self.path),
        }
    }

    /// Checks that the file's header is this segment's.
    pub(crate) fn check_header(&self, file: &dyn DiskFile) -> Result<()> {
        let bytes = file.read_at(0, 48).at("read", &self.path)?;
        let extra = file::parse_header(&self.path, &bytes, FileKind::Segment, EXTRA_BYTES)?;
        let mut reader = Reader(extra);
        let found = (reader.u64(), reader.u64(), reader.i64(), reader.u64());
        let own = (
            Some(self.key.group.0),
            Some(self.key.replica.0),
            Some(self.base_offset.0),
            Some(self.first_index),
        );
        if found == own {
            return Ok(());
        }
        let what = "the header belongs to another segment than the name";
        Err(StorageError::damaged(&self.path, 0, what))
    }

    /// Whether no entry of the segment is above `index`.
    pub(crate) fn ends_by(&self, index: u64) -> bool {
        self.summary
            .lock()
            .last
            .is_none_or(|last| last.index <= index)
    }

    /// Takes note of a frame that lies at `position`.
    pub(crate) fn note(
        summary: &mut Summary,
        index: &mut Vec<IndexEntry>,
        position: u64,
        frame: &Frame,
    ) {
        summary.end = position + len64(frame.total_bytes());
        if !frame.kind().is_entry() {
            return;
        }
        let id = frame.log_id();
        let last_position = index.last().map_or(HEADER_BYTES, |entry| entry.position);
        if position - last_position >= INDEX_INTERVAL {
            index.push(IndexEntry {
                index: id.index,
                offset: frame.base_offset(),
                position,
                max_timestamp_before: summary.max_timestamp,
            });
        }
        if summary
            .epochs
            .last()
            .is_none_or(|epoch| epoch.term != id.term)
        {
            summary.epochs.push(id);
        }
        summary.last = Some(id);
        summary.next_offset = frame.next_offset();
        summary.max_timestamp = summary.max_timestamp.max(frame.max_timestamp());
    }

    /// Runs `look` on the sparse index, loading it if need be.
    pub(crate) fn with_index<T>(
        &self,
        file: &dyn DiskFile,
        look: impl FnOnce(&[IndexEntry]) -> T,
    ) -> Result<T> {
        if let Some(index) = &*self.index.lock() {
            return Ok(look(index));
        }
        // Read without the lock: another reader may do the same work, and nobody waits for it.
        let index = match footer::read(file, &self.path)? {
            Some(footer) => footer.read_index(file, &self.path)?,
            None => None,
        };
        let index = match index {
            Some(index) => index,
            None => {
                let end = self.summary.lock().end;
                self.rebuild(file, end, None)?.1
            }
        };
        let found = look(&index);
        let mut slot = self.index.lock();
        if slot.is_none() {
            *slot = Some(index);
        }
        Ok(found)
    }

    /// Reads every frame below `end`, for what the footer would say. Something that is no frame is
    /// damage, unless it comes where `next` is expected: then it is a footer that rotted.
    pub(crate) fn rebuild(
        &self,
        file: &dyn DiskFile,
        end: u64,
        next: Option<(u64, Offset)>,
    ) -> Result<(Summary, Vec<IndexEntry>)> {
        let mut found = scan::Found::new(self);
        match found.run_to(file, end)? {
            scan::Stop::Zeros | scan::Stop::Footer | scan::Stop::End => {}
            scan::Stop::Bad { .. } if next == Some((found.next_index(), found.next_offset())) => {}
            scan::Stop::Bad { position, error } => {
                return Err(StorageError::damaged(
                    &self.path,
                    position,
                    error.to_string(),
                ));
            }
        }
        Ok((found.summary, found.index))
    }
}

/// A segment's file name.
pub(crate) fn name_of(base_offset: Offset, first_index: u64) -> String {
    format!("{:0DIGITS$}-{first_index:0DIGITS$}{SUFFIX}", base_offset.0)
}

/// Base offset and first index, if the name is a segment's.
pub(crate) fn parse_name(name: &str) -> Option<(Offset, u64)> {
    let (offset, index) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let offset = Offset(offset.parse().ok()?);
    let index = index.parse().ok()?;
    (name_of(offset, index) == name).then_some((offset, index))
}

/// The Mark frame that begins a round: entries below `synced_end` were durable before it.
pub(crate) fn mark(before: LogId, next_offset: Offset, synced_end: u64) -> Frame {
    let payload = bytes::Bytes::copy_from_slice(&synced_end.to_be_bytes());
    Frame::other(FrameKind::Mark, before, next_offset, payload)
}

/// What a Mark frame says.
pub(crate) fn mark_of(frame: &Frame) -> Option<u64> {
    if frame.kind() != FrameKind::Mark {
        return None;
    }
    Reader(frame.body()).u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = name_of(Offset(12), 34);
        assert_eq!(name, "00000000000000000012-00000000000000000034.seg");
        assert_eq!(parse_name(&name), Some((Offset(12), 34)));
        for bad in [
            "12-34.seg",
            "00000000000000000012-00000000000000000034.seg.tmp",
            "x",
            "",
        ] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn golden_header() {
        let disk = crate::disk::sim::SimDisk::new(1);
        let key = "g3-r4".parse().unwrap();
        let segment = Segment::new(key, Path::new("/"), Offset(0x55), 0x66);
        let file = segment.create(&disk).unwrap();
        let bytes = file.read_at(0, 100).unwrap();
        crate::golden::check("segment_header.bin", &bytes);
        segment.check_header(&*file).unwrap();
        let other = Segment::new(key, Path::new("/"), Offset(0x55), 0x67);
        assert!(other.check_header(&*file).unwrap_err().is_damage());
    }

    #[test]
    fn marks() {
        let frame = mark(LogId { term: 1, index: 2 }, Offset(3), 9);
        assert_eq!(mark_of(&frame), Some(9));
    }
}
