//! Encoding records into a batch, as a producer does: 1,000 records of 1 KiB.

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use seriatim_benches::values::Values;
use seriatim_proto::{compression::Compression, record::BatchBuilder};

use crate::common::{KIB, RECORD_BYTES, bytes};

const RECORDS: usize = 1000;

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let _ = group.throughput(bytes(RECORDS * RECORD_BYTES));
    for codec in Compression::ALL {
        let mut values = Values::text(RECORD_BYTES);
        let _ = group.bench_function(codec.to_string(), |bencher| {
            bencher.iter(|| {
                let room = RECORDS * (RECORD_BYTES + KIB / 16);
                let mut builder = BatchBuilder::with_capacity(codec, room);
                for _ in 0..RECORDS {
                    let value = values.next();
                    let added = builder.push(1_700_000_000_000, None, Some(&value), &[]);
                    let _number = added.expect("the batch is not too large");
                }
                builder.finish(None).expect("the batch is not empty")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
