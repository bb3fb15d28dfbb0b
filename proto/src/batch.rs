//! The record batch: Kafka's record batch, version 2, byte for byte.
//!
//! ```text
//! offset size field
//!      0    8 base offset            (stamped by the leader; outside the CRC)
//!      8    4 length                 (bytes after this field)
//!     12    4 partition leader epoch (stamped by the leader; outside the CRC)
//!     16    1 magic = 2
//!     17    4 CRC-32C of everything from byte 21
//!     21    2 attributes             (bits 0-2 compression, 3 timestamp type, 4 transactional,
//!                                     5 control)
//!     23    4 last offset delta
//!     27    8 base timestamp         (ms since the Unix epoch)
//!     35    8 max timestamp
//!     43    8 producer id            (-1: none)
//!     51    2 producer epoch
//!     53    4 base sequence
//!     57    4 record count
//!     61      records, compressed together
//! ```
//! Integers are big-endian. Source: the Kafka protocol guide, "Record Batch".

use bytes::{Buf, Bytes};

use crate::{
    ids::{LeaderEpoch, Offset, ProducerId},
    limits,
};

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;

/// Bytes before the part that the length field counts.
pub const LENGTH_PREFIX_BYTES: usize = 12;

/// First byte that the batch's CRC covers.
pub const CRC_START: usize = 21;

/// Why bytes are not an acceptable record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header or the length field demands.
    #[error("the record batch is cut short: {have} bytes of {need}")]
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
    /// More bytes than the length field says.
    #[error("{0} bytes follow the record batch")]
    TrailingBytes(usize),
    /// Not version 2.
    #[error("record batch has magic {0}, only 2 is supported")]
    Magic(i8),
    /// The length field is below the header's size or above the limit.
    #[error("record batch length {0} is out of range")]
    Length(i64),
    /// The CRC-32C does not match.
    #[error("record batch CRC is {computed:#010x}, its header says {stored:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Count and last offset delta disagree or are out of range.
    #[error("record batch has {count} records and last offset delta {last_delta}")]
    Count {
        /// The record count field.
        count: i32,
        /// The last offset delta field.
        last_delta: i32,
    },
    /// The compression bits name no codec.
    #[error("record batch names unknown compression {0}")]
    Compression(u8),
    /// A producer id without a sequence, or the reverse.
    #[error("record batch has producer id {producer_id}, epoch {epoch}, sequence {sequence}")]
    Producer {
        /// The producer id field.
        producer_id: i64,
        /// The producer epoch field.
        epoch: i16,
        /// The base sequence field.
        sequence: i32,
    },
    /// A client may not write control or transactional batches.
    #[error("record batch has attributes {0:#06x}, which a producer may not set")]
    Attributes(u16),
}

/// The fields of a batch header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes after the length field.
    pub length: u32,
    /// Term of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C of everything from [`CRC_START`].
    pub crc: u32,
    /// Compression, timestamp type, transactional and control bits.
    pub attributes: u16,
    /// Offset of the last record minus the base offset.
    pub last_offset_delta: u32,
    /// Timestamp of the first record, ms since the Unix epoch.
    pub base_timestamp: i64,
    /// Largest timestamp in the batch.
    pub max_timestamp: i64,
    /// Producer session, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Epoch of the producer session.
    pub producer_epoch: i16,
    /// Sequence number of the first record, -1 without a producer.
    pub base_sequence: i32,
    /// Records in the batch; 1 or more.
    pub record_count: u32,
}

impl BatchHeader {
    /// Reads and checks a header; looks at no byte after it.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Short {
                have: bytes.len(),
                need: HEADER_BYTES,
            });
        }
        let buf = &mut bytes;
        let base_offset = Offset(buf.get_i64());
        let length = buf.get_i32();
        let leader_epoch = LeaderEpoch(buf.get_i32());
        let magic = buf.get_i8();
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let header_rest = HEADER_BYTES - LENGTH_PREFIX_BYTES;
        let length = u32::try_from(length)
            .ok()
            .filter(|&l| {
                let l = l as usize;
                l >= header_rest && l + LENGTH_PREFIX_BYTES <= limits::MAX_BATCH_BYTES
            })
            .ok_or(BatchError::Length(i64::from(length)))?;
        let crc = buf.get_u32();
        let attributes = buf.get_u16();
        let last_delta = buf.get_i32();
        let base_timestamp = buf.get_i64();
        let max_timestamp = buf.get_i64();
        let producer_id = ProducerId(buf.get_i64());
        let producer_epoch = buf.get_i16();
        let base_sequence = buf.get_i32();
        let count = buf.get_i32();
        let counts = (u32::try_from(count), u32::try_from(last_delta));
        let (Ok(record_count), Ok(last_offset_delta)) = counts else {
            return Err(BatchError::Count { count, last_delta });
        };
        if record_count == 0
            || record_count > limits::MAX_BATCH_RECORDS
            || last_offset_delta != record_count - 1
        {
            return Err(BatchError::Count { count, last_delta });
        }
        Ok(Self {
            base_offset,
            length,
            leader_epoch,
            crc,
            attributes,
            last_offset_delta,
            base_timestamp,
            max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count,
        })
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            if let Some(slot) = out.get_mut(at..at + field.len()) {
                slot.copy_from_slice(field);
            }
            at += field.len();
        };
        put(&self.base_offset.0.to_be_bytes());
        put(&self.length.to_be_bytes());
        put(&self.leader_epoch.0.to_be_bytes());
        put(&[2]);
        put(&self.crc.to_be_bytes());
        put(&self.attributes.to_be_bytes());
        put(&self.last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&self.producer_id.0.to_be_bytes());
        put(&self.producer_epoch.to_be_bytes());
        put(&self.base_sequence.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        debug_assert_eq!(at, HEADER_BYTES);
        out
    }

    /// Size of the whole batch in bytes, header included.
    pub const fn total_bytes(&self) -> usize {
        self.length as usize + LENGTH_PREFIX_BYTES
    }

    /// Offset after the batch's last record.
    pub const fn next_offset(&self) -> Offset {
        Offset(self.base_offset.0 + self.record_count as i64)
    }

    /// CRC-32C of the header's covered part and `body`, the bytes after the header.
    pub fn compute_crc(&self, body: &[u8]) -> u32 {
        let header = self.encode();
        let covered = header.get(CRC_START..).unwrap_or_default();
        crc32c::crc32c_append(crc32c::crc32c(covered), body)
    }
}

/// A checked batch: the parsed header and the bytes after it, which are never touched again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    /// The header; base offset and leader epoch are stamped by the leader's log.
    pub header: BatchHeader,
    /// Everything after the header, as the producer sent it.
    pub body: Bytes,
}

impl RecordBatch {
    /// Splits and checks one batch that fills `bytes` exactly: sizes, magic, counts, CRC. What a
    /// producer may not send is refused by [`RecordBatch::from_producer`].
    pub fn parse(mut bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        let need = header.total_bytes();
        if bytes.len() < need {
            return Err(BatchError::Short {
                have: bytes.len(),
                need,
            });
        }
        if bytes.len() > need {
            return Err(BatchError::TrailingBytes(bytes.len() - need));
        }
        bytes.advance(HEADER_BYTES);
        let body = bytes;
        let computed = header.compute_crc(&body);
        if computed != header.crc {
            return Err(BatchError::Crc {
                stored: header.crc,
                computed,
            });
        }
        Ok(Self { header, body })
    }

    /// [`RecordBatch::parse`], and what a producer may not set.
    pub fn from_producer(bytes: Bytes) -> Result<Self, BatchError> {
        let batch = Self::parse(bytes)?;
        let h = &batch.header;
        if h.attributes & !0x000f != 0 {
            return Err(BatchError::Attributes(h.attributes));
        }
        let codec = (h.attributes & 7) as u8;
        if codec > 4 {
            return Err(BatchError::Compression(codec));
        }
        let idempotent = h.producer_id.0 >= 0;
        let complete = if idempotent {
            h.producer_epoch >= 0 && h.base_sequence >= 0
        } else {
            h.producer_id == ProducerId::NONE
        };
        if !complete {
            return Err(BatchError::Producer {
                producer_id: h.producer_id.0,
                epoch: h.producer_epoch,
                sequence: h.base_sequence,
            });
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(body: &[u8]) -> RecordBatch {
        let mut header = BatchHeader {
            base_offset: Offset(7),
            length: u32::try_from(HEADER_BYTES - LENGTH_PREFIX_BYTES + body.len()).unwrap(),
            leader_epoch: LeaderEpoch(3),
            crc: 0,
            attributes: 0,
            last_offset_delta: 1,
            base_timestamp: 1,
            max_timestamp: 2,
            producer_id: ProducerId::NONE,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 2,
        };
        header.crc = header.compute_crc(body);
        RecordBatch {
            header,
            body: Bytes::copy_from_slice(body),
        }
    }

    fn bytes_of(batch: &RecordBatch) -> Vec<u8> {
        [&batch.header.encode()[..], &batch.body].concat()
    }

    #[test]
    fn round_trip() {
        let batch = sample(b"records");
        let parsed = RecordBatch::from_producer(bytes_of(&batch).into()).unwrap();
        assert_eq!(parsed, batch);
    }

    #[test]
    fn every_flipped_bit_behind_the_stamped_fields_is_refused() {
        let bytes = bytes_of(&sample(b"records"));
        for at in 16..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(
                    RecordBatch::parse(bad.into()).is_err(),
                    "byte {at} bit {bit}"
                );
            }
        }
    }

    #[test]
    fn cut_and_extended_batches_are_refused() {
        let bytes = bytes_of(&sample(b"records"));
        for len in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..len]);
            assert!(matches!(
                RecordBatch::parse(cut),
                Err(BatchError::Short { .. })
            ));
        }
        let longer = [&bytes[..], b"x"].concat();
        let refused = RecordBatch::parse(longer.into());
        assert_eq!(refused, Err(BatchError::TrailingBytes(1)));
    }
}
