//! Reading partitions from explicit positions.

mod batch;
mod reader;
mod reset;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Stream;
use seriatim_proto::ids::{Offset, TopicPartition};
use tokio::sync::mpsc;

pub(crate) use self::reader::{Credit, Reader, Watermark};
pub use self::{
    batch::{ConsumedBatch, ConsumedRecords},
    reset::ResetPolicy,
};
use crate::{client::Client, error::ClientError, group::GroupBuilder, rt};

/// Bytes that are read ahead, over all partitions, unless chosen otherwise.
pub(crate) const PREFETCH_BYTES: usize = 16 << 20;
const PREFETCH_BYTES_MIN: usize = 256 << 10;
/// Batches that wait for the application. The bytes are bounded by the prefetch.
pub(crate) const QUEUE_BATCHES: usize = 256;

/// Where to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The oldest record there is.
    Start,
    /// The record that is appended next.
    End,
    /// This offset.
    Offset(Offset),
    /// The first record at or after this time, in milliseconds since the Unix epoch.
    Time(i64),
}

/// Options of a consumer.
#[derive(Debug, Clone)]
#[must_use]
pub struct ConsumerBuilder {
    client: Client,
    prefetch_bytes: usize,
    reset: ResetPolicy,
    assigned: Vec<(TopicPartition, Position)>,
}

impl ConsumerBuilder {
    pub(crate) const fn new(client: Client) -> Self {
        Self {
            client,
            prefetch_bytes: PREFETCH_BYTES,
            reset: ResetPolicy::Fail,
            assigned: Vec::new(),
        }
    }

    /// Bytes that are read ahead of the application, over all partitions. Default: 16 MiB.
    pub const fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// What to do where there is no record at the wanted offset: retention has removed it, or it was
    /// never there. Default: [`ResetPolicy::Fail`].
    pub const fn on_out_of_range(mut self, policy: ResetPolicy) -> Self {
        self.reset = policy;
        self
    }

    /// Reads one partition from a position. The last position given for a partition counts.
    pub fn assign(mut self, topic: impl Into<String>, partition: i32, from: Position) -> Self {
        let tp = TopicPartition::new(topic, partition);
        self.assigned.retain(|(known, _)| *known != tp);
        self.assigned.push((tp, from));
        self
    }

    /// Finds the offsets of the positions and begins to read.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`] and [`ClientError::UnknownPartition`]; others if the positions
    /// cannot be found within 30 s.
    pub async fn build(self) -> Result<Consumer, ClientError> {
        let offsets = self.client.admin().list_offsets(&self.assigned).await?;
        let share = self.prefetch_bytes / self.assigned.len().max(1);
        let (queue, batches) = mpsc::channel(QUEUE_BATCHES);
        let mut consumer = Consumer {
            client: self.client,
            share: share.max(PREFETCH_BYTES_MIN),
            reset: self.reset,
            queue,
            batches,
            readers: HashMap::new(),
            generation: 0,
        };
        for ((tp, _), offset) in self.assigned.into_iter().zip(offsets) {
            consumer.start(tp, offset);
        }
        Ok(consumer)
    }
}

/// What a reader hands over: a batch, or why it cannot go on.
pub(crate) type Delivery = (TopicKey, Result<ConsumedBatch, ClientError>);

/// A partition and the number of the seek that its reader belongs to.
#[derive(Debug, Clone)]
pub(crate) struct TopicKey {
    pub(crate) tp: Arc<TopicPartition>,
    pub(crate) generation: u64,
}

/// Reads the assigned partitions: a [`Stream`] of batches, in order within a partition.
///
/// It follows leadership changes by itself: no record is skipped, none comes twice. After an error
/// of a partition that partition is not read any more, until it is [sought](Self::seek); the others
/// go on.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    /// Bytes that one partition reads ahead.
    share: usize,
    reset: ResetPolicy,
    queue: mpsc::Sender<Delivery>,
    batches: mpsc::Receiver<Delivery>,
    readers: HashMap<TopicPartition, Assigned>,
    generation: u64,
}

#[derive(Debug)]
struct Assigned {
    /// Invariant: deliveries of other generations are dropped, they are from before a seek.
    generation: u64,
    next: Offset,
    credit: Credit,
    _task: rt::Task,
}

impl Consumer {
    /// Options of a member of a group, which shares partitions with other members and remembers how
    /// far it is. For a consumer of partitions of one's own choice see [`Client::consumer`].
    pub fn group(client: &Client, group: impl Into<String>) -> GroupBuilder {
        GroupBuilder::new(client.clone(), group.into())
    }

    fn start(&mut self, tp: TopicPartition, offset: Offset) {
        self.generation += 1;
        let key = TopicKey {
            tp: Arc::new(tp.clone()),
            generation: self.generation,
        };
        let credit = Credit::new(self.share);
        let reader = Reader::new(
            Arc::clone(self.client.metadata()),
            key,
            offset,
            credit.clone(),
            self.queue.clone(),
        );
        let reader = reader.resetting(self.reset);
        let assigned = Assigned {
            generation: self.generation,
            next: offset,
            credit,
            _task: rt::Task::spawn(reader.run()),
        };
        let _before = self.readers.insert(tp, assigned);
    }

    /// Reads on from another position, also in a partition that was not assigned before. Nothing
    /// from before the new position is delivered after this returns.
    ///
    /// # Errors
    /// As [`ConsumerBuilder::build`].
    pub async fn seek(
        &mut self,
        topic: &str,
        partition: i32,
        to: Position,
    ) -> Result<Offset, ClientError> {
        let tp = TopicPartition::new(topic, partition);
        let found = self
            .client
            .admin()
            .list_offsets(&[(tp.clone(), to)])
            .await?;
        let offset = found.first().copied().unwrap_or_default();
        self.start(tp, offset);
        Ok(offset)
    }

    /// Stops reading a partition.
    pub fn unassign(&mut self, topic: &str, partition: i32) {
        let _reader = self.readers.remove(&TopicPartition::new(topic, partition));
    }

    /// Offset of the next record that the stream will deliver of a partition.
    pub fn position(&self, topic: &str, partition: i32) -> Option<Offset> {
        let assigned = self.readers.get(&TopicPartition::new(topic, partition));
        assigned.map(|a| a.next)
    }

    /// The next batch, or `None` where nothing is assigned.
    pub async fn next_batch(&mut self) -> Option<Result<ConsumedBatch, ClientError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedBatch, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.readers.is_empty() {
                return Poll::Ready(None);
            }
            let (key, delivery) = match self.batches.poll_recv(cx) {
                Poll::Ready(Some(delivery)) => delivery,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            };
            let Some(reader) = self.readers.get_mut(key.tp.as_ref()) else {
                continue;
            };
            if reader.generation != key.generation {
                continue;
            }
            if let Ok(batch) = &delivery {
                reader.credit.give_back(batch.bytes());
                reader.next = batch.next_offset();
            }
            return Poll::Ready(Some(delivery));
        }
    }
}
