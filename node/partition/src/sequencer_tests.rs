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
    /// Of the group.
    refusals: u64,
}

impl Partition {
    fn decide(&mut self, h: &BatchHeader, expected_end: Option<i64>) -> Decision {
        let view = View {
            table: &self.table,
            high_watermark: self.end,
            log_end: self.end,
            term: 1,
            refusals: self.refusals,
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
        self.store(h);
        self.sequencer.resolve(ticket, true);
    }

    fn store(&mut self, h: &BatchHeader) {
        self.index += 1;
        self.table.apply(self.index, self.end, h);
        self.end.0 += i64::from(h.record_count);
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

/// Found by simulator seed 390: a leader woke from a pause, refused a batch because its lease had lapsed,
/// heard from the others, and took the batches of the same producer that it had admitted meanwhile.
#[test]
fn what_was_admitted_before_a_refusal_does_not_count_after_it() {
    let mut p = Partition::default();
    let (a, b) = (header(1, 0, 0, 1), header(1, 0, 1, 1));
    let first = p.submit(&a);
    p.refusals += 1;
    // Nobody has heard of the refusal yet.
    assert_eq!(p.decide(&b, None), Decision::Wait(Wait::Drain));
    assert!(first.after().unwrap() < p.refusals);
    p.sequencer.resolve(first, false);
    let again = p.submit(&a);
    assert_eq!(again.after(), Some(p.refusals));
    let second = p.submit(&b);
    assert_eq!(second.after(), Some(p.refusals));
    let nobody = p.submit(&header(-1, -1, -1, 1));
    assert_eq!(nobody.after(), None, "it follows nothing in particular");
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
        refusals: 0,
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
    /// The group takes the oldest submission: it is in the log, unless it assumes what was refused.
    Take,
    /// The group refuses the oldest submission.
    Refuse,
    /// The oldest answer arrives.
    Answer,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_i64, 0..5_usize).prop_map(|(producer, back)| Step::Send { producer, back }),
        4 => Just(Step::Take),
        1 => Just(Step::Refuse),
        4 => Just(Step::Answer),
    ]
}

proptest! {
    /// Whatever is repeated, delayed or refused: each batch is in the log at most once, and a producer's
    /// batches are there in order and without a gap.
    #[test]
    fn each_batch_is_stored_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let mut p = Partition::default();
        let mut flying: VecDeque<(BatchHeader, Ticket)> = VecDeque::new();
        let mut answers: VecDeque<(Ticket, bool)> = VecDeque::new();
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
                Step::Take => if let Some((h, ticket)) = flying.pop_front() {
                    let stored = ticket.after().is_none_or(|known| known >= p.refusals);
                    if stored {
                        log.push((h.producer_id.0, h.base_sequence));
                        p.store(&h);
                    }
                    answers.push_back((ticket, stored));
                },
                Step::Refuse => if let Some((_, ticket)) = flying.pop_front() {
                    p.refusals += 1;
                    answers.push_back((ticket, false));
                },
                Step::Answer => if let Some((ticket, stored)) = answers.pop_front() {
                    p.sequencer.resolve(ticket, stored);
                },
            }
            prop_assert_eq!(p.sequencer.in_flight(), flying.len() + answers.len());
        }
        for producer in 0..3 {
            let own: Vec<i32> = log.iter().filter(|b| b.0 == producer).map(|b| b.1).collect();
            let whole = own.iter().copied().eq((0..).take(own.len()));
            prop_assert!(whole, "{:?}", own);
        }
    }
}
