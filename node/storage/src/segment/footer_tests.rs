//! The footer's bytes.

use proptest::prelude::*;

use super::*;
use crate::{
    disk::{Disk, OpenMode, sim::SimDisk},
    golden,
};

fn summary(epochs: &[(u64, u64)], next_offset: i64, max_timestamp: i64) -> Summary {
    let epochs: Vec<LogId> = epochs
        .iter()
        .map(|&(term, index)| LogId { term, index })
        .collect();
    Summary {
        end: 4096,
        last: epochs.last().map(|last| LogId {
            term: last.term,
            index: last.index.saturating_add(5),
        }),
        next_offset: Offset(next_offset),
        max_timestamp,
        epochs,
        sealed: true,
    }
}

/// A file that ends in these bytes, at 4096.
fn file_with(footer: &[u8]) -> std::sync::Arc<dyn DiskFile> {
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new("/f"), OpenMode::Create).unwrap();
    file.write_at(0, &mut [std::io::IoSlice::new(&[7; 4096])])
        .unwrap();
    file.write_at(4096, &mut [std::io::IoSlice::new(footer)])
        .unwrap();
    file
}

fn read_back(bytes: &[u8]) -> Option<(Summary, Option<Vec<IndexEntry>>)> {
    let file = file_with(bytes);
    let path = Path::new("/f");
    let footer = read(&*file, path).unwrap()?;
    let index = footer.read_index(&*file, path).unwrap();
    Some((footer.summary, index))
}

fn entries(count: u64) -> Vec<IndexEntry> {
    (0..count)
        .map(|n| IndexEntry {
            index: 10 + n,
            offset: Offset(100 + n.cast_signed()),
            position: 48 + 70_000 * n,
            max_timestamp_before: -5 + n.cast_signed(),
        })
        .collect()
}

#[test]
fn golden_footer() {
    let summary = summary(&[(1, 10), (4, 12)], 107, 1_700_000_000_000);
    golden::check("footer.bin", &encode(&summary, &entries(2)));
}

#[test]
fn more_epochs_than_one_read_holds() {
    let epochs: Vec<_> = (0..2000).map(|n| (n + 1, n * 3)).collect();
    let summary = summary(&epochs, 9, 9);
    let read = read_back(&encode(&summary, &entries(300))).unwrap();
    assert_eq!(read, (summary, Some(entries(300))));
}

#[test]
fn every_flipped_bit_costs_the_footer_or_the_index_and_nothing_else() {
    let summary = summary(&[(1, 10), (4, 12)], 107, 55);
    let good = encode(&summary, &entries(2));
    let index_ends = HEAD_BYTES + 2 * ENTRY_BYTES;
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let expected = (at < index_ends).then(|| (summary.clone(), None));
            assert_eq!(read_back(&bad), expected, "at {at}");
        }
    }
    for len in 0..good.len() {
        assert_eq!(read_back(&good[..len]), None, "{len} bytes");
    }
}

#[test]
fn counts_beyond_the_file_are_refused() {
    for (at, count) in [(16, u32::MAX), (20, u32::MAX), (20, 1 << 28)] {
        let mut footer = encode(&summary(&[(1, 1)], 1, 1), &[]);
        let trailer = footer.len() - TRAILER_BYTES;
        footer[trailer + at..trailer + at + 4].copy_from_slice(&count.to_be_bytes());
        assert_eq!(read_back(&footer), None);
    }
}

proptest! {
    #[test]
    fn footers_round_trip(
        epochs in proptest::collection::vec((any::<u64>(), 0..u64::MAX / 2), 1..40),
        count in 0..60u64,
        next_offset: i64,
        max_timestamp: i64,
    ) {
        let summary = summary(&epochs, next_offset, max_timestamp);
        let read = read_back(&encode(&summary, &entries(count))).unwrap();
        prop_assert_eq!(read, (summary, Some(entries(count))));
    }

    #[test]
    fn arbitrary_bytes_are_no_footer(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(read_back(&bytes), None);
    }
}
