//! What a partition remembers of its idempotent producers: a pure function of its log.
//!
//! Every replica applies the same batches in the same order, so every replica holds the same table:
//! also which producers were forgotten is decided by log positions alone, never by a clock.

use std::collections::{BTreeMap, HashMap, VecDeque};

use seriatim_proto::{
    batch::BatchHeader,
    ids::{Offset, ProducerId},
    limits::PRODUCER_WINDOW,
};

/// Producers that a partition remembers; the one that has been silent for the longest part of the
/// log is forgotten first. At most about 15 MB of memory, and of a checkpoint 10 MB.
pub const MAX_PRODUCERS: usize = 100_000;

/// Sequence numbers count from 0 to `i32::MAX` and start again at 0.
pub(crate) const fn sequence_after(first: i32, count: u32) -> i32 {
    // The sum of two numbers below 2^31 fits 32 bits; the mask takes the wrap.
    (first.cast_unsigned().wrapping_add(count) & i32::MAX.cast_unsigned()).cast_signed()
}

/// A batch of a producer that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Sequence number of its first record.
    pub first: i32,
    /// Its records.
    pub count: u32,
    /// Where it is.
    pub base_offset: Offset,
}

/// What is remembered of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    /// Raft index of its last batch. Invariant: no two producers have the same.
    pub(crate) last_index: u64,
    /// Its last batches of this epoch, oldest first. Invariant: 1 to [`PRODUCER_WINDOW`].
    pub(crate) window: VecDeque<Stored>,
}

impl Producer {
    /// The sequence number that must come next.
    pub(crate) fn next_sequence(&self) -> i32 {
        self.window
            .back()
            .map_or(0, |last| sequence_after(last.first, last.count))
    }
}

/// Why a batch may not follow the producer's earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceError {
    /// Not the number that comes next, and none of the batches that are remembered.
    OutOfOrder {
        /// The number that comes next.
        expected: i32,
    },
    /// A newer session of this producer has written.
    Fenced {
        /// Its epoch.
        current: i16,
    },
    /// The partition knows nothing of this producer, or no more, and the batch is not its first.
    Unknown,
}

/// How a batch relates to what is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It comes next.
    Next,
    /// It is in the log already.
    Duplicate(Stored),
    /// It cannot be appended.
    Refused(SequenceError),
}

/// The producers of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerTable {
    pub(crate) producers: HashMap<ProducerId, Producer>,
    /// The producers by their last batch. Invariant: exactly one entry for each of `producers`.
    pub(crate) by_index: BTreeMap<u64, ProducerId>,
    /// How many producers were forgotten so far.
    pub(crate) forgotten: u64,
    pub(crate) capacity: usize,
}

impl Default for ProducerTable {
    fn default() -> Self {
        Self::with_capacity(MAX_PRODUCERS)
    }
}

impl ProducerTable {
    /// An empty table that remembers so many producers. All replicas MUST use the same number.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            producers: HashMap::new(),
            by_index: BTreeMap::new(),
            forgotten: 0,
            capacity,
        }
    }

    /// Producers that are remembered.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is remembered.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// How a batch relates to the log. A batch without a producer always comes next.
    pub fn standing(&self, header: &BatchHeader) -> Standing {
        if header.producer_id == ProducerId::NONE {
            return Standing::Next;
        }
        let Some(producer) = self.producers.get(&header.producer_id) else {
            return first_batch(header, self.forgotten > 0);
        };
        if header.producer_epoch < producer.epoch {
            return Standing::Refused(SequenceError::Fenced {
                current: producer.epoch,
            });
        }
        if header.producer_epoch > producer.epoch {
            return first_batch(header, false);
        }
        let same = |stored: &&Stored| {
            stored.first == header.base_sequence && stored.count == header.record_count
        };
        if let Some(stored) = producer.window.iter().rev().find(same) {
            return Standing::Duplicate(*stored);
        }
        let expected = producer.next_sequence();
        if header.base_sequence == expected {
            Standing::Next
        } else {
            Standing::Refused(SequenceError::OutOfOrder { expected })
        }
    }

    /// Takes in a batch of the log, which MUST be given in the order of the log.
    pub fn apply(&mut self, index: u64, base_offset: Offset, header: &BatchHeader) {
        if header.producer_id == ProducerId::NONE {
            return;
        }
        let stored = Stored {
            first: header.base_sequence,
            count: header.record_count,
            base_offset,
        };
        match self.producers.get_mut(&header.producer_id) {
            // No leader appends this; were it in the log, every replica would pass over it alike.
            Some(producer) if header.producer_epoch < producer.epoch => return,
            Some(producer) => {
                let _ = self.by_index.remove(&producer.last_index);
                producer.last_index = index;
                if header.producer_epoch > producer.epoch {
                    producer.epoch = header.producer_epoch;
                    producer.window.clear();
                }
                if producer.window.len() == PRODUCER_WINDOW {
                    let _ = producer.window.pop_front();
                }
                producer.window.push_back(stored);
            }
            None => {
                let producer = Producer {
                    epoch: header.producer_epoch,
                    last_index: index,
                    window: VecDeque::from([stored]),
                };
                let _ = self.producers.insert(header.producer_id, producer);
            }
        }
        let _ = self.by_index.insert(index, header.producer_id);
        while self.producers.len() > self.capacity {
            let Some((_, silent)) = self.by_index.pop_first() else {
                break;
            };
            let _ = self.producers.remove(&silent);
            self.forgotten += 1;
        }
        debug_assert_eq!(self.producers.len(), self.by_index.len());
    }
}

/// The first batch of a producer, or of its epoch, has sequence number 0. Once a producer has been
/// forgotten, a number above 0 may belong to a forgotten one: it cannot go on.
fn first_batch(header: &BatchHeader, may_be_forgotten: bool) -> Standing {
    if header.base_sequence == 0 {
        Standing::Next
    } else if may_be_forgotten {
        Standing::Refused(SequenceError::Unknown)
    } else {
        Standing::Refused(SequenceError::OutOfOrder { expected: 0 })
    }
}

#[cfg(test)]
#[path = "producer_table_tests.rs"]
mod tests;
