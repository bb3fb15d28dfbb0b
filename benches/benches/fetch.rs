//! Reading 1 MiB of batches: from the tail in memory, and from a segment in the page cache.

mod common;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use seriatim_proto::{ids::Offset, settings::Durability};

use crate::common::{Frames, KIB, MIB, Stored, batch, bytes, fill};

const LOG_BYTES: usize = 32 * MIB;

fn fetch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fetch");
    let _ = group
        .throughput(bytes(MIB))
        .measurement_time(Duration::from_secs(3));
    for (source, cache_bytes) in [("tail", 2 * LOG_BYTES), ("segment", 0)] {
        for (size, name) in [(16 * KIB, "16 KiB"), (256 * KIB, "256 KiB")] {
            let dir = tempfile::tempdir().expect("a temporary folder can be made");
            let stored = Stored::open(dir.path(), cache_bytes);
            let log = stored.log(Durability::Os);
            fill(&log, &mut Frames::new(batch(size)), LOG_BYTES);
            let end = log.next_offset();
            let mut next = Offset(0);
            let _ = group.bench_function(format!("{source}/batches of {name}"), |bencher| {
                bencher.iter(|| {
                    let read = log.read_batches(next, end, MIB);
                    let pieces = stored.runtime.block_on(read).expect("the disk works");
                    assert!(!pieces.is_empty(), "there is more at {next:?}");
                    // A quarter of the log further on, and around.
                    next = Offset((next.0 + end.0 / 4).rem_euclid(end.0));
                    pieces
                });
            });
            drop(log);
            stored.close();
        }
    }
    group.finish();
}

criterion_group!(benches, fetch);
criterion_main!(benches);
