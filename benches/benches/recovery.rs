//! Opening a log of 256 MiB: sealed segments by their footers, the last one frame by frame.

mod common;

use std::{path::Path, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use seriatim_proto::settings::Durability;
use seriatim_runtime::clock;

use crate::common::{Frames, KIB, MIB, Stored, batch, bytes, fill};

const LOG_BYTES: usize = 256 * MIB;

fn recovery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    let _ = group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .throughput(bytes(LOG_BYTES));
    for (size, name) in [(16 * KIB, "16 KiB"), (MIB, "1 MiB")] {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        // Nothing is made unless this one is asked for.
        let mut filled = false;
        let _ = group.bench_function(format!("entries of {name}"), |bencher| {
            if !filled {
                make(dir.path(), size);
                filled = true;
            }
            bencher.iter_custom(|iterations| (0..iterations).map(|_| open(dir.path())).sum());
        });
    }
    group.finish();
}

fn make(dir: &Path, size: usize) {
    let stored = Stored::open(dir, 0);
    let log = stored.log(Durability::Os);
    fill(&log, &mut Frames::new(batch(size)), LOG_BYTES);
    drop(log);
    stored.close();
}

fn open(dir: &Path) -> Duration {
    let stored = Stored::open(dir, 0);
    let began = clock::now();
    let log = stored.log(Durability::Fsync);
    let passed = began.elapsed();
    drop(log);
    stored.close();
    passed
}

criterion_group!(benches, recovery);
criterion_main!(benches);
