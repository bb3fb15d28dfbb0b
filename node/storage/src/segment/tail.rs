//! Telling a torn tail from damage (promise P7).
//!
//! A write that no sync confirmed may be lost in any part; nothing in it was acknowledged, and it is cut
//! in silence. Bytes that a sync confirmed must all be there. What separates the two:
//!
//! - The space behind the last synced byte holds zeros or lies beyond the end of the file, because it was
//!   never written or was cut. A disk writes whole sectors. So where a write was lost, at least one sector
//!   of the frame still has its zeros (or the file ends). A frame that fails its checksum although
//!   none of its sectors is missing was written and changed later: damage.
//! - Each round begins with a Mark that names the entries synced before it. A Mark behind the bad
//!   place that covers the missing entry proves damage, and so do the progress file and the checkpoint, which
//!   name entries synced earlier.

use bytes::Bytes;

use super::{Segment, scan};
use crate::{
    Result,
    bin::{len_usize, len64},
    disk::DiskFile,
    error::IoContext,
    frame::{self, Frame, FrameError, FrameHeader, HEADER_BYTES},
};

/// The unit that a disk writes in full or not at all.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// The same as a length in memory.
pub(crate) const SECTOR_LEN: usize = 512;

/// Bytes searched at a time for what lies behind a bad place.
const CHUNK_BYTES: usize = 4 << 20;

/// What lies behind the last good frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing but zeros, or nothing.
    Clean,
    /// The rest of a write that no sync confirmed; to be cut.
    Torn,
    /// Durable bytes were lost or changed.
    Damaged(String),
}

/// Judges what lies at `position`, where `stop` ended a scan; `next_index` is the entry missed there.
pub(crate) fn judge(
    segment: &Segment,
    file: &dyn DiskFile,
    stop: &scan::Stop,
    position: u64,
    next_index: u64,
) -> Result<Tail> {
    if *stop == scan::Stop::End {
        return Ok(Tail::Clean);
    }
    let behind = look_behind(segment, file, position, next_index)?;
    if behind.all_zeros {
        return Ok(Tail::Clean);
    }
    if let Some((at, synced_end)) = behind.mark {
        let what = format!(
            "entry {next_index} is missing, but byte {at} says that all below {synced_end} were durable"
        );
        return Ok(Tail::Damaged(what));
    }
    let extent = behind
        .frame
        .unwrap_or(u64::MAX)
        .min(claimed_end(segment, file, position)?);
    if *stop == scan::Stop::Footer || lost_sector(segment, file, position, extent)? {
        // A footer that is not valid was not synced, or has been damaged; it only repeats what
        // the frames say, which are all there.
        return Ok(Tail::Torn);
    }
    Ok(Tail::Damaged(match stop {
        scan::Stop::Bad { error, .. } => {
            format!(
                "entry {next_index} cannot be read although all its sectors were written: {error}"
            )
        }
        _ => format!("entry {next_index} is missing although its sectors were written"),
    }))
}

/// What was found from a bad place to the end of the file.
#[derive(Debug, Default)]
struct Behind {
    all_zeros: bool,
    /// The first valid frame.
    frame: Option<u64>,
    /// A Mark that covers the missing entry: its position and what it says.
    mark: Option<(u64, u64)>,
}

fn look_behind(
    segment: &Segment,
    file: &dyn DiskFile,
    position: u64,
    next_index: u64,
) -> Result<Behind> {
    let path = &segment.path;
    let mut behind = Behind {
        all_zeros: true,
        ..Behind::default()
    };
    let mut at = position;
    loop {
        // Chunks overlap by less than a magic, so that none is missed between two.
        let bytes = Bytes::from(file.read_at(at, CHUNK_BYTES).at("read", path)?);
        behind.all_zeros &= is_zeros(&bytes);
        for start in candidates(&bytes) {
            let found_at = at + len64(start);
            if found_at == position {
                continue;
            }
            let Some(frame) = frame_at(segment, file, found_at)? else {
                continue;
            };
            if frame.kind().is_entry() && frame.log_id().index < next_index {
                continue;
            }
            behind.frame = behind.frame.or(Some(found_at));
            if let Some(synced_end) = super::mark_of(&frame)
                && synced_end > next_index
            {
                behind.mark = Some((found_at, synced_end));
                return Ok(behind);
            }
        }
        if bytes.len() < CHUNK_BYTES {
            return Ok(behind);
        }
        at += len64(CHUNK_BYTES - frame::MAGIC.len() + 1);
    }
}

/// Where the magic of a frame occurs. Most of what lies behind a tail are zeros, which are passed over
/// by blocks.
fn candidates(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let blocks = bytes.chunks(ZEROS.len()).enumerate();
    let blocks = blocks.filter(|(_, block)| !is_zeros(block));
    blocks.flat_map(|(number, block)| {
        let start = number * ZEROS.len();
        let end = bytes
            .len()
            .min(start + block.len() + frame::MAGIC.len() - 1);
        let windows = bytes
            .get(start..end)
            .unwrap_or_default()
            .windows(frame::MAGIC.len())
            .enumerate();
        windows
            .filter(|(_, window)| *window == frame::MAGIC)
            .map(move |(at, _)| start + at)
    })
}

static ZEROS: [u8; 4096] = [0; 4096];

fn is_zeros(bytes: &[u8]) -> bool {
    let mut blocks = bytes.chunks(ZEROS.len());
    blocks.all(|block| ZEROS.starts_with(block))
}

fn frame_at(segment: &Segment, file: &dyn DiskFile, position: u64) -> Result<Option<Frame>> {
    let path = &segment.path;
    let head = file.read_at(position, HEADER_BYTES).at("read", path)?;
    let Ok(header) = FrameHeader::parse(&head) else {
        return Ok(None);
    };
    let bytes = file
        .read_at(position, header.total_bytes())
        .at("read", path)?;
    Ok(Frame::parse(Bytes::from(bytes))
        .ok()
        .map(|(frame, _)| frame))
}

/// Where the frame at `position` would end by its own header, if that much can be read.
fn claimed_end(segment: &Segment, file: &dyn DiskFile, position: u64) -> Result<u64> {
    let head = file
        .read_at(position, HEADER_BYTES)
        .at("read", &segment.path)?;
    Ok(position
        + match FrameHeader::parse(&head) {
            Ok(header) => len64(header.total_bytes()),
            Err(FrameError::Short { .. }) => return Ok(u64::MAX),
            Err(_) => len64(HEADER_BYTES),
        })
}

/// Whether a sector's part of `from..to` consists of zeros, or lies beyond the end of the file.
fn lost_sector(segment: &Segment, file: &dyn DiskFile, from: u64, to: u64) -> Result<bool> {
    let path = &segment.path;
    if to > file.len().at("read the length of", path)? {
        return Ok(true);
    }
    let bytes = file.read_at(from, len_usize(to - from)).at("read", path)?;
    let mut rest = &bytes[..];
    let mut part = len_usize(SECTOR_BYTES - from % SECTOR_BYTES);
    while !rest.is_empty() {
        let (sector, after) = rest.split_at_checked(part).unwrap_or((rest, &[]));
        if sector.iter().all(|&byte| byte == 0) {
            return Ok(true);
        }
        rest = after;
        part = len_usize(SECTOR_BYTES);
    }
    Ok(false)
}
