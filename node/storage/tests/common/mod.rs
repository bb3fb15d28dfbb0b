//! Helpers of the storage tests.
#![allow(dead_code, reason = "every test file uses a part of them")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

pub(crate) mod faulty;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use seriatim_proto::{
    batch::{self, BatchHeader, RecordBatch},
    ids::{GroupId, LeaderEpoch, Offset, ProducerId, ReplicaId},
    settings::Durability,
};
use seriatim_runtime::clock;
use seriatim_storage::{
    Frame, FrameKind, Log, LogId, LogKey, LogOptions, Result, Storage, StorageError,
    StorageOptions,
    disk::{Disk, OpenMode, PosixDisk, sim::SimDisk},
};

use faulty::Faulty;

/// A disk to be tested, and a folder on it.
pub(crate) trait Harness {
    fn new() -> Self;
    /// The disk, behind faults that can be ordered.
    fn disk(&self) -> Faulty;
    fn dir(&self) -> PathBuf;

    fn storage(&self) -> Storage {
        self.storage_with(quiet())
    }

    fn storage_with(&self, options: StorageOptions) -> Storage {
        Storage::open(Arc::new(self.disk()), &self.dir(), options).unwrap()
    }
}

/// The real file system.
pub(crate) struct Posix(Faulty, tempfile::TempDir);

impl Harness for Posix {
    fn new() -> Self {
        let disk = Faulty::new(Arc::new(PosixDisk));
        Self(disk, tempfile::tempdir().unwrap())
    }

    fn disk(&self) -> Faulty {
        self.0.clone()
    }

    fn dir(&self) -> PathBuf {
        self.1.path().join("data")
    }
}

/// The simulated disk.
pub(crate) struct Sim(Faulty, pub(crate) SimDisk);

impl Sim {
    pub(crate) fn with_seed(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        Self(Faulty::new(Arc::new(disk.clone())), disk)
    }
}

impl Harness for Sim {
    fn new() -> Self {
        Self::with_seed(1)
    }

    fn disk(&self) -> Faulty {
        self.0.clone()
    }

    fn dir(&self) -> PathBuf {
        PathBuf::from("/data")
    }
}

/// All bytes of a file.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let len = usize::try_from(file.len().unwrap()).unwrap();
    file.read_at(0, len).unwrap()
}

/// Replaces bytes of a file, for good.
pub(crate) fn overwrite(disk: &dyn Disk, path: &Path, position: u64, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::Write).unwrap();
    file.write_at(position, &mut [std::io::IoSlice::new(bytes)])
        .unwrap();
    file.sync().unwrap();
}

/// The segments of a log, in order.
pub(crate) fn segments(disk: &dyn Disk, dir: &Path, key: LogKey) -> Vec<PathBuf> {
    let dir = dir.join("logs").join(key.to_string());
    let names = disk.list(&dir).unwrap();
    let segments = names.iter().filter(|entry| entry.name.ends_with(".seg"));
    segments.map(|entry| dir.join(&entry.name)).collect()
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + Duration::from_secs(20);
    while !condition() {
        assert!(clock::now() < deadline, "not in time: {what}");
        clock::sleep(Duration::from_millis(5)).await;
    }
}

/// An append that was not waited for.
pub(crate) type Waiting =
    tokio::sync::oneshot::Receiver<std::result::Result<(), Arc<StorageError>>>;

/// Appends and does not wait.
pub(crate) fn start_append(log: &Log, frames: Vec<Frame>) -> Result<Waiting> {
    let (tell, done) = tokio::sync::oneshot::channel();
    log.append(frames, Box::new(move |result| drop(tell.send(result))))?;
    Ok(done)
}

/// A log's name.
pub(crate) fn key(group: u64) -> LogKey {
    LogKey {
        group: GroupId(group),
        replica: ReplicaId(1),
    }
}

/// Small segments, so that tests meet many.
pub(crate) fn options(segment_bytes: u64) -> LogOptions {
    LogOptions {
        segment_bytes,
        durability: Durability::Fsync,
    }
}

/// A batch whose body is not a real record encoding; storage never looks inside.
pub(crate) fn batch(records: u32, body: &[u8], time: i64) -> RecordBatch {
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
pub(crate) struct Maker {
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) offset: i64,
}

impl Maker {
    pub(crate) fn new() -> Self {
        Self {
            term: 1,
            index: 0,
            offset: 0,
        }
    }

    /// Goes on where a log ends.
    pub(crate) fn after(log: &Log, term: u64) -> Self {
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

    pub(crate) fn blank(&mut self) -> Frame {
        let id = self.id();
        Frame::other(FrameKind::Blank, id, Offset(self.offset), Bytes::new())
    }

    /// A batch of `records` records whose body and timestamp follow from its index.
    pub(crate) fn batch(&mut self, records: u32, body_bytes: usize) -> Frame {
        let id = self.id();
        let batch = batch(records, &body_of(id.index, body_bytes), time_of(id.index));
        let frame = Frame::batch(id, Offset(self.offset), &batch);
        self.offset = frame.next_offset().0;
        frame
    }
}

pub(crate) fn time_of(index: u64) -> i64 {
    1_000_000 + i64::try_from(index).unwrap() * 10
}

/// Bytes without zeros that differ for every index.
pub(crate) fn body_of(index: u64, bytes: usize) -> Vec<u8> {
    let mut x = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..bytes)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_be_bytes()[3] | 1
        })
        .collect()
}

/// Options without background verification.
pub(crate) fn quiet() -> StorageOptions {
    StorageOptions {
        scrub: false,
        reserve_bytes: 0,
        ..StorageOptions::default()
    }
}

/// Appends and waits until it is done.
pub(crate) async fn append(log: &Log, frames: Vec<Frame>) -> Result<()> {
    let done = start_append(log, frames)?.await.unwrap();
    done.map_err(|error| (*error).clone())
}

/// Everything the log holds, by index.
pub(crate) async fn all(log: &Log) -> Vec<Frame> {
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
pub(crate) async fn batches(log: &Log, from: i64) -> Vec<u8> {
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
