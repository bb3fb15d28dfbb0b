//! The frame: the unit of the log on disk and of replication between nodes.
//!
//! ```text
//! offset size field
//!      0    4 magic "SRFM"
//!      4    1 format version = 1
//!      5    1 kind
//!      6    2 reserved, zero
//!      8    4 length             (bytes after this 40-byte header)
//!     12    4 CRC-32             (over 0..12, 16..40 and the covered part of what follows)
//!     16    8 term
//!     24    8 Raft index
//!     32    8 base offset        (of the first record; for other kinds the offset that comes next)
//!     40      batch: record batch, of which the CRC-32 covers the 61-byte header; the batch's own
//!             CRC-32C covers the rest
//!             other kinds: payload, covered by the CRC-32 in full
//! ```
//! Integers are big-endian. Frames follow each other without gaps. A frame of a replicated kind has
//! the same bytes on every replica; `Mark` and `Pad` are local to one file and take no index.

use bytes::{Bytes, BytesMut};
use seriatim_proto::{
    batch::{self, BatchError, BatchHeader, RecordBatch},
    ids::{LeaderEpoch, Offset},
    limits,
};
use seriatim_runtime::mutant::{self, Mutant};

use crate::{LogId, bin::Reader};

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"SRFM";

/// The one version of the format so far.
pub const VERSION: u8 = 1;

/// Bytes of a frame before its batch or payload.
pub const HEADER_BYTES: usize = 40;

/// Bytes before a batch's records: the frame header and the batch header.
pub const BATCH_HEAD_BYTES: usize = HEADER_BYTES + batch::HEADER_BYTES;

/// Largest frame.
pub const MAX_FRAME_BYTES: usize = HEADER_BYTES + limits::MAX_BATCH_BYTES;

const CRC_AT: usize = 12;
const CRC_END: usize = 16;

const _: () = assert!(CRC_END + 3 * 8 == HEADER_BYTES);
const _: () = assert!(BATCH_HEAD_BYTES == 101);

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A record batch; the only kind that takes offsets.
    Batch = 1,
    /// The empty entry with which a leader begins its term.
    Blank = 2,
    /// A membership of the group.
    Membership = 3,
    /// A command on the state machine.
    Command = 4,
    /// Reserved: where a partition begins is a command of its log.
    LogStart = 5,
    /// Local: how far this log was durable when the round began.
    Mark = 16,
    /// Local: fills space.
    Pad = 17,
}

impl FrameKind {
    /// Whether the frame is an entry of the Raft log.
    pub const fn is_entry(self) -> bool {
        !matches!(self, Self::Mark | Self::Pad)
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Batch,
            2 => Self::Blank,
            3 => Self::Membership,
            4 => Self::Command,
            5 => Self::LogStart,
            16 => Self::Mark,
            17 => Self::Pad,
            _ => return None,
        })
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a frame needs here.
    #[error("the frame is cut short: {have} bytes of {need}")]
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
    /// Not the beginning of a frame.
    #[error("no frame begins here")]
    Magic,
    /// A version not known here.
    #[error("frame version {0} is not known")]
    Version(u8),
    /// A kind not known here.
    #[error("frame kind {0} is not known")]
    Kind(u8),
    /// A length that no frame of its kind has.
    #[error("frame length {0} is out of range")]
    Length(u32),
    /// The CRC-32 does not match.
    #[error("frame CRC is {computed:#010x}, its header says {stored:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The batch inside is not right.
    #[error("record batch: {0}")]
    Batch(BatchError),
    /// Frame and batch header disagree, although both checksums match.
    #[error("frame and record batch disagree about the base offset or the term")]
    Mismatch,
}

/// The fields of a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame holds.
    pub kind: FrameKind,
    /// Bytes after the header.
    pub length: u32,
    /// CRC-32 of header and covered part.
    pub crc: u32,
    /// Position in the Raft log; of local kinds, that of the entry before.
    pub log_id: LogId,
    /// Offset of the first record, or the offset that comes next.
    pub base_offset: Offset,
}

impl FrameHeader {
    /// Reads a header; checks magic, version, kind and length, and no checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let short = FrameError::Short {
            have: bytes.len(),
            need: HEADER_BYTES,
        };
        let mut reader = Reader(bytes);
        let magic = reader.take(MAGIC.len()).ok_or_else(|| short.clone())?;
        if magic != MAGIC {
            return Err(FrameError::Magic);
        }
        let mut words = || Some((reader.u8()?, reader.u8()?, reader.u16()?, reader.u32()?));
        let (version, kind, _reserved, length) = words().ok_or_else(|| short.clone())?;
        let mut rest = || Some((reader.u32()?, reader.u64()?, reader.u64()?, reader.i64()?));
        let (crc, term, index, offset) = rest().ok_or(short)?;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = FrameKind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
        let least = if kind == FrameKind::Batch {
            batch::HEADER_BYTES
        } else {
            0
        };
        let len = length as usize;
        if len < least || len > limits::MAX_BATCH_BYTES {
            return Err(FrameError::Length(length));
        }
        Ok(Self {
            kind,
            length,
            crc,
            log_id: LogId { term, index },
            base_offset: Offset(offset),
        })
    }

    /// Size of the whole frame.
    pub const fn total_bytes(&self) -> usize {
        HEADER_BYTES + self.length as usize
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let fields: [&[u8]; 7] = [
            &MAGIC,
            &[VERSION, self.kind as u8, 0, 0],
            &self.length.to_be_bytes(),
            &self.crc.to_be_bytes(),
            &self.log_id.term.to_be_bytes(),
            &self.log_id.index.to_be_bytes(),
            &self.base_offset.0.to_be_bytes(),
        ];
        let mut rest: &mut [u8] = &mut out;
        for field in fields {
            let (slot, after) = rest.split_at_mut(field.len());
            slot.copy_from_slice(field);
            rest = after;
        }
        debug_assert!(rest.is_empty());
        out
    }
}

/// The CRC-32 over an encoded header without its CRC field, and over what it covers besides.
fn crc_of(header: &[u8], covered: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.get(..CRC_AT).unwrap_or_default());
    hasher.update(header.get(CRC_END..HEADER_BYTES).unwrap_or_default());
    hasher.update(covered);
    hasher.finalize()
}

/// One frame in memory. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Invariant: parsed from, or encoded into, the first bytes of `head`.
    header: FrameHeader,
    /// Records of a batch; 0 for other kinds.
    records: u32,
    /// Largest timestamp of a batch.
    max_timestamp: i64,
    /// Frame header and, of a batch, its 61-byte header.
    head: Bytes,
    /// The rest of the batch as its producer sent it, or the payload.
    body: Bytes,
}

impl Frame {
    /// A batch's frame: stamps base offset and leader epoch into the head; copies no record.
    ///
    /// The batch must be one that [`RecordBatch::parse`] accepted.
    pub fn batch(log_id: LogId, base_offset: Offset, batch: &RecordBatch) -> Self {
        let mut stamped = batch.header;
        stamped.base_offset = base_offset;
        stamped.leader_epoch = epoch_of(log_id.term);
        let batch_head = stamped.encode();
        let length = batch::HEADER_BYTES + batch.body.len();
        debug_assert_eq!(length, stamped.total_bytes());
        let mut header = FrameHeader {
            kind: FrameKind::Batch,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            crc: 0,
            log_id,
            base_offset,
        };
        header.crc = crc_of(&header.encode(), &batch_head);
        let mut head = BytesMut::with_capacity(BATCH_HEAD_BYTES);
        head.extend_from_slice(&header.encode());
        head.extend_from_slice(&batch_head);
        Self {
            header,
            records: stamped.record_count,
            max_timestamp: stamped.max_timestamp,
            head: head.freeze(),
            body: batch.body.clone(),
        }
    }

    /// A frame of any other kind; `base_offset` is the offset that the next record will get.
    ///
    /// # Panics
    /// In debug builds if the payload exceeds [`limits::MAX_BATCH_BYTES`] or the kind is a batch.
    pub fn other(kind: FrameKind, log_id: LogId, base_offset: Offset, payload: Bytes) -> Self {
        debug_assert!(kind != FrameKind::Batch);
        debug_assert!(payload.len() <= limits::MAX_BATCH_BYTES);
        let mut header = FrameHeader {
            kind,
            length: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            crc: 0,
            log_id,
            base_offset,
        };
        header.crc = crc_of(&header.encode(), &payload);
        Self {
            header,
            records: 0,
            max_timestamp: i64::MIN,
            head: Bytes::copy_from_slice(&header.encode()),
            body: payload,
        }
    }

    /// Splits the first frame off `bytes`; verifies every checksum, copies nothing. Returns what
    /// follows the frame.
    pub fn parse(mut bytes: Bytes) -> Result<(Self, Bytes), FrameError> {
        let header = FrameHeader::parse(&bytes)?;
        let need = header.total_bytes();
        if bytes.len() < need {
            return Err(FrameError::Short {
                have: bytes.len(),
                need,
            });
        }
        let rest = bytes.split_off(need);
        let checked = check(&header, &bytes)?;
        let head_bytes = match checked {
            Some(_) => BATCH_HEAD_BYTES,
            None => HEADER_BYTES,
        };
        let body = bytes.split_off(head_bytes);
        let frame = Self {
            header,
            records: checked.map_or(0, |batch| batch.record_count),
            max_timestamp: checked.map_or(i64::MIN, |batch| batch.max_timestamp),
            head: bytes,
            body,
        };
        Ok((frame, rest))
    }

    /// The header.
    pub const fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// What the frame holds.
    pub const fn kind(&self) -> FrameKind {
        self.header.kind
    }

    /// Position in the Raft log.
    pub const fn log_id(&self) -> LogId {
        self.header.log_id
    }

    /// Offset of the first record, or the offset that comes next.
    pub const fn base_offset(&self) -> Offset {
        self.header.base_offset
    }

    /// Offset after this frame.
    pub const fn next_offset(&self) -> Offset {
        Offset(self.header.base_offset.0 + self.records as i64)
    }

    /// Records in the frame.
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// Largest timestamp of a batch; `i64::MIN` for other kinds.
    pub const fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Size of the whole frame.
    pub const fn total_bytes(&self) -> usize {
        self.header.total_bytes()
    }

    /// The batch's header; `None` for other kinds.
    pub fn batch_header(&self) -> Option<BatchHeader> {
        if self.header.kind != FrameKind::Batch {
            return None;
        }
        BatchHeader::parse(self.head.get(HEADER_BYTES..)?).ok()
    }

    /// The payload of a kind other than batch; the records, still compressed, of a batch.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The stored record batch in two pieces: stamped header and body. `None` for other kinds.
    pub fn batch_parts(&self) -> Option<[Bytes; 2]> {
        (self.header.kind == FrameKind::Batch)
            .then(|| [self.head.slice(HEADER_BYTES..), self.body.clone()])
    }

    /// The frame's bytes in two pieces, for vectored writes.
    pub fn parts(&self) -> [Bytes; 2] {
        [self.head.clone(), self.body.clone()]
    }

    /// The same two pieces, borrowed.
    pub fn slices(&self) -> [&[u8]; 2] {
        [&self.head, &self.body]
    }

    /// What a state machine needs of the entry, without the records of a batch.
    pub fn to_head(&self) -> FrameHead {
        let batch = self.batch_header();
        FrameHead {
            header: self.header,
            payload: if batch.is_some() {
                Bytes::new()
            } else {
                self.body.clone()
            },
            batch,
        }
    }
}

/// A frame without the records of its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameHead {
    /// The frame's header.
    pub header: FrameHeader,
    /// The batch's header; `None` for other kinds.
    pub batch: Option<BatchHeader>,
    /// The payload of other kinds; empty for batches.
    pub payload: Bytes,
}

/// A leader's term as the epoch in batches. Terms count elections: 2^31 of them do not happen.
fn epoch_of(term: u64) -> LeaderEpoch {
    LeaderEpoch(i32::try_from(term).unwrap_or(i32::MAX))
}

/// Verifies a whole frame against its parsed header.
pub(crate) fn check(header: &FrameHeader, bytes: &[u8]) -> Result<Option<BatchHeader>, FrameError> {
    let after = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let is_batch = header.kind == FrameKind::Batch;
    let (covered, body) = if is_batch {
        after
            .split_at_checked(batch::HEADER_BYTES)
            .unwrap_or_default()
    } else {
        (after, &[][..])
    };
    let computed = crc_of(bytes, covered);
    if computed != header.crc && !mutant::on(Mutant::CrcUncheckedOnRead) {
        return Err(FrameError::Crc {
            stored: header.crc,
            computed,
        });
    }
    if !is_batch {
        return Ok(None);
    }
    let parsed = BatchHeader::parse(covered).map_err(FrameError::Batch)?;
    let same = parsed.base_offset == header.base_offset
        && parsed.leader_epoch == epoch_of(header.log_id.term)
        && parsed.total_bytes() == header.length as usize;
    if !same {
        return Err(FrameError::Mismatch);
    }
    let computed = parsed.compute_crc(body);
    if computed != parsed.crc && !mutant::on(Mutant::CrcUncheckedOnRead) {
        return Err(FrameError::Batch(BatchError::Crc {
            stored: parsed.crc,
            computed,
        }));
    }
    Ok(Some(parsed))
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
