//! Batches, frames and logs for the benchmarks.
#![allow(dead_code, reason = "every benchmark uses a part of this")]

use std::{
    path::Path,
    sync::{Arc, mpsc},
};

use seriatim_benches::values::Values;
use seriatim_proto::{
    batch::RecordBatch,
    compression::Compression,
    ids::{GroupId, Offset, ReplicaId},
    record::BatchBuilder,
    settings::Durability,
};
use seriatim_storage::{
    Frame, Log, LogId, LogKey, LogOptions, Storage, StorageOptions, disk::PosixDisk,
};
use tokio::runtime::Runtime;

/// Bytes of a record's value.
pub(crate) const RECORD_BYTES: usize = 1024;
pub(crate) const KIB: usize = 1 << 10;
pub(crate) const MIB: usize = 1 << 20;

const KEY: LogKey = LogKey {
    group: GroupId(1),
    replica: ReplicaId(1),
};

/// The bytes of a size, as Criterion counts them.
pub(crate) fn bytes(size: usize) -> criterion::Throughput {
    criterion::Throughput::Bytes(u64::try_from(size).expect("sizes are small"))
}

/// An uncompressed batch of about so many bytes, of records of random bytes.
pub(crate) fn batch(size: usize) -> RecordBatch {
    let mut values = Values::random(RECORD_BYTES.min(size));
    let mut builder = BatchBuilder::new(Compression::None);
    loop {
        let added = builder.push(1_700_000_000_000, None, Some(&values.next()), &[]);
        let _number = added.expect("the batch is not too large");
        if builder.encoded_bytes() >= size {
            break;
        }
    }
    let encoded = builder.finish(None).expect("the batch is not empty");
    RecordBatch::from_producer(encoded).expect("the batch is valid")
}

/// Frames that continue a log, all with the same records.
pub(crate) struct Frames {
    batch: RecordBatch,
    index: u64,
    offset: Offset,
}

impl Frames {
    pub(crate) fn new(batch: RecordBatch) -> Self {
        Self {
            batch,
            index: 0,
            offset: Offset(0),
        }
    }

    pub(crate) fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    pub(crate) fn last(&self) -> LogId {
        LogId {
            term: 1,
            index: self.index.saturating_sub(1),
        }
    }

    pub(crate) fn next(&mut self) -> Frame {
        let log_id = LogId {
            term: 1,
            index: self.index,
        };
        let frame = Frame::batch(log_id, self.offset, &self.batch);
        self.index += 1;
        self.offset = frame.next_offset();
        frame
    }
}

/// A data folder with one log.
pub(crate) struct Stored {
    pub(crate) runtime: Runtime,
    pub(crate) storage: Storage,
}

impl Stored {
    pub(crate) fn open(dir: &Path, cache_bytes: usize) -> Self {
        let options = StorageOptions {
            cache_bytes: u64::try_from(cache_bytes).expect("sizes are small"),
            scrub: false,
            ..StorageOptions::default()
        };
        let runtime = Runtime::new().expect("a runtime can be had");
        let storage = Storage::open(Arc::new(PosixDisk), dir, options);
        Self {
            runtime,
            storage: storage.expect("the folder can be opened"),
        }
    }

    pub(crate) fn log(&self, durability: Durability) -> Log {
        let options = LogOptions {
            durability,
            ..LogOptions::default()
        };
        let opened = self.runtime.block_on(self.storage.open_log(KEY, options));
        opened.expect("the log can be opened")
    }

    pub(crate) fn close(self) {
        self.runtime.block_on(self.storage.shutdown());
    }
}

/// Appends a frame and waits until that is done.
pub(crate) fn append(log: &Log, frame: Frame) {
    let (done, ended) = mpsc::sync_channel(1);
    let appended = log.append(
        vec![frame],
        Box::new(move |result| done.send(result).unwrap_or(())),
    );
    appended.expect("the frame continues the log");
    let result = ended.recv().expect("every append ends");
    result.expect("the disk works");
}

/// Fills a log with about so many bytes; the last append is durable.
pub(crate) fn fill(log: &Log, frames: &mut Frames, size: usize) {
    let each = frames.next();
    let count = size / each.total_bytes();
    append(log, each);
    for _ in 1..count {
        append(log, frames.next());
    }
}
