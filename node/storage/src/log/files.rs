//! Reading a log's files: frames of a segment, and the small files beside the segments.
//!
//! Bodies of the small files (`file.rs` has what comes before), integers big-endian:
//! ```text
//! start:       term 8, index 8, offset 8
//! checkpoint:  term 8, index 8, data
//! boundary:    term 8, index 8, next offset 8, length of the membership 8, membership, state
//! resume:      first index 8 and base offset 8 of the active segment, a position in it 8, then the
//!              footer that it would have if it ended there (`segment/footer.rs`)
//! ```
//! The resume file is a hint that makes recovery short: everything before its position was synced when it
//! was written. It is removed before the segment is cut.

use std::path::Path;

use bytes::Bytes;
use seriatim_proto::ids::Offset;
use seriatim_runtime::mutant::{self, Mutant};

use super::state::Start;
use crate::{
    Boundary, LogId, Result, StorageError,
    bin::{Reader, len_usize, len64},
    core::Core,
    disk::Disk,
    error::IoContext,
    file::{self, FileKind},
    frame::Frame,
    segment::{
        HEADER_BYTES, INDEX_INTERVAL, IndexEntry, Segment, Summary, footer,
        scan::{Frames, Step},
    },
};
use std::sync::Arc;

/// Name of the file that says where the log begins.
pub(crate) const START: &str = "start";
/// Name of the state machine's checkpoint.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// Name of the boundary.
pub(crate) const BOUNDARY: &str = "boundary";

/// Name of the file that says where the scan of the active segment may begin.
pub(crate) const RESUME: &str = "resume";

/// Most bytes of one read from a file.
const READ_BYTES_MAX: usize = 8 << 20;

/// Where an entry lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) base_offset: Offset,
}

/// By what a reader looks for its first frame.
#[derive(Debug, Clone, Copy)]
pub(super) enum From {
    Index(u64),
    Offset(Offset),
    /// The first batch that may hold a record of this time or later.
    Time(i64),
}

impl From {
    /// Whether the frame lies before what is looked for.
    pub(super) fn is_after(self, frame: &Frame) -> bool {
        match self {
            Self::Index(index) => frame.log_id().index < index,
            Self::Offset(offset) => frame.next_offset() <= offset,
            Self::Time(time) => frame.max_timestamp() < time,
        }
    }

    fn entry_is_before(self, entry: &IndexEntry) -> bool {
        match self {
            Self::Index(index) => entry.index <= index,
            Self::Offset(offset) => entry.offset <= offset,
            Self::Time(time) => entry.max_timestamp_before < time,
        }
    }
}

/// Shows the entries of one segment from `from` on to `each` until it returns `false`; reads about
/// `chunk` bytes at a time, and verifies every checksum.
pub(super) fn scan_entries(
    core: &Core,
    segment: &Arc<Segment>,
    from: From,
    chunk: usize,
    each: &mut dyn FnMut(u64, Frame) -> bool,
) -> Result<()> {
    let disk = &*core.disk;
    let file = core.handles.open(disk, segment)?;
    let start = segment.with_index(&*file, |index| {
        let mut after = index.partition_point(|entry| from.entry_is_before(entry));
        if mutant::on(Mutant::IndexOffByOne) && matches!(from, From::Offset(_)) {
            after = index.len().min(after + 1);
        }
        after
            .checked_sub(1)
            .and_then(|at| index.get(at))
            .map_or(HEADER_BYTES, |e| e.position)
    })?;
    let end = segment.summary.lock().end;
    let chunk = chunk
        .saturating_add(len_usize(INDEX_INTERVAL))
        .min(READ_BYTES_MAX);
    let mut frames = Frames::new(&*file, &segment.path, start, end, chunk);
    loop {
        let position = frames.position;
        match frames.next()? {
            Step::Frame(at, frame) => {
                core.engine
                    .metrics
                    .read_bytes
                    .increment(len64(frame.total_bytes()));
                if frame.kind().is_entry() && !from.is_after(&frame) && !each(at, frame) {
                    return Ok(());
                }
            }
            Step::End => return Ok(()),
            Step::Bad(error) => {
                return Err(StorageError::damaged(
                    &segment.path,
                    position,
                    error.to_string(),
                ));
            }
            Step::Zeros | Step::Footer => {
                let what = "a frame is missing where one was written";
                return Err(StorageError::damaged(&segment.path, position, what));
            }
        }
    }
}

/// Where in its segment an entry lies.
pub(super) fn place_of(core: &Core, segment: &Arc<Segment>, index: u64) -> Result<Place> {
    let mut place = None;
    scan_entries(
        core,
        segment,
        From::Index(index),
        0,
        &mut |position, frame| {
            if frame.log_id().index == index {
                place = Some(Place {
                    position,
                    base_offset: frame.base_offset(),
                });
            }
            false
        },
    )?;
    place.ok_or_else(|| {
        let end = segment.summary.lock().end;
        StorageError::damaged(
            &segment.path,
            end,
            format!("entry {index} is not in the file"),
        )
    })
}

/// Writes where the log begins; durable on return.
pub(super) fn write_start(
    disk: &dyn Disk,
    dir: &Path,
    purged: LogId,
    offset: Offset,
) -> Result<()> {
    let parts: [&[u8]; 3] = [
        &purged.term.to_be_bytes(),
        &purged.index.to_be_bytes(),
        &offset.0.to_be_bytes(),
    ];
    file::write_small(disk, &dir.join(START), FileKind::Start, &parts)
}

/// Reads where the log begins.
pub(crate) fn read_start(disk: &dyn Disk, dir: &Path) -> Result<Option<Start>> {
    let path = dir.join(START);
    let Some(body) = file::read_small(disk, &path, FileKind::Start)? else {
        return Ok(None);
    };
    let mut reader = Reader(&body);
    let fields = || Some((read_id(&mut reader)?, reader.i64()?));
    let mut fields = fields;
    let (purged, offset) = fields().ok_or_else(|| too_short(&path))?;
    Ok(Some(Start {
        purged: Some(purged),
        offset: Offset(offset),
    }))
}

/// Writes a checkpoint; durable on return.
pub(super) fn write_checkpoint(disk: &dyn Disk, dir: &Path, at: LogId, data: &[u8]) -> Result<()> {
    let parts: [&[u8]; 3] = [&at.term.to_be_bytes(), &at.index.to_be_bytes(), data];
    file::write_small(disk, &dir.join(CHECKPOINT), FileKind::Checkpoint, &parts)
}

/// Reads the checkpoint.
pub(crate) fn read_checkpoint(disk: &dyn Disk, dir: &Path) -> Result<Option<(LogId, Bytes)>> {
    let path = dir.join(CHECKPOINT);
    let Some(body) = file::read_small(disk, &path, FileKind::Checkpoint)? else {
        return Ok(None);
    };
    let mut reader = Reader(&body);
    let at = read_id(&mut reader).ok_or_else(|| too_short(&path))?;
    Ok(Some((at, body.slice(16..))))
}

/// Writes a boundary; durable on return.
pub(super) fn write_boundary(disk: &dyn Disk, dir: &Path, boundary: &Boundary) -> Result<()> {
    let parts: [&[u8]; 6] = [
        &boundary.log_id.term.to_be_bytes(),
        &boundary.log_id.index.to_be_bytes(),
        &boundary.next_offset.0.to_be_bytes(),
        &len64(boundary.membership.len()).to_be_bytes(),
        &boundary.membership,
        &boundary.state,
    ];
    file::write_small(disk, &dir.join(BOUNDARY), FileKind::Boundary, &parts)
}

/// Reads the boundary.
pub(crate) fn read_boundary(disk: &dyn Disk, dir: &Path) -> Result<Option<Boundary>> {
    let path = dir.join(BOUNDARY);
    let Some(body) = file::read_small(disk, &path, FileKind::Boundary)? else {
        return Ok(None);
    };
    let mut reader = Reader(&body);
    let fields = || {
        let log_id = read_id(&mut reader)?;
        let next_offset = Offset(reader.i64()?);
        let membership_bytes = len_usize(reader.u64()?);
        let membership = body.slice_ref(reader.take(membership_bytes)?);
        Some(Boundary {
            log_id,
            next_offset,
            membership,
            state: body.slice_ref(reader.0),
        })
    };
    let mut fields = fields;
    fields().ok_or_else(|| too_short(&path)).map(Some)
}

/// Remembers that a segment was whole and synced up to the end of `summary`.
pub(super) fn write_resume(
    disk: &dyn Disk,
    dir: &Path,
    segment: &Segment,
    summary: &Summary,
    index: &[IndexEntry],
) -> Result<()> {
    let parts: [&[u8]; 4] = [
        &segment.first_index.to_be_bytes(),
        &segment.base_offset.0.to_be_bytes(),
        &summary.end.to_be_bytes(),
        &footer::encode(summary, index),
    ];
    file::write_hint(disk, &dir.join(RESUME), FileKind::Resume, &parts)
}

/// What was remembered of a segment, if anything and if it is whole.
pub(super) fn read_resume(
    disk: &dyn Disk,
    dir: &Path,
    segment: &Segment,
) -> Result<Option<(Summary, Vec<IndexEntry>)>> {
    let path = dir.join(RESUME);
    let body = match file::read_small(disk, &path, FileKind::Resume) {
        Err(StorageError::Damaged { .. }) | Ok(None) => return Ok(None),
        Ok(Some(body)) => body,
        Err(error) => return Err(error),
    };
    let mut reader = Reader(&body);
    let mut fields = || Some((reader.u64()?, reader.i64()?, reader.u64()?));
    let Some((first_index, base_offset, end)) = fields() else {
        return Ok(None);
    };
    if (first_index, Offset(base_offset)) != (segment.first_index, segment.base_offset) {
        return Ok(None);
    }
    let known = footer::decode(reader.0, end);
    Ok(known.map(|(summary, index)| {
        let sealed = false;
        (Summary { sealed, ..summary }, index)
    }))
}

/// Removes the resume file; durable on return.
pub(super) fn remove_resume(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let path = dir.join(RESUME);
    match disk.remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => {
            result.at("remove", &path)?;
            disk.sync_dir(dir).at("sync", dir)
        }
    }
}

fn read_id(reader: &mut Reader<'_>) -> Option<LogId> {
    Some(LogId {
        term: reader.u64()?,
        index: reader.u64()?,
    })
}

fn too_short(path: &Path) -> StorageError {
    StorageError::damaged(path, 0, "the file is too short for its fields")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::OpenMode, golden};

    #[test]
    fn golden_small_files() {
        let disk = crate::disk::sim::SimDisk::new(1);
        let dir = Path::new("/");
        let at = LogId { term: 2, index: 9 };
        let boundary = Boundary {
            log_id: at,
            next_offset: Offset(31),
            membership: Bytes::from_static(b"members"),
            state: Bytes::from_static(b"state"),
        };
        write_start(&disk, dir, at, Offset(31)).unwrap();
        write_checkpoint(&disk, dir, at, b"data").unwrap();
        write_boundary(&disk, dir, &boundary).unwrap();
        for name in [START, CHECKPOINT, BOUNDARY] {
            let file = disk.open(&dir.join(name), OpenMode::Read).unwrap();
            golden::check(&format!("{name}.bin"), &file.read_at(0, 1000).unwrap());
        }
        let segment = Segment::new("g1-r1".parse().unwrap(), dir, Offset(4), 5);
        let summary = Summary {
            end: 900,
            last: Some(LogId { term: 2, index: 8 }),
            next_offset: Offset(30),
            max_timestamp: 77,
            epochs: vec![LogId { term: 2, index: 5 }],
            sealed: false,
        };
        write_resume(&disk, dir, &segment, &summary, &[]).unwrap();
        let file = disk.open(&dir.join(RESUME), OpenMode::Read).unwrap();
        golden::check("resume.bin", &file.read_at(0, 1000).unwrap());
        let resume = read_resume(&disk, dir, &segment).unwrap();
        assert_eq!(resume, Some((summary, Vec::new())));
        let other = Segment::new(segment.key, dir, Offset(4), 6);
        assert_eq!(read_resume(&disk, dir, &other).unwrap(), None);
        remove_resume(&disk, dir).unwrap();
        remove_resume(&disk, dir).unwrap();
        assert_eq!(read_resume(&disk, dir, &segment).unwrap(), None);
        let start = read_start(&disk, dir).unwrap().unwrap();
        assert_eq!((start.purged, start.offset), (Some(at), Offset(31)));
        let checkpoint = read_checkpoint(&disk, dir).unwrap();
        assert_eq!(checkpoint, Some((at, Bytes::from_static(b"data"))));
        assert_eq!(read_boundary(&disk, dir).unwrap(), Some(boundary));
    }
}
