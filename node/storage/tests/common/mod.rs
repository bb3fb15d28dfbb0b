//! Helpers of the storage tests.
#![allow(dead_code, reason = "every test file uses a part of them")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;
use seriatim_proto::{
    batch::{self, BatchHeader, RecordBatch},
    ids::{GroupId, LeaderEpoch, Offset, ProducerId, ReplicaId},
    settings::Durability,
};
use seriatim_storage::{
    Frame, FrameKind, Log, LogId, LogKey, LogOptions, Result, Storage, StorageOptions,
    disk::{Disk, PosixDisk},
};

/// A log's name.
pub fn key(group: u64) -> LogKey {
    LogKey {
        group: GroupId(group),
        replica: ReplicaId(1),
    }
}

/// Small segments, so that tests meet many.
pub fn options(segment_bytes: u64) -> LogOptions {
    LogOptions {
        segment_bytes,
        durability: Durability::Fsync,
    }
}

/// A batch whose body is not a real record encoding; storage never looks inside.
pub fn batch(records: u32, body: &[u8], time: i64) -> RecordBatch {
    let mut header = BatchHeader {
        base_offset: Offset(0),
        length: u32::try_from(batch::HEADER_BYTES - batch::LENGTH_PREFIX_BYTES + body.len())
            .unwrap(),
        leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: 0,
        last_offset_delta: records - 1,
        base_timestamp: time,
        max_timestamp: time,
        producer_id: ProducerId::NONE,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: records,
    };
    header.crc = header.compute_crc(body);
    RecordBatch {
        header,
        body: Bytes::copy_from_slice(body),
    }
}

/// Makes frames that continue a log.
pub struct Maker {
    pub term: u64,
    pub index: u64,
    pub offset: i64,
}

impl Maker {
    pub fn new() -> Self {
        Self {
            term: 1,
            index: 0,
            offset: 0,
        }
    }

    /// Goes on where a log ends.
    pub fn after(log: &Log, term: u64) -> Self {
        Self {
            term,
            index: log.last_log_id().map_or(0, |id| id.index + 1),
            offset: log.next_offset().0,
        }
    }

    fn id(&mut self) -> LogId {
        self.index += 1;
        LogId {
            term: self.term,
            index: self.index - 1,
        }
    }

    pub fn blank(&mut self) -> Frame {
        let id = self.id();
        Frame::other(FrameKind::Blank, id, Offset(self.offset), Bytes::new())
    }

    /// A batch of `records` records whose body and timestamp follow from its index.
    pub fn batch(&mut self, records: u32, body_bytes: usize) -> Frame {
        let id = self.id();
        let batch = batch(records, &body_of(id.index, body_bytes), time_of(id.index));
        let frame = Frame::batch(id, Offset(self.offset), &batch);
        self.offset = frame.next_offset().0;
        frame
    }
}

pub fn time_of(index: u64) -> i64 {
    1_000_000 + i64::try_from(index).unwrap() * 10
}

/// Bytes without zeros that differ for every index.
pub fn body_of(index: u64, bytes: usize) -> Vec<u8> {
    let mut x = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..bytes)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8 | 1
        })
        .collect()
}

/// Options without background verification.
pub fn quiet() -> StorageOptions {
    StorageOptions {
        scrub: false,
        reserve_bytes: 0,
        ..StorageOptions::default()
    }
}

pub fn open(dir: &Path) -> Storage {
    open_with(dir, quiet())
}

pub fn open_with(dir: &Path, options: StorageOptions) -> Storage {
    let disk: Arc<dyn Disk> = Arc::new(PosixDisk);
    Storage::open(disk, dir, options).unwrap()
}

/// Appends and waits until it is done.
pub async fn append(log: &Log, frames: Vec<Frame>) -> Result<()> {
    let (tell, done) = tokio::sync::oneshot::channel();
    log.append(frames, Box::new(move |result| drop(tell.send(result))))?;
    done.await.unwrap().map_err(|error| (*error).clone())
}

/// Appends and blocks until it is done, at most for a while.
pub fn append_blocking(log: &Log, frames: Vec<Frame>) -> Result<()> {
    let (tell, done) = mpsc::sync_channel(1);
    log.append(frames, Box::new(move |result| drop(tell.send(result))))?;
    done.recv_timeout(Duration::from_secs(30))
        .unwrap()
        .map_err(|error| (*error).clone())
}

/// Everything the log holds, by index.
pub async fn all(log: &Log) -> Vec<Frame> {
    let end = log.last_log_id().map_or(0, |id| id.index + 1);
    let mut frames: Vec<Frame> = Vec::new();
    let mut next = log.first_index();
    while next < end {
        let more = log.read(next..end, 1 << 20).await.unwrap();
        assert!(!more.is_empty());
        assert_eq!(more[0].log_id().index, next);
        next = more.last().unwrap().log_id().index + 1;
        frames.extend(more);
    }
    frames
}

/// The bytes of all batches from an offset on.
pub async fn batches(log: &Log, from: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut next = Offset(from);
    while next < log.next_offset() {
        let pieces = log
            .read_batches(next, log.next_offset(), 100_000)
            .await
            .unwrap();
        assert!(!pieces.is_empty(), "nothing at {next}");
        let joined = pieces.concat();
        let mut rest = &joined[..];
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).unwrap();
            next = header.next_offset();
            rest = &rest[header.total_bytes()..];
        }
        bytes.extend(joined);
    }
    bytes
}
