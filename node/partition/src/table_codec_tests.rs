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

fn log_start(offset: i64) -> LogStart {
    let upto = seriatim_storage::LogId { term: 2, index: 9 };
    LogStart {
        offset: Offset(offset),
        upto: (offset > 3).then_some(upto),
    }
}

#[test]
fn a_checkpoint_without_a_log_start_is_of_version_1() {
    let mut checkpoint = Checkpoint {
        next_offset: Offset(44),
        membership: None,
        log_start: LogStart::default(),
        table: table(&[(1, 0, 1)]),
    };
    assert_eq!(checkpoint.encode()[4..6], [0, 1]);
    checkpoint.log_start = log_start(1);
    assert_eq!(checkpoint.encode()[4..6], [0, 2]);
}

#[test]
fn every_flipped_bit_is_refused() {
    for start in [LogStart::default(), log_start(7)] {
        let good = Checkpoint {
            next_offset: Offset(44),
            membership: Some(Bytes::from_static(b"members")),
            log_start: start,
            table: table(&[(1, 0, 1), (2, 0, 5), (1, 1, 1)]),
        };
        refuses_every_flip(&good.encode(), |bytes| Checkpoint::decode(bytes).is_err());
        let snapshot = encode_snapshot(&good.log_start, &good.table);
        assert_eq!(
            decode_snapshot(snapshot.clone()),
            Ok((good.log_start, good.table))
        );
        refuses_every_flip(&snapshot, |bytes| decode_snapshot(bytes).is_err());
    }
}

fn refuses_every_flip(good: &Bytes, refused: impl Fn(Bytes) -> bool) {
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            assert!(refused(bad.into()), "{at} {bit}");
        }
    }
    for length in 0..good.len() {
        assert!(refused(good.slice(..length)), "{length}");
    }
}

proptest! {
    #[test]
    fn round_trip(
        batches in proptest::collection::vec((0..20_i64, 0..i32::MAX, 1..1000_u32), 0..100),
        membership in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        next in 0..i64::MAX,
        start in 0..8_i64,
    ) {
        let checkpoint = Checkpoint {
            next_offset: Offset(next),
            membership: membership.map(Bytes::from),
            log_start: log_start(start),
            table: table(&batches),
        };
        prop_assert_eq!(Checkpoint::decode(checkpoint.encode()).unwrap(), checkpoint);
    }
}
