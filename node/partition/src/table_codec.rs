//! The producer table, and the partition's checkpoint and snapshot, as bytes.
//!
//! ```text
//! producer table                              checkpoint
//! offset size field                           offset size field
//!      0    4 magic "SPPT"                         0    4 magic "SPCK"
//!      4    2 version = 1                          4    2 version = 1 or 2
//!      6    2 reserved, zero                       6    2 reserved, zero
//!      8    4 CRC-32C from byte 12                 8    4 CRC-32C from byte 12
//!     12    8 producers forgotten so far          12    8 next offset
//!     20    4 producers, then for each,           20    4 bytes of membership, 2^32-1: none
//!             by ascending last index:            24      membership; in version 2 the log start
//!                                                         (`command.rs`); the producer table
//!           8 producer id
//!           8 Raft index of its last batch
//!           2 epoch
//!           2 batches (1 to 5), then for each, oldest first:
//!             4 first sequence number
//!             4 records
//!             8 base offset
//! ```
//! A snapshot is a prefix like these with magic "SPSN" and version 1, the log start, and the producer
//! table. A checkpoint has version 1 as long as the log start is 0, so that software which knows no log
//! start can read it. Integers are big-endian.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use seriatim_proto::{
    ids::{Offset, ProducerId},
    limits::PRODUCER_WINDOW,
};

use crate::{
    command::{self, LogStart},
    producer_table::{Producer, ProducerTable, Stored},
};

const TABLE_MAGIC: [u8; 4] = *b"SPPT";
const CHECKPOINT_MAGIC: [u8; 4] = *b"SPCK";
const SNAPSHOT_MAGIC: [u8; 4] = *b"SPSN";
const VERSION: u16 = 1;
/// A checkpoint with a log start.
const CHECKPOINT_VERSION: u16 = 2;
const PREFIX_BYTES: usize = 12;
const NO_MEMBERSHIP: u32 = u32::MAX;

/// Why bytes are not a producer table or a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the fields need.
    #[error("the {0} is cut short")]
    Short(&'static str),
    /// Something else, or damaged.
    #[error("the {0} does not begin with its magic number")]
    Magic(&'static str),
    /// Written by a newer program.
    #[error("the {what} has version {found}, which a newer program wrote; use that")]
    Version {
        /// What it is.
        what: &'static str,
        /// Its version.
        found: u16,
    },
    /// Damaged.
    #[error("the checksum of the {0} does not match")]
    Crc(&'static str),
    /// Fields that contradict each other.
    #[error("the {0} contradicts itself")]
    Inconsistent(&'static str),
}

/// What a partition keeps on disk besides its log, so that a restart need not read all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) next_offset: Offset,
    pub(crate) membership: Option<Bytes>,
    pub(crate) log_start: LogStart,
    pub(crate) table: ProducerTable,
}

impl Checkpoint {
    #[cfg(test)]
    pub(crate) fn encode(&self) -> Bytes {
        encode_checkpoint(
            self.next_offset,
            self.membership.as_ref(),
            &self.log_start,
            &self.table,
        )
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        const WHAT: &str = "partition checkpoint";
        let (version, mut body) = open(bytes, CHECKPOINT_MAGIC, WHAT)?;
        let short = |_: TryGetError| DecodeError::Short(WHAT);
        let next_offset = Offset(body.try_get_i64().map_err(short)?);
        let length = body.try_get_u32().map_err(short)?;
        let membership = if length == NO_MEMBERSHIP {
            None
        } else {
            let length = length as usize;
            if body.len() < length {
                return Err(DecodeError::Short(WHAT));
            }
            Some(body.split_to(length))
        };
        let log_start = if version == CHECKPOINT_VERSION {
            command::get_start(&mut body).ok_or(DecodeError::Short(WHAT))?
        } else {
            LogStart::default()
        };
        Ok(Self {
            next_offset,
            membership,
            log_start,
            table: decode_table(body)?,
        })
    }
}

/// A checkpoint's bytes, without owning its parts.
pub(crate) fn encode_checkpoint(
    next_offset: Offset,
    membership: Option<&Bytes>,
    log_start: &LogStart,
    table: &ProducerTable,
) -> Bytes {
    let has_start = *log_start != LogStart::default();
    let mut out = if has_start {
        begin(CHECKPOINT_MAGIC, CHECKPOINT_VERSION)
    } else {
        begin(CHECKPOINT_MAGIC, VERSION)
    };
    out.put_i64(next_offset.0);
    match membership {
        Some(bytes) => {
            out.put_u32(u32::try_from(bytes.len()).expect("a membership is far below 4 GiB"));
            out.put_slice(bytes);
        }
        None => out.put_u32(NO_MEMBERSHIP),
    }
    if has_start {
        command::put_start(&mut out, log_start);
    }
    out.put_slice(&encode_table(table));
    seal(out)
}

/// What a boundary and a snapshot hold besides offset and membership.
pub(crate) fn encode_snapshot(log_start: &LogStart, table: &ProducerTable) -> Bytes {
    let mut out = begin(SNAPSHOT_MAGIC, VERSION);
    command::put_start(&mut out, log_start);
    out.put_slice(&encode_table(table));
    seal(out)
}

/// Reads what [`encode_snapshot`] wrote.
pub(crate) fn decode_snapshot(bytes: Bytes) -> Result<(LogStart, ProducerTable), DecodeError> {
    const WHAT: &str = "partition snapshot";
    let (_, mut body) = open(bytes, SNAPSHOT_MAGIC, WHAT)?;
    let start = command::get_start(&mut body).ok_or(DecodeError::Short(WHAT))?;
    Ok((start, decode_table(body)?))
}

/// The table's bytes: the same on every replica that has applied the same log.
pub fn encode_table(table: &ProducerTable) -> Bytes {
    let mut out = begin(TABLE_MAGIC, VERSION);
    out.put_u64(table.forgotten);
    out.put_u32(u32::try_from(table.len()).expect("at most MAX_PRODUCERS"));
    for (index, id) in &table.by_index {
        let Some(producer) = table.producers.get(id) else {
            debug_assert!(false, "by_index names a producer that is not there");
            continue;
        };
        out.put_i64(id.0);
        out.put_u64(*index);
        out.put_i16(producer.epoch);
        out.put_u16(u16::try_from(producer.window.len()).expect("at most PRODUCER_WINDOW"));
        for stored in &producer.window {
            out.put_i32(stored.first);
            out.put_u32(stored.count);
            out.put_i64(stored.base_offset.0);
        }
    }
    seal(out)
}

/// Reads a table; MUST give back what [`encode_table`] was given.
pub fn decode_table(bytes: Bytes) -> Result<ProducerTable, DecodeError> {
    const WHAT: &str = "producer table";
    let (_, mut body) = open(bytes, TABLE_MAGIC, WHAT)?;
    let short = |_: TryGetError| DecodeError::Short(WHAT);
    let mut table = ProducerTable {
        forgotten: body.try_get_u64().map_err(short)?,
        ..ProducerTable::default()
    };
    for _ in 0..body.try_get_u32().map_err(short)? {
        let id = ProducerId(body.try_get_i64().map_err(short)?);
        let last_index = body.try_get_u64().map_err(short)?;
        let epoch = body.try_get_i16().map_err(short)?;
        let batches = usize::from(body.try_get_u16().map_err(short)?);
        if batches == 0 || batches > PRODUCER_WINDOW {
            return Err(DecodeError::Inconsistent(WHAT));
        }
        let mut window = VecDeque::with_capacity(PRODUCER_WINDOW);
        for _ in 0..batches {
            window.push_back(Stored {
                first: body.try_get_i32().map_err(short)?,
                count: body.try_get_u32().map_err(short)?,
                base_offset: Offset(body.try_get_i64().map_err(short)?),
            });
        }
        let producer = Producer {
            epoch,
            last_index,
            window,
        };
        let twice = table.producers.insert(id, producer).is_some()
            || table.by_index.insert(last_index, id).is_some();
        if twice {
            return Err(DecodeError::Inconsistent(WHAT));
        }
    }
    if body.has_remaining() {
        return Err(DecodeError::Inconsistent(WHAT));
    }
    Ok(table)
}

fn begin(magic: [u8; 4], version: u16) -> BytesMut {
    let mut out = BytesMut::with_capacity(256);
    out.put_slice(&magic);
    out.put_u16(version);
    out.put_u16(0);
    out.put_u32(0);
    out
}

fn seal(mut out: BytesMut) -> Bytes {
    let crc = crc32c::crc32c(out.get(PREFIX_BYTES..).unwrap_or_default());
    if let Some(mut slot) = out.get_mut(8..PREFIX_BYTES) {
        slot.put_u32(crc);
    }
    out.freeze()
}

/// Checks prefix and checksum; returns the version and what follows.
fn open(mut bytes: Bytes, magic: [u8; 4], what: &'static str) -> Result<(u16, Bytes), DecodeError> {
    if bytes.len() < PREFIX_BYTES {
        return Err(DecodeError::Short(what));
    }
    if bytes.split_to(magic.len()) != magic[..] {
        return Err(DecodeError::Magic(what));
    }
    let found = bytes.get_u16();
    let reserved = bytes.get_u16();
    let newest = if magic == CHECKPOINT_MAGIC {
        CHECKPOINT_VERSION
    } else {
        VERSION
    };
    if !(VERSION..=newest).contains(&found) {
        return Err(DecodeError::Version { what, found });
    }
    let stored = bytes.get_u32();
    if crc32c::crc32c(&bytes) != stored {
        return Err(DecodeError::Crc(what));
    }
    // Outside the checksum, so checked by value.
    if reserved != 0 {
        return Err(DecodeError::Inconsistent(what));
    }
    Ok((found, bytes))
}

#[cfg(test)]
#[path = "table_codec_tests.rs"]
mod tests;
