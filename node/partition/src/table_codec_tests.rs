use proptest::prelude::*;

use super::*;
use crate::testing::header;

fn table(batches: &[(i64, i32, u32)]) -> ProducerTable {
    let mut table = ProducerTable::default();
    for (index, &(id, first, count)) in (1_u64..).zip(batches) {
        let offset = Offset(i64::try_from(index).unwrap() * 10);
        table.apply(index, offset, &header(id, 0, first, count));
    }
    table
}

/// Bytes of version 1, written down once: a reader must understand them for ever.
const GOLDEN: &str = "5350505400010000c26b779400000000000000000000000100000000000000070000000000000002000000020000000000000003000000000000000a00000003000000010000000000000014";

#[test]
fn golden_bytes() {
    let hex: String = encode_table(&table(&[(7, 0, 3), (7, 3, 1)]))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, GOLDEN);
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = Checkpoint {
        next_offset: Offset(44),
        membership: Some(Bytes::from_static(b"members")),
        table: table(&[(1, 0, 1), (2, 0, 5), (1, 1, 1)]),
    }
    .encode();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            assert!(Checkpoint::decode(bad.into()).is_err(), "{at} {bit}");
        }
    }
    for length in 0..good.len() {
        assert!(
            Checkpoint::decode(good.slice(..length)).is_err(),
            "{length}"
        );
    }
}

proptest! {
    #[test]
    fn round_trip(
        batches in proptest::collection::vec((0..20_i64, 0..i32::MAX, 1..1000_u32), 0..100),
        membership in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        next in 0..i64::MAX,
    ) {
        let checkpoint = Checkpoint {
            next_offset: Offset(next),
            membership: membership.map(Bytes::from),
            table: table(&batches),
        };
        prop_assert_eq!(Checkpoint::decode(checkpoint.encode()).unwrap(), checkpoint);
    }
}
