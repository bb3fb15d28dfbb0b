use proptest::prelude::*;

use super::*;
use crate::testing::header;

/// The obvious table: it keeps the whole log and searches it.
#[derive(Default)]
struct Model {
    /// Producer, epoch, first sequence, records.
    log: Vec<(i64, i16, i32, u32)>,
}

impl Model {
    /// Producers by their last batch, the latest `capacity` of them, as of each position of the
    /// log; a producer that returns after it was forgotten starts anew.
    fn known_since(&self, id: i64, capacity: usize) -> Option<usize> {
        let mut remembered: Vec<(i64, usize)> = Vec::new();
        for (at, &(producer, ..)) in self.log.iter().enumerate() {
            let since = remembered
                .iter()
                .position(|&(known, _)| known == producer)
                .map_or(at, |position| remembered.remove(position).1);
            remembered.push((producer, since));
            if remembered.len() > capacity {
                let _ = remembered.remove(0);
            }
        }
        let found = remembered.iter().find(|&&(known, _)| known == id);
        found.map(|&(_, since)| since)
    }

    fn standing(&self, h: &BatchHeader, capacity: usize) -> &'static str {
        let id = h.producer_id.0;
        let Some(since) = self.known_since(id, capacity) else {
            return if h.base_sequence == 0 {
                "next"
            } else {
                "refused"
            };
        };
        let own: Vec<_> = self.log[since..].iter().filter(|b| b.0 == id).collect();
        let epoch = own.iter().map(|b| b.1).max().unwrap();
        if h.producer_epoch < epoch {
            return "refused";
        }
        let own: Vec<_> = own
            .into_iter()
            .filter(|b| b.1 == h.producer_epoch)
            .collect();
        let Some(last) = own.last() else {
            return if h.base_sequence == 0 {
                "next"
            } else {
                "refused"
            };
        };
        let repeated = own
            .iter()
            .rev()
            .take(5)
            .any(|b| b.2 == h.base_sequence && b.3 == h.record_count);
        if repeated {
            "duplicate"
        } else if i64::from(h.base_sequence) == (i64::from(last.2) + i64::from(last.3)) % (1 << 31)
        {
            "next"
        } else {
            "refused"
        }
    }
}

fn name(standing: Standing) -> &'static str {
    match standing {
        Standing::Next => "next",
        Standing::Duplicate(_) => "duplicate",
        Standing::Refused(_) => "refused",
    }
}

proptest! {
    #[test]
    fn behaves_like_a_search_of_the_whole_log(
        capacity in 1..5_usize,
        tries in proptest::collection::vec((0..6_i64, 0..2_i16, 0..8_i32, 1..3_u32), 1..200),
    ) {
        let mut model = Model::default();
        let mut table = ProducerTable::with_capacity(capacity);
        for (index, (id, epoch, first, count)) in (1_u64..).zip(tries) {
            let h = header(id, epoch, first, count);
            let standing = table.standing(&h);
            prop_assert_eq!(name(standing), model.standing(&h, capacity));
            if standing == Standing::Next {
                model.log.push((id, epoch, first, count));
                table.apply(index, Offset(0), &h);
            }
            prop_assert!(table.len() <= capacity);
            prop_assert_eq!(table.len(), table.by_index.len());
        }
    }
}

#[test]
fn a_duplicate_is_answered_with_its_place() {
    let mut table = ProducerTable::default();
    for batch in 0..7_i32 {
        let h = header(1, 0, batch * 2, 2);
        assert_eq!(table.standing(&h), Standing::Next);
        table.apply(
            u64::try_from(batch).unwrap() + 1,
            Offset(100 + 2 * i64::from(batch)),
            &h,
        );
    }
    for batch in 2..7_i32 {
        let found = table.standing(&header(1, 0, batch * 2, 2));
        let Standing::Duplicate(stored) = found else {
            panic!("{batch}: {found:?}");
        };
        assert_eq!(stored.base_offset, Offset(100 + 2 * i64::from(batch)));
    }
    // The sixth last is forgotten, and one that overlaps is none of them.
    for (first, count) in [(2, 2), (12, 1), (11, 2)] {
        assert_eq!(
            table.standing(&header(1, 0, first, count)),
            Standing::Refused(SequenceError::OutOfOrder { expected: 14 })
        );
    }
}

#[test]
fn sequence_numbers_wrap_to_zero() {
    assert_eq!(sequence_after(i32::MAX, 1), 0);
    assert_eq!(sequence_after(i32::MAX - 1, 5), 3);
    let mut table = ProducerTable::default();
    table.apply(1, Offset(0), &header(1, 0, i32::MAX - 1, 4));
    assert_eq!(table.standing(&header(1, 0, 2, 1)), Standing::Next);
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_begins_at_zero() {
    let mut table = ProducerTable::default();
    table.apply(1, Offset(0), &header(1, 3, 0, 4));
    assert_eq!(
        table.standing(&header(1, 2, 4, 1)),
        Standing::Refused(SequenceError::Fenced { current: 3 })
    );
    assert_eq!(
        table.standing(&header(1, 4, 4, 1)),
        Standing::Refused(SequenceError::OutOfOrder { expected: 0 })
    );
    assert_eq!(table.standing(&header(1, 4, 0, 1)), Standing::Next);
}

#[test]
fn a_forgotten_producer_must_not_go_on() {
    let mut table = ProducerTable::with_capacity(1);
    table.apply(1, Offset(0), &header(1, 0, 0, 1));
    table.apply(2, Offset(1), &header(2, 0, 0, 1));
    assert_eq!(
        table.standing(&header(1, 0, 1, 1)),
        Standing::Refused(SequenceError::Unknown)
    );
}
