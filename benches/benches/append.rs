//! Appending one entry to a log and waiting for it, one after the other.

mod common;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use seriatim_proto::settings::Durability;
use seriatim_runtime::clock;
use seriatim_storage::Log;

use crate::common::{self as stored, Frames, KIB, MIB, Stored, batch, bytes};

/// Bytes after which the log is purged, so that a long benchmark does not fill the disk.
const KEEP_BYTES: usize = 512 * MIB;

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    let _ = group
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    for (durability, name) in [(Durability::Fsync, "fsync"), (Durability::Os, "os")] {
        for (size, size_name) in [(KIB, "1 KiB"), (64 * KIB, "64 KiB"), (MIB, "1 MiB")] {
            let dir = tempfile::tempdir().expect("a temporary folder can be made");
            let stored = Stored::open(dir.path(), 64 * MIB);
            let log = stored.log(durability);
            let mut frames = Frames::new(batch(size));
            let _ = group.throughput(bytes(frames.batch().header.total_bytes()));
            let mut since_purge = 0;
            let _ = group.bench_function(format!("{name}/{size_name}"), |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut sum = Duration::ZERO;
                    for _ in 0..iterations {
                        let frame = frames.next();
                        since_purge += frame.total_bytes();
                        let began = clock::now();
                        stored::append(&log, frame);
                        sum += began.elapsed();
                        if since_purge > KEEP_BYTES {
                            purge(&stored, &log, &frames);
                            since_purge = 0;
                        }
                    }
                    sum
                });
            });
            drop(log);
            stored.close();
        }
    }
    group.finish();
}

fn purge(stored: &Stored, log: &Log, frames: &Frames) {
    let purged = stored.runtime.block_on(log.purge(frames.last()));
    purged.expect("the log can be purged");
}

criterion_group!(benches, append);
criterion_main!(benches);
