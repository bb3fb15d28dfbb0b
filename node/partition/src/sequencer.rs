//! Decides, on the leader, what becomes of a batch that wants to be appended. Pure.
//!
//! The producer table says what is in the log; the sequencer adds what this leader has submitted in
//! its term and nobody has answered yet. Its decisions are made one at a time, in the order in which
//! the batches are then submitted.
//!
//! A submission can be refused although later ones succeed (a leader's lease may lapse for a
//! moment). What followed it was decided on a false assumption about what comes before. So a batch of a
//! producer is submitted with the number of refusals that were known when nothing was under way, and the
//! group leaves it out if there were more; and once a refusal is known, nothing is admitted until every
//! submission is answered and the table is the whole truth.
//! A conditional append is held back likewise: its promise is exact, so it assumes nothing.

use std::collections::{HashMap, VecDeque};

use seriatim_proto::{
    batch::BatchHeader,
    ids::{Offset, ProducerId},
    limits::PRODUCER_WINDOW,
};
use seriatim_runtime::mutant::{self, Mutant};

use crate::producer_table::{ProducerTable, SequenceError, Standing, Stored, sequence_after};

/// What is known about the partition while a decision is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) table: &'a ProducerTable,
    /// End of what is applied.
    pub(crate) high_watermark: Offset,
    /// End of the log, applied or not.
    pub(crate) log_end: Offset,
    /// The term in which this replica leads.
    pub(crate) term: u64,
    /// Proposals that the group refused on this replica, counted before the rest of this was looked at.
    pub(crate) refusals: u64,
}

/// A submission that waits for its answer; to be given back by [`Sequencer::resolve`] exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    term: u64,
    producer: ProducerId,
    epoch: i16,
    first: i32,
    refusals: u64,
}

impl Ticket {
    /// How many refusals there may have been for this submission to count; `None`: it assumes nothing
    /// about what is in front of it.
    pub(crate) fn after(&self) -> Option<u64> {
        (self.producer != ProducerId::NONE).then_some(self.refusals)
    }
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Submit it.
    Submit(Ticket),
    /// It is in the log.
    Duplicate(Stored),
    /// Ask again when something has changed.
    Wait(Wait),
    /// The end of the log is not the expected one.
    WrongEnd(Offset),
    /// Never, as things stand.
    Refuse(SequenceError),
}

/// What a batch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The same batch is on its way, or its producer has too many on theirs.
    InFlight,
    /// Batches of its producer that should come before it and may arrive at any moment: requests
    /// that were sent in order may overtake each other on their way here. If they do not come, this
    /// is the error.
    Gap(SequenceError),
    /// Every submission must be answered first.
    Drain,
}

#[derive(Debug, Clone, Copy)]
struct Submitted {
    epoch: i16,
    first: i32,
    count: u32,
}

/// Submissions of one term that wait for their answers.
#[derive(Debug, Default)]
pub(crate) struct Sequencer {
    term: u64,
    /// By producer, in order of submission. Invariant: no empty queue.
    pending: HashMap<ProducerId, VecDeque<Submitted>>,
    /// Submissions of this term without an answer, those without a producer included.
    in_flight: usize,
    /// Whether a submission of this term failed and the log may not be what was assumed.
    uncertain: bool,
    /// Refusals of the group that the table has taken in. Invariant: of a number read when every earlier
    /// submission was answered.
    refusals: u64,
}

impl Sequencer {
    /// Submissions that wait for their answers.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether nothing was decided in this term yet.
    pub(crate) fn is_new(&self, term: u64) -> bool {
        self.term != term
    }

    /// Decides about a batch; a [`Decision::Submit`] counts it as submitted.
    pub(crate) fn decide(
        &mut self,
        view: View<'_>,
        header: &BatchHeader,
        expected_end: Option<Offset>,
    ) -> Decision {
        if self.is_new(view.term) {
            // Nothing of an earlier term can reach the log any more: a leader serves only once an
            // entry of its own term is applied.
            *self = Self {
                term: view.term,
                ..Self::default()
            };
        }
        let standing = view.table.standing(header);
        if let Standing::Duplicate(stored) = standing {
            return Decision::Duplicate(stored);
        }
        let drained = self.in_flight == 0 && view.log_end == view.high_watermark;
        if self.uncertain || self.refusals != view.refusals {
            if !drained {
                return Decision::Wait(Wait::Drain);
            }
            self.uncertain = false;
            self.refusals = view.refusals;
        }
        if let Some(decision) = self.sequence(header, standing) {
            let gap = matches!(decision, Decision::Wait(Wait::Gap(_)));
            if !(gap && mutant::on(Mutant::GapAccepted)) {
                return decision;
            }
        }
        if let Some(expected) = expected_end {
            // The end only ever grows.
            if expected < view.high_watermark {
                return Decision::WrongEnd(view.high_watermark);
            }
            if !drained && !mutant::on(Mutant::WrongEndChecked) {
                return Decision::Wait(Wait::Drain);
            }
            if expected != view.high_watermark {
                return Decision::WrongEnd(view.high_watermark);
            }
        }
        Decision::Submit(self.submit(header))
    }

    /// Takes back a ticket when its answer has come; `stored` says whether the batch is applied.
    pub(crate) fn resolve(&mut self, ticket: Ticket, stored: bool) {
        if ticket.term != self.term {
            return;
        }
        debug_assert!(self.in_flight > 0, "a ticket was given back twice");
        self.in_flight = self.in_flight.saturating_sub(1);
        self.uncertain |= !stored;
        if ticket.producer == ProducerId::NONE {
            return;
        }
        if let Some(queue) = self.pending.get_mut(&ticket.producer) {
            queue.retain(|s| (s.epoch, s.first) != (ticket.epoch, ticket.first));
            if queue.is_empty() {
                let _ = self.pending.remove(&ticket.producer);
            }
        }
    }

    /// What stands against the batch's sequence number, given what is on its way.
    fn sequence(&self, header: &BatchHeader, standing: Standing) -> Option<Decision> {
        if header.producer_id == ProducerId::NONE {
            return None;
        }
        // A later epoch than the one on its way begins at 0 like one that is later than the table's.
        let queue = self.pending.get(&header.producer_id);
        let Some((queue, last)) = queue.and_then(|queue| Some((queue, queue.back()?))) else {
            return match standing {
                Standing::Next | Standing::Duplicate(_) => None,
                Standing::Refused(error) => Some(refused(error, header)),
            };
        };
        if header.producer_epoch < last.epoch {
            return Some(Decision::Refuse(SequenceError::Fenced {
                current: last.epoch,
            }));
        }
        if header.producer_epoch > last.epoch {
            return (header.base_sequence != 0)
                .then_some(refused(SequenceError::OutOfOrder { expected: 0 }, header));
        }
        let same = |s: &Submitted| {
            (s.epoch, s.first, s.count)
                == (
                    header.producer_epoch,
                    header.base_sequence,
                    header.record_count,
                )
        };
        if queue.iter().any(same) {
            return Some(Decision::Wait(Wait::InFlight));
        }
        let expected = sequence_after(last.first, last.count);
        if header.base_sequence != expected {
            return Some(refused(SequenceError::OutOfOrder { expected }, header));
        }
        // More on their way than the table remembers, and a repetition would not be recognised.
        (queue.len() >= PRODUCER_WINDOW).then_some(Decision::Wait(Wait::InFlight))
    }

    fn submit(&mut self, header: &BatchHeader) -> Ticket {
        self.in_flight += 1;
        if header.producer_id != ProducerId::NONE {
            let submitted = Submitted {
                epoch: header.producer_epoch,
                first: header.base_sequence,
                count: header.record_count,
            };
            self.pending
                .entry(header.producer_id)
                .or_default()
                .push_back(submitted);
        }
        Ticket {
            term: self.term,
            producer: header.producer_id,
            epoch: header.producer_epoch,
            first: header.base_sequence,
            refusals: self.refusals,
        }
    }
}

/// A batch from further on waits for those before it; any other is refused at once.
fn refused(error: SequenceError, header: &BatchHeader) -> Decision {
    match error {
        SequenceError::OutOfOrder { expected } => {
            let ahead = header.base_sequence.wrapping_sub(expected) & i32::MAX;
            if ahead < 1 << 30 {
                Decision::Wait(Wait::Gap(error))
            } else {
                Decision::Refuse(error)
            }
        }
        SequenceError::Fenced { .. } | SequenceError::Unknown => Decision::Refuse(error),
    }
}

#[cfg(test)]
#[path = "sequencer_tests.rs"]
mod tests;
