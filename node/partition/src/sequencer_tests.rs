use proptest::prelude::*;

use super::*;
use crate::testing::header;

/// A log whose entries are applied as soon as the test says so.
#[derive(Default)]
struct Partition {
    sequencer: Sequencer,
    table: ProducerTable,
    end: Offset,
    index: u64,
}

impl Partition {
    fn decide(&mut self, h: &BatchHeader, expected_end: Option<i64>) -> Decision {
        let view = View {
            table: &self.table,
            high_watermark: self.end,
            log_end: self.end,
            term: 1,
        };
        self.sequencer.decide(view, h, expected_end.map(Offset))
    }

    fn submit(&mut self, h: &BatchHeader) -> Ticket {
        match self.decide(h, None) {
            Decision::Submit(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn apply(&mut self, h: &BatchHeader, ticket: Ticket) {
        self.index += 1;
        self.table.apply(self.index, self.end, h);
        self.end.0 += i64::from(h.record_count);
        self.sequencer.resolve(ticket, true);
    }
}

#[test]
fn batches_follow_each_other_before_the_first_is_answered() {
    let mut p = Partition::default();
    let (a, b) = (header(1, 0, 0, 2), header(1, 0, 2, 3));
    let first = p.submit(&a);
    let second = p.submit(&b);
    assert_eq!(p.decide(&a, None), Decision::Wait(Wait::InFlight));
    p.apply(&a, first);
    p.apply(&b, second);
    let Decision::Duplicate(stored) = p.decide(&b, None) else {
        panic!("the second batch is in the log");
    };
    assert_eq!(stored.base_offset, Offset(2));
    assert_eq!(p.sequencer.in_flight(), 0);
    assert!(p.sequencer.pending.is_empty());
}

#[test]
fn a_batch_that_overtook_waits_and_one_from_the_past_is_refused() {
    let mut p = Partition::default();
    let gap = Wait::Gap(SequenceError::OutOfOrder { expected: 0 });
    assert_eq!(p.decide(&header(1, 0, 2, 1), None), Decision::Wait(gap));
    let first = p.submit(&header(1, 0, 0, 2));
    p.apply(&header(1, 0, 0, 2), first);
    let _ = p.submit(&header(1, 0, 2, 1));
    assert_eq!(
        p.decide(&header(1, 0, 1, 1), None),
        Decision::Refuse(SequenceError::OutOfOrder { expected: 3 })
    );
}

#[test]
fn nothing_follows_a_failed_submission_until_all_are_answered() {
    let mut p = Partition::default();
    let (a, b) = (header(1, 0, 0, 1), header(-1, -1, -1, 1));
    let first = p.submit(&a);
    let second = p.submit(&b);
    p.sequencer.resolve(first, false);
    assert_eq!(p.decide(&b, None), Decision::Wait(Wait::Drain));
    assert_eq!(p.decide(&a, None), Decision::Wait(Wait::Drain));
    p.apply(&b, second);
    let again = p.submit(&a);
    p.apply(&a, again);
    assert_eq!(p.end, Offset(2));
}

#[test]
fn of_appends_with_the_same_expected_end_one_wins() {
    let mut p = Partition::default();
    let h = header(-1, -1, -1, 2);
    let Decision::Submit(ticket) = p.decide(&h, Some(0)) else {
        panic!("the first wins");
    };
    assert_eq!(p.decide(&h, Some(0)), Decision::Wait(Wait::Drain));
    p.apply(&h, ticket);
    assert_eq!(p.decide(&h, Some(0)), Decision::WrongEnd(Offset(2)));
    assert_eq!(p.decide(&h, Some(3)), Decision::WrongEnd(Offset(2)));
}

#[test]
fn a_new_term_forgets_what_was_on_its_way() {
    let mut p = Partition::default();
    let a = header(1, 0, 0, 1);
    let lost = p.submit(&a);
    let view = View {
        table: &p.table,
        high_watermark: Offset(0),
        log_end: Offset(0),
        term: 2,
    };
    let Decision::Submit(again) = p.sequencer.decide(view, &a, None) else {
        panic!("submitted again in the new term");
    };
    p.sequencer.resolve(lost, false);
    assert_eq!(p.sequencer.in_flight(), 1);
    assert!(!p.sequencer.uncertain);
    p.sequencer.resolve(again, true);
    assert_eq!(p.sequencer.in_flight(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    /// Producer 0..3 sends its next batch, or one of its last ones again.
    Send { producer: i64, back: usize },
    /// The oldest submission reaches the log.
    Apply,
    /// The oldest submission is refused.
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_i64, 0..5_usize).prop_map(|(producer, back)| Step::Send { producer, back }),
        4 => Just(Step::Apply),
        1 => Just(Step::Lose),
    ]
}

proptest! {
    /// Whatever is repeated, delayed or lost: each batch is in the log at most once, and a producer's
    /// batches are there in order. Only a loss may leave a hole, which its producer is told.
    #[test]
    fn each_batch_is_stored_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let mut p = Partition::default();
        let mut flying: VecDeque<(BatchHeader, Ticket)> = VecDeque::new();
        let mut next = [0_i32; 3];
        let mut log: Vec<(i64, i32)> = Vec::new();
        for step in steps {
            match step {
                Step::Send { producer, back } => {
                    let slot = &mut next[usize::try_from(producer).unwrap()];
                    let first = (*slot - i32::try_from(back).unwrap()).max(0);
                    let h = header(producer, 0, first, 1);
                    if let Decision::Submit(ticket) = p.decide(&h, None) {
                        flying.push_back((h, ticket));
                        *slot = (*slot).max(first + 1);
                    }
                }
                Step::Apply => if let Some((h, ticket)) = flying.pop_front() {
                    log.push((h.producer_id.0, h.base_sequence));
                    p.apply(&h, ticket);
                },
                Step::Lose => if let Some((_, ticket)) = flying.pop_front() {
                    p.sequencer.resolve(ticket, false);
                },
            }
            prop_assert_eq!(p.sequencer.in_flight(), flying.len());
        }
        for producer in 0..3 {
            let own: Vec<i32> = log.iter().filter(|b| b.0 == producer).map(|b| b.1).collect();
            prop_assert!(own.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", own);
        }
    }
}
