//! The footer of a sealed segment: its sparse index and summary. It repeats what the frames say; a
//! damaged footer is rebuilt from them.
//!
//! ```text
//! offset size field                         (offsets from the end of the last frame)
//!      0    4 magic "SRIX"
//!      4    4 CRC-32 of the index entries
//!      8   32 index entry, any number of them:
//!             index 8, base offset 8, position 8, largest timestamp before 8
//!          16 epoch, any number of them:
//!             term 8, index 8
//!             trailer, the last 72 bytes of the file:
//!      0    4   magic "SRTR"
//!      4    4   CRC-32 of the epochs and of the trailer after this field
//!      8    8   end of the last frame, which is where the footer begins
//!     16    4   index entries
//!     20    4   epochs
//!     24    8   last term
//!     32    8   last index
//!     40    8   next offset
//!     48    8   largest timestamp
//!     56   16   reserved, zero
//! ```

use std::path::Path;

use seriatim_proto::ids::Offset;

use super::{HEADER_BYTES, IndexEntry, Summary};
use crate::{
    LogId, Result,
    bin::{Reader, len_usize, len64},
    disk::DiskFile,
    error::IoContext,
};

/// First bytes of the footer.
pub(crate) const MAGIC: [u8; 4] = *b"SRIX";

const TRAILER_MAGIC: [u8; 4] = *b"SRTR";
const HEAD_BYTES: usize = 8;
const ENTRY_BYTES: usize = 32;
const EPOCH_BYTES: usize = 16;
const TRAILER_BYTES: usize = 72;

/// Enough to hold the trailer and the epochs of nearly every segment.
const FIRST_READ_BYTES: usize = 4096;

/// A footer without its index entries, which are read when they are needed.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) summary: Summary,
    index_entries: usize,
}

/// The footer as bytes.
pub(crate) fn encode(summary: &Summary, index: &[IndexEntry]) -> Vec<u8> {
    let last = summary.last.unwrap_or_default();
    let mut entries = Vec::with_capacity(index.len() * ENTRY_BYTES);
    for entry in index {
        entries.extend_from_slice(&entry.index.to_be_bytes());
        entries.extend_from_slice(&entry.offset.0.to_be_bytes());
        entries.extend_from_slice(&entry.position.to_be_bytes());
        entries.extend_from_slice(&entry.max_timestamp_before.to_be_bytes());
    }
    let mut epochs = Vec::with_capacity(summary.epochs.len() * EPOCH_BYTES);
    for epoch in &summary.epochs {
        epochs.extend_from_slice(&epoch.term.to_be_bytes());
        epochs.extend_from_slice(&epoch.index.to_be_bytes());
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
    let mut trailer = Vec::with_capacity(TRAILER_BYTES);
    trailer.extend_from_slice(&summary.end.to_be_bytes());
    trailer.extend_from_slice(&count(index.len()));
    trailer.extend_from_slice(&count(summary.epochs.len()));
    trailer.extend_from_slice(&last.term.to_be_bytes());
    trailer.extend_from_slice(&last.index.to_be_bytes());
    trailer.extend_from_slice(&summary.next_offset.0.to_be_bytes());
    trailer.extend_from_slice(&summary.max_timestamp.to_be_bytes());
    trailer.extend_from_slice(&[0; 16]);
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&crc32fast::hash(&entries).to_be_bytes());
    out.extend_from_slice(&entries);
    out.extend_from_slice(&epochs);
    out.extend_from_slice(&TRAILER_MAGIC);
    out.extend_from_slice(&crc_of(&epochs, &trailer).to_be_bytes());
    out.extend_from_slice(&trailer);
    out
}

fn crc_of(epochs: &[u8], trailer: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(epochs);
    hasher.update(trailer);
    hasher.finalize()
}

/// Reads trailer and epochs; `None` if the file ends in no valid trailer.
pub(crate) fn read(file: &dyn DiskFile, path: &Path) -> Result<Option<Footer>> {
    let len = file.len().at("read the length of", path)?;
    let start = len.saturating_sub(len64(FIRST_READ_BYTES));
    let bytes = file.read_at(start, FIRST_READ_BYTES).at("read", path)?;
    match parse(&bytes, len) {
        Parsed::Footer(footer) => Ok(Some(footer)),
        Parsed::None => Ok(None),
        Parsed::More(bytes) => {
            let start = len.saturating_sub(len64(bytes));
            let bytes = file.read_at(start, bytes).at("read", path)?;
            Ok(match parse(&bytes, len) {
                Parsed::Footer(footer) => Some(footer),
                Parsed::None | Parsed::More(_) => None,
            })
        }
    }
}

/// The summary and index that [`encode`] wrote, of which the last frame ends at `end`.
pub(crate) fn decode(bytes: &[u8], end: u64) -> Option<(Summary, Vec<IndexEntry>)> {
    let Parsed::Footer(footer) = parse(bytes, end.checked_add(len64(bytes.len()))?) else {
        return None;
    };
    let head = HEAD_BYTES + footer.index_entries * ENTRY_BYTES;
    let index = footer.parse_index(bytes.get(..head)?)?;
    Some((footer.summary, index))
}

enum Parsed {
    Footer(Footer),
    /// The trailer says that this many bytes at the end of the file are needed.
    More(usize),
    None,
}

fn parse(bytes: &[u8], file_len: u64) -> Parsed {
    parse_trailer(bytes, file_len).unwrap_or(Parsed::None)
}

fn parse_trailer(bytes: &[u8], file_len: u64) -> Option<Parsed> {
    let (before, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER_BYTES)?)?;
    let mut reader = Reader(trailer);
    if reader.take(TRAILER_MAGIC.len())? != TRAILER_MAGIC {
        return None;
    }
    let crc = reader.u32()?;
    let covered = reader.0;
    let end = reader.u64()?;
    let entry_count = reader.u32()? as usize;
    let epoch_count = reader.u32()? as usize;
    let (term, index) = (reader.u64()?, reader.u64()?);
    let next_offset = Offset(reader.i64()?);
    let max_timestamp = reader.i64()?;
    let footer_bytes =
        HEAD_BYTES + entry_count * ENTRY_BYTES + epoch_count * EPOCH_BYTES + TRAILER_BYTES;
    if end < HEADER_BYTES || end.checked_add(len64(footer_bytes))? != file_len {
        return None;
    }
    let epoch_bytes = epoch_count * EPOCH_BYTES;
    if before.len() < epoch_bytes {
        return Some(Parsed::More(epoch_bytes + TRAILER_BYTES));
    }
    let (_, epochs) = before.split_at_checked(before.len() - epoch_bytes)?;
    if crc_of(epochs, covered) != crc {
        return None;
    }
    let mut reader = Reader(epochs);
    let mut list = Vec::with_capacity(epoch_count);
    while let (Some(term), Some(index)) = (reader.u64(), reader.u64()) {
        list.push(LogId { term, index });
    }
    Some(Parsed::Footer(Footer {
        summary: Summary {
            end,
            last: Some(LogId { term, index }),
            next_offset,
            max_timestamp,
            epochs: list,
            sealed: true,
        },
        index_entries: entry_count,
    }))
}

impl Footer {
    /// Reads the sparse index; `None` if it is damaged.
    pub(crate) fn read_index(
        &self,
        file: &dyn DiskFile,
        path: &Path,
    ) -> Result<Option<Vec<IndexEntry>>> {
        let bytes = HEAD_BYTES + self.index_entries * ENTRY_BYTES;
        let bytes = file.read_at(self.summary.end, bytes).at("read", path)?;
        Ok(self.parse_index(&bytes))
    }

    fn parse_index(&self, bytes: &[u8]) -> Option<Vec<IndexEntry>> {
        let mut reader = Reader(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return None;
        }
        let crc = reader.u32()?;
        if reader.0.len() != self.index_entries * ENTRY_BYTES || crc32fast::hash(reader.0) != crc {
            return None;
        }
        let mut index = Vec::with_capacity(len_usize(len64(self.index_entries)));
        for _ in 0..self.index_entries {
            index.push(IndexEntry {
                index: reader.u64()?,
                offset: Offset(reader.i64()?),
                position: reader.u64()?,
                max_timestamp_before: reader.i64()?,
            });
        }
        Some(index)
    }
}

#[cfg(test)]
#[path = "footer_tests.rs"]
mod tests;
