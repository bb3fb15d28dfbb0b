//! Records on their way into batches: one queue per partition, filled by the callers of `send` and
//! emptied by the sender task.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use seriatim_proto::{
    compression::Compression,
    limits::MAX_BATCH_RECORDS,
    record::{BatchBuilder, Header},
};
use tokio::time::Instant;

use super::delivery::{Completion, Delivery};
use crate::{partitioner::partition_for_key, rt};

/// A batch that records are added to.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub(super) builder: BatchBuilder,
    pub(super) completion: Arc<Completion>,
    pub(super) created: Instant,
    /// Bytes of the producer's budget that its records hold.
    pub(super) reserved: usize,
}

#[derive(Debug, Default)]
pub(super) struct Batches {
    pub(super) open: Option<OpenBatch>,
    /// Full, or to be sent at once; in order.
    pub(super) sealed: VecDeque<OpenBatch>,
    /// Set when the producer ends; nothing is added any more.
    pub(super) closed: bool,
}

impl Batches {
    pub(super) fn seal(&mut self) {
        self.sealed.extend(self.open.take());
    }
}

/// What is queued for one partition.
#[derive(Debug)]
pub(super) struct Queue {
    /// Unique in the producer.
    pub(super) id: usize,
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) batches: Mutex<Batches>,
    /// In the list of queues that the sender has to look at.
    pub(super) dirty: AtomicBool,
}

/// What a push did.
pub(super) struct Pushed {
    pub(super) delivery: Delivery,
    /// The sender has something new to decide on: a batch was begun or became full.
    pub(super) news: bool,
    /// A batch became full.
    pub(super) filled: bool,
}

/// A record's parts, borrowed.
pub(super) struct Parts<'a> {
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [Header],
    pub(super) reserved: usize,
}

impl Queue {
    /// Adds a record to the open batch, or to a new one if it is full. `None`: the producer ended,
    /// or the record does not even fit into an empty batch.
    pub(super) fn push(
        &self,
        parts: &Parts<'_>,
        (compression, batch_bytes): (Compression, usize),
    ) -> Option<Pushed> {
        let mut batches = self.batches.lock();
        if batches.closed {
            return None;
        }
        let (mut news, mut filled) = (false, false);
        let fits = |open: &OpenBatch| {
            open.builder.encoded_bytes() + parts.reserved <= batch_bytes
                && open.builder.record_count() < MAX_BATCH_RECORDS
        };
        if batches.open.as_ref().is_some_and(|open| !fits(open)) {
            batches.seal();
            (news, filled) = (true, true);
        }
        let open = batches.open.get_or_insert_with(|| {
            news = true;
            let room = (parts.reserved * 8).clamp(512, batch_bytes.max(512));
            OpenBatch {
                builder: BatchBuilder::with_capacity(compression, room),
                completion: Arc::default(),
                created: Instant::now(),
                reserved: 0,
            }
        });
        let Parts {
            timestamp_ms,
            key,
            value,
            headers,
            reserved,
        } = *parts;
        let index = open.builder.push(timestamp_ms, key, value, headers)?;
        open.reserved += reserved;
        let delivery = Delivery::new(Arc::clone(&open.completion), index);
        if open.builder.encoded_bytes() >= batch_bytes {
            batches.seal();
            (news, filled) = (true, true);
        }
        Some(Pushed {
            delivery,
            news,
            filled,
        })
    }

    fn has_open_batch(&self) -> bool {
        self.batches.lock().open.is_some()
    }
}

/// The queues of a topic.
#[derive(Debug)]
pub(super) struct TopicQueues {
    pub(super) queues: Vec<Arc<Queue>>,
    /// Where records without a key go until the batch there is full or sent.
    sticky: AtomicI32,
    /// Nothing went there since a batch elsewhere became full.
    fresh: AtomicBool,
}

/// Queues of partitions from one on.
fn queues(topic: &str, partitions: Range<i32>, next_id: &AtomicUsize) -> Vec<Arc<Queue>> {
    let topic: Arc<str> = topic.into();
    let queue = |partition| {
        Arc::new(Queue {
            id: next_id.fetch_add(1, Ordering::Relaxed),
            topic: Arc::clone(&topic),
            partition,
            batches: Mutex::default(),
            dirty: AtomicBool::new(false),
        })
    };
    partitions.map(queue).collect()
}

impl TopicQueues {
    /// The same with more partitions.
    pub(super) fn grown(&self, topic: &str, partitions: i32, next_id: &AtomicUsize) -> Self {
        let mut all = self.queues.clone();
        let known = i32::try_from(all.len()).unwrap_or(i32::MAX);
        all.extend(queues(topic, known..partitions, next_id));
        Self {
            queues: all,
            sticky: AtomicI32::new(self.sticky.load(Ordering::Relaxed)),
            fresh: AtomicBool::new(true),
        }
    }

    pub(super) fn new(topic: &str, partitions: i32, next_id: &AtomicUsize) -> Self {
        let start = rt::below(usize::try_from(partitions).unwrap_or(0));
        Self {
            queues: queues(topic, 0..partitions, next_id),
            sticky: AtomicI32::new(i32::try_from(start).unwrap_or(0)),
            fresh: AtomicBool::new(true),
        }
    }

    /// The queue of a record; `None` if there is no such partition.
    pub(super) fn choose(&self, partition: Option<i32>, key: Option<&[u8]>) -> Option<&Arc<Queue>> {
        let count = i32::try_from(self.queues.len()).ok()?;
        let chosen = match (partition, key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, count),
            (None, None) => self.sticky(count),
        };
        self.queues.get(usize::try_from(chosen).ok()?)
    }

    /// Stays with a partition while a batch is open there, then goes to the next one.
    fn sticky(&self, count: i32) -> i32 {
        let current = self.sticky.load(Ordering::Relaxed);
        let at = usize::try_from(current).unwrap_or(0);
        let fresh = self.fresh.swap(false, Ordering::Relaxed);
        if fresh || self.queues.get(at).is_some_and(|q| q.has_open_batch()) {
            return current;
        }
        let next = (current + 1).checked_rem(count).unwrap_or(0);
        self.sticky.store(next, Ordering::Relaxed);
        next
    }

    /// A batch of records without a key became full there: the next one goes elsewhere. Otherwise a
    /// partition that is slow, and so always has a batch open, would get all of them.
    pub(super) fn leave(&self, partition: i32) {
        let count = i32::try_from(self.queues.len()).unwrap_or(i32::MAX);
        let next = (partition + 1).checked_rem(count).unwrap_or(0);
        let order = Ordering::Relaxed;
        let moved = self.sticky.compare_exchange(partition, next, order, order);
        // Somebody else may have moved on already.
        if moved.is_ok() {
            self.fresh.store(true, order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_grows_keeps_its_queues() {
        let next_id = AtomicUsize::new(0);
        let topic = TopicQueues::new("t", 2, &next_id);
        assert!(topic.choose(Some(2), None).is_none());
        let grown = topic.grown("t", 4, &next_id);
        for (before, after) in topic.queues.iter().zip(&grown.queues) {
            assert!(Arc::ptr_eq(before, after));
        }
        let ids: Vec<_> = grown.queues.iter().map(|q| (q.id, q.partition)).collect();
        assert_eq!(ids, [(0, 0), (1, 1), (2, 2), (3, 3)]);
        assert!(grown.choose(Some(3), None).is_some());
    }

    #[test]
    fn records_without_a_key_move_on_with_every_full_batch() {
        let topic = TopicQueues::new("t", 3, &AtomicUsize::new(0));
        let parts = Parts {
            timestamp_ms: 0,
            key: None,
            value: Some(b"0123456789"),
            headers: &[],
            reserved: 50,
        };
        // Nothing is ever sent, as where every leader is slow.
        for _ in 0..30 {
            let queue = topic.choose(None, None).unwrap();
            if queue.push(&parts, (Compression::None, 200)).unwrap().filled {
                topic.leave(queue.partition);
            }
        }
        let full = topic.queues.iter().map(|q| q.batches.lock().sealed.len());
        let full: Vec<usize> = full.collect();
        let (least, most) = (full.iter().min().unwrap(), full.iter().max().unwrap());
        assert!(*least > 0 && most - least <= 1, "{full:?}");
    }
}
