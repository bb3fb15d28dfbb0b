//! The records inside a batch: encoding and decoding (Kafka record, version 2).
//!
//! ```text
//! length           varint   bytes after this field
//! attributes       i8       unused
//! timestamp delta  varlong  to the batch's base timestamp
//! offset delta     varint   to the batch's base offset
//! key length       varint   -1: no key
//! key
//! value length     varint   -1: no value
//! value
//! headers          varint   their number, then for each:
//!   key length     varint
//!   key            UTF-8
//!   value length   varint   -1: no value
//!   value
//! ```
//! Varints are zigzag-encoded, least significant group first. Source: the Kafka protocol guide,
//! "Record".

use bytes::{Buf, Bytes};

use crate::{
    batch::{BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, RecordBatch},
    compression::{Compression, CompressionError},
    ids::{LeaderEpoch, Offset, ProducerId},
    limits,
};

/// One record, as a reader sees it. Key and value are slices of the batch, not copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in the partition.
    pub offset: Offset,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key, if there is one.
    pub key: Option<Bytes>,
    /// The value; `None` is Kafka's tombstone.
    pub value: Option<Bytes>,
    /// Headers, in the order in which they were given.
    pub headers: Vec<Header>,
}

/// A name and a value beside a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name.
    pub key: String,
    /// The value, if there is one.
    pub value: Option<Bytes>,
}

/// Why records cannot be read from a batch, or a batch cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The records could not be compressed or decompressed.
    #[error("compression of the records failed")]
    Compression(#[from] CompressionError),
    /// The attributes name no codec.
    #[error("record batch names unknown compression {0}")]
    UnknownCompression(u16),
    /// A record ends before its fields do, or a length is impossible.
    #[error("record {index} of the batch is malformed: {what}")]
    Malformed {
        /// Number of the record in the batch, from 0.
        index: u32,
        /// The field that does not fit.
        what: &'static str,
    },
    /// Bytes follow the last record.
    #[error("{0} bytes follow the last record of the batch")]
    TrailingBytes(usize),
    /// A batch needs at least one record.
    #[error("a record batch has at least one record")]
    Empty,
    /// The batch is larger than any node accepts.
    #[error("the record batch has {0} bytes, more than the limit of {max}", max = limits::MAX_BATCH_BYTES)]
    TooLarge(usize),
}

/// The producer session and sequence that make a batch idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The session.
    pub id: ProducerId,
    /// The session's epoch.
    pub epoch: i16,
    /// Sequence number of the batch's first record.
    pub base_sequence: i32,
}

/// Encodes records straight into the bytes of one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    /// Invariant: starts with `HEADER_BYTES` bytes of room for the header; `count` records follow.
    bytes: Vec<u8>,
    compression: Compression,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(compression: Compression) -> Self {
        Self::with_capacity(compression, HEADER_BYTES)
    }

    /// An empty batch with room for `bytes` bytes.
    pub fn with_capacity(compression: Compression, bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes.max(HEADER_BYTES));
        buffer.resize(HEADER_BYTES, 0);
        Self {
            bytes: buffer,
            compression,
            count: 0,
            base_timestamp: 0,
            max_timestamp: i64::MIN,
        }
    }

    /// Records so far.
    pub const fn record_count(&self) -> u32 {
        self.count
    }

    /// No record yet.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the batch so far, before compression, header included.
    pub const fn encoded_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Most bytes that a record of these sizes can add to a batch.
    pub fn record_bytes_max(key: usize, value: usize, headers: &[Header]) -> usize {
        const FIXED: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
        let of = |h: &Header| 10 + h.key.len() + h.value.as_ref().map_or(0, Bytes::len);
        FIXED + key + value + headers.iter().map(of).sum::<usize>()
    }

    /// Adds a record and returns its number in the batch; `None`, and nothing added, if the batch
    /// would pass [`limits::MAX_BATCH_BYTES`] or [`limits::MAX_BATCH_RECORDS`].
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Option<u32> {
        if self.count == limits::MAX_BATCH_RECORDS {
            return None;
        }
        let base = if self.count == 0 {
            timestamp_ms
        } else {
            self.base_timestamp
        };
        let delta = timestamp_ms.wrapping_sub(base);
        let index = self.count;
        let length = 1
            + varint_bytes(delta)
            + varint_bytes(i64::from(index))
            + field_bytes(key)
            + field_bytes(value)
            + headers_bytes(headers);
        let total = length + varint_bytes(len_i64(length));
        if self.bytes.len() + total > limits::MAX_BATCH_BYTES {
            return None;
        }
        let end = self.bytes.len() + total;
        let out = &mut self.bytes;
        put_varint(out, len_i64(length));
        out.push(0);
        put_varint(out, delta);
        put_varint(out, i64::from(index));
        put_field(out, key);
        put_field(out, value);
        put_varint(out, len_i64(headers.len()));
        for header in headers {
            put_field(out, Some(header.key.as_bytes()));
            put_field(out, header.value.as_deref());
        }
        debug_assert_eq!(out.len(), end);
        self.base_timestamp = base;
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        self.count += 1;
        Some(index)
    }

    /// The finished batch: compressed (unless that makes it larger), stamped, with its CRC.
    pub fn finish(mut self, stamp: Option<ProducerStamp>) -> Result<Bytes, RecordError> {
        if self.count == 0 {
            return Err(RecordError::Empty);
        }
        let mut codec = Compression::None;
        if self.compression != Compression::None {
            let mut packed = Vec::with_capacity(HEADER_BYTES + self.bytes.len() / 2);
            packed.resize(HEADER_BYTES, 0);
            let raw = self.bytes.get(HEADER_BYTES..).unwrap_or_default();
            self.compression.compress(raw, &mut packed)?;
            if packed.len() < self.bytes.len() {
                codec = self.compression;
                self.bytes = packed;
            }
        }
        let total = self.bytes.len();
        let length = u32::try_from(total - LENGTH_PREFIX_BYTES)
            .ok()
            .filter(|_| total <= limits::MAX_BATCH_BYTES)
            .ok_or(RecordError::TooLarge(total))?;
        let mut header = BatchHeader {
            base_offset: Offset(0),
            length,
            leader_epoch: LeaderEpoch(-1),
            crc: 0,
            attributes: codec.attributes(),
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: stamp.map_or(ProducerId::NONE, |s| s.id),
            producer_epoch: stamp.map_or(-1, |s| s.epoch),
            base_sequence: stamp.map_or(-1, |s| s.base_sequence),
            record_count: self.count,
        };
        let (head, body) = self.bytes.split_at_mut(HEADER_BYTES);
        header.crc = header.compute_crc(body);
        head.copy_from_slice(&header.encode());
        Ok(self.bytes.into())
    }
}

/// The records of `batch`, decompressed within [`limits::MAX_DECOMPRESSED_BYTES`].
pub fn decode_records(batch: &RecordBatch) -> Result<Vec<Record>, RecordError> {
    let records = Records::new(batch)?;
    // The count is the sender's claim; the smallest record has 7 bytes.
    let mut out = Vec::with_capacity(records.remaining().min(records.rest.len() / 7));
    for record in records {
        out.push(record?);
    }
    Ok(out)
}

/// The records of one batch, decoded one at a time. After an error it ends.
#[derive(Debug)]
pub struct Records {
    rest: Bytes,
    base_offset: Offset,
    base_timestamp: i64,
    /// Where the broker's time counts, every record has it.
    append_time: Option<i64>,
    next: u32,
    count: u32,
}

const TIMESTAMP_IS_APPEND_TIME: u16 = 1 << 3;

impl Records {
    /// Decompresses the batch; without compression its bytes are used in place.
    pub fn new(batch: &RecordBatch) -> Result<Self, RecordError> {
        let header = &batch.header;
        let codec = Compression::from_attributes(header.attributes)
            .ok_or(RecordError::UnknownCompression(header.attributes & 7))?;
        let append_time = header.attributes & TIMESTAMP_IS_APPEND_TIME != 0;
        Ok(Self {
            rest: codec.decompress(&batch.body, limits::MAX_DECOMPRESSED_BYTES)?,
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time: append_time.then_some(header.max_timestamp),
            next: 0,
            count: header.record_count,
        })
    }

    fn remaining(&self) -> usize {
        (self.count - self.next) as usize
    }

    fn decode_next(&mut self) -> Result<Record, &'static str> {
        let length = take_varint(&mut self.rest).ok_or("length")?;
        let length = usize::try_from(length)
            .ok()
            .filter(|&l| l <= self.rest.len());
        let mut body = self.rest.split_to(length.ok_or("length")?);
        let _attributes = body.try_get_i8().ok().ok_or("attributes")?;
        let timestamp_delta = take_varint(&mut body).ok_or("timestamp delta")?;
        let offset_delta = take_varint(&mut body).ok_or("offset delta")?;
        // Batches are dense, so the delta is known; another one would repeat or skip an offset.
        if offset_delta != i64::from(self.next) {
            return Err("offset delta");
        }
        let key = take_field(&mut body).ok_or("key")?;
        let value = take_field(&mut body).ok_or("value")?;
        let headers = take_headers(&mut body).ok_or("headers")?;
        if !body.is_empty() {
            return Err("bytes after its last field");
        }
        let timestamp = self.base_timestamp.wrapping_add(timestamp_delta);
        Ok(Record {
            offset: Offset(self.base_offset.0.saturating_add(offset_delta)),
            timestamp_ms: self.append_time.unwrap_or(timestamp),
            key,
            value,
            headers,
        })
    }
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.count {
            let left = std::mem::take(&mut self.rest).len();
            return (left > 0).then_some(Err(RecordError::TrailingBytes(left)));
        }
        let index = self.next;
        let decoded = self.decode_next();
        self.next += 1;
        if decoded.is_err() {
            self.next = self.count;
            self.rest = Bytes::new();
        }
        Some(decoded.map_err(|what| RecordError::Malformed { index, what }))
    }
}

fn len_i64(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn field_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(1, |f| varint_bytes(len_i64(f.len())) + f.len())
}

fn headers_bytes(headers: &[Header]) -> usize {
    let of = |h: &Header| field_bytes(Some(h.key.as_bytes())) + field_bytes(h.value.as_deref());
    varint_bytes(len_i64(headers.len())) + headers.iter().map(of).sum::<usize>()
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push((rest & 0x7f) as u8);
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(field) => {
            put_varint(out, len_i64(field.len()));
            out.extend_from_slice(field);
        }
        None => put_varint(out, -1),
    }
}

fn take_varint(bytes: &mut Bytes) -> Option<i64> {
    let mut value = 0_u64;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(at).ok()? * 7)?;
        if byte & 0x80 == 0 {
            bytes.advance(at + 1);
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

/// The outer `None` is an error, the inner one an absent field.
#[expect(clippy::option_option, reason = "private, and both are what it says")]
fn take_field(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    let length = take_varint(bytes)?;
    if length == -1 {
        return Some(None);
    }
    let length = usize::try_from(length).ok().filter(|&l| l <= bytes.len())?;
    Some(Some(bytes.split_to(length)))
}

fn take_headers(bytes: &mut Bytes) -> Option<Vec<Header>> {
    let count = usize::try_from(take_varint(bytes)?).ok()?;
    // The count is the sender's claim; the smallest header has 2 bytes.
    if count > bytes.len() / 2 {
        return None;
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let key = take_field(bytes)??;
        let key = String::from_utf8(key.into()).ok()?;
        headers.push(Header {
            key,
            value: take_field(bytes)?,
        });
    }
    Some(headers)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
