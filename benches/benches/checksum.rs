//! The two checksums: the batch's CRC-32C over its records, and the frame's CRC-32 over its head.

mod common;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use seriatim_storage::Frame;

use crate::common::{Frames, KIB, MIB, batch, bytes};

const SIZES: [(&str, usize); 3] = [("1 KiB", KIB), ("16 KiB", 16 * KIB), ("1 MiB", MIB)];

/// What is checked when a batch comes in and when it is read.
fn batch_crc(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum/batch");
    for (name, size) in SIZES {
        let batch = batch(size);
        let _ = group.throughput(bytes(batch.body.len()));
        let _ = group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| batch.header.compute_crc(black_box(&batch.body)));
        });
    }
    group.finish();
}

/// What a leader computes for each entry, whatever its size.
fn frame_head(criterion: &mut Criterion) {
    let mut frames = Frames::new(batch(16 * KIB));
    let _ = criterion.bench_function("checksum/frame head", |bencher| {
        bencher.iter(|| frames.next());
    });
}

/// What a follower and a recovery check.
fn frame_parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum/frame parse");
    for (name, size) in SIZES {
        let frame = Frames::new(batch(size)).next();
        let encoded: Vec<u8> = frame.parts().concat();
        let encoded = bytes::Bytes::from(encoded);
        let _ = group.throughput(bytes(encoded.len()));
        let _ = group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| Frame::parse(encoded.clone()).expect("the frame is valid"));
        });
    }
    group.finish();
}

criterion_group!(benches, batch_crc, frame_head, frame_parse);
criterion_main!(benches);
