//! Appending records.

mod conditional;
mod delivery;
mod lane;
mod link;
mod queue;
mod sender;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use seriatim_proto::{
    compression::Compression,
    ids::{Offset, ProducerId},
    limits::{MAX_BATCH_BYTES, PRODUCER_WINDOW},
    record::{BatchBuilder, Header},
    v1,
};
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot},
    time::timeout,
};

pub use self::delivery::{Delivered, Delivery};
use self::{
    conditional::Conditional,
    lane::{Rules, Session},
    queue::{Parts, Queue, TopicQueues},
    sender::{Command, Sender},
};
use crate::{client::Client, error::ClientError, rt};

/// Room that a batch of the largest size leaves for its header and one record's fields.
const RECORD_BYTES_MAX: usize = MAX_BATCH_BYTES - 1024;

/// When an append counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// When it is as durable as the topic's setting says. The default.
    #[default]
    All,
    /// When the leader has received it. Nothing is promised.
    None,
}

/// A record to append.
#[derive(Debug, Clone, Default)]
pub struct ProducerRecord {
    /// The topic.
    pub topic: String,
    /// The partition; without one, the key decides, and without a key the producer.
    pub partition: Option<i32>,
    /// The key. Records of one key stay in order.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// Headers.
    pub headers: Vec<Header>,
    /// Milliseconds since the Unix epoch; the time of sending if there is none.
    pub timestamp_ms: Option<i64>,
}

impl ProducerRecord {
    /// A record with a value and nothing else.
    pub fn new(topic: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// The same record with a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same record for a certain partition.
    #[must_use]
    pub const fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The same record with one more header.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header {
            key: key.into(),
            value: Some(value.into()),
        });
        self
    }

    /// The same record with a timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    fn bytes_max(&self) -> usize {
        let of = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        BatchBuilder::record_bytes_max(of(&self.key), of(&self.value), &self.headers)
    }
}

/// Options of a producer.
#[derive(Debug, Clone)]
#[must_use]
pub struct ProducerBuilder {
    client: Client,
    linger: Duration,
    batch_bytes: usize,
    compression: Compression,
    acks: Acks,
    idempotent: bool,
    delivery_timeout: Duration,
    max_in_flight: usize,
    buffer_bytes: usize,
}

impl ProducerBuilder {
    pub(crate) const fn new(client: Client) -> Self {
        Self {
            client,
            linger: Duration::ZERO,
            batch_bytes: 1 << 20,
            compression: Compression::None,
            acks: Acks::All,
            idempotent: true,
            delivery_timeout: Duration::from_secs(120),
            max_in_flight: PRODUCER_WINDOW,
            buffer_bytes: 32 << 20,
        }
    }

    /// How long a batch waits for more records. Default: not at all; batches still grow while an
    /// earlier one of their partition is on its way.
    pub const fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Size in bytes, before compression, at which a batch is full. Default: 1 MiB.
    pub const fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// How batches are compressed. Default: not.
    pub const fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// When an append counts as done. Default: [`Acks::All`].
    pub const fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// Whether a retry is stored once only. Default: yes. Without, an append that may have been
    /// stored is not retried, and one batch at a time is in flight for each partition.
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// How long a record may take until it is acknowledged, with all retries. Default: 120 s.
    pub const fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Batches in flight for each partition, 1 to 5. Default: 5.
    pub const fn max_in_flight(mut self, batches: usize) -> Self {
        self.max_in_flight = batches;
        self
    }

    /// Bytes of records that wait for their acknowledgement; [`Producer::send`] waits for room.
    /// Default: 32 MiB.
    pub const fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// Starts the producer.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for options out of range; if it is idempotent, any that keeps it
    /// from getting a session.
    pub async fn build(self) -> Result<Producer, ClientError> {
        if !(1..=PRODUCER_WINDOW).contains(&self.max_in_flight) {
            let what = format!("max_in_flight is 1 to {PRODUCER_WINDOW}");
            return Err(ClientError::Invalid(what));
        }
        if self.batch_bytes == 0 || self.batch_bytes > RECORD_BYTES_MAX {
            return Err(ClientError::Invalid(format!(
                "batch_bytes is 1 to {RECORD_BYTES_MAX}"
            )));
        }
        if self.buffer_bytes < self.batch_bytes || self.buffer_bytes > Semaphore::MAX_PERMITS {
            return Err(ClientError::invalid("buffer_bytes is at least batch_bytes"));
        }
        let session = match self.idempotent {
            true => Some(init_session(&self.client).await?),
            false => None,
        };
        let shared = Arc::new(Shared {
            rules: Rules {
                linger: self.linger,
                max_in_flight: if self.idempotent {
                    self.max_in_flight
                } else {
                    1
                },
                delivery_timeout: self.delivery_timeout,
            },
            acks: match self.acks {
                Acks::All => v1::Acks::All,
                Acks::None => v1::Acks::None,
            },
            batches: (self.compression, self.batch_bytes),
            topics: RwLock::default(),
            next_id: AtomicUsize::new(0),
            dirty: Mutex::default(),
            wake: Notify::new(),
            buffer_bytes: self.buffer_bytes,
            budget: Semaphore::new(self.buffer_bytes),
        });
        let (commands, received) = mpsc::channel(16);
        let sender = Sender::new(Arc::clone(&shared), self.client.clone(), session);
        let conditional = Conditional::new(self.client.clone(), shared.rules, self.compression);
        Ok(Producer {
            inner: Arc::new(Inner {
                client: self.client,
                shared,
                conditional,
                commands,
                _task: rt::Task::spawn(sender.run(received)),
            }),
        })
    }
}

/// What the handles and the sender task share.
#[derive(Debug)]
struct Shared {
    rules: Rules,
    acks: v1::Acks,
    /// Compression and size of batches.
    batches: (Compression, usize),
    topics: RwLock<HashMap<String, Arc<TopicQueues>>>,
    next_id: AtomicUsize,
    dirty: Mutex<Vec<Arc<Queue>>>,
    wake: Notify,
    buffer_bytes: usize,
    /// Invariant: permits plus the bytes reserved by unacknowledged records are `buffer_bytes`.
    budget: Semaphore,
}

impl Shared {
    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.budget.add_permits(bytes);
        }
    }

    fn announce(&self, queue: &Arc<Queue>) {
        if !queue.dirty.swap(true, Ordering::AcqRel) {
            self.dirty.lock().push(Arc::clone(queue));
            self.wake.notify_one();
        }
    }

    fn close(&self) {
        let topics: Vec<_> = self
            .topics
            .write()
            .drain()
            .map(|(_, topic)| topic)
            .collect();
        for queue in topics.iter().flat_map(|topic| &topic.queues) {
            let mut batches = queue.batches.lock();
            batches.closed = true;
            batches.seal();
            for batch in batches.sealed.drain(..) {
                let error = ClientError::Abandoned {
                    maybe_applied: false,
                };
                batch.completion.complete(Err(error));
            }
        }
        self.budget.close();
    }
}

#[derive(Debug)]
struct Inner {
    client: Client,
    shared: Arc<Shared>,
    conditional: Conditional,
    commands: mpsc::Sender<Command>,
    _task: rt::Task,
}

/// Appends records to topics. Cheap to clone; all clones share batches and their order.
///
/// Records sent one after the other to a partition are stored in that order.
#[derive(Debug, Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

impl Producer {
    /// Queues a record. The first await is back-pressure: it ends when the producer's buffer has
    /// room. The returned [`Delivery`] resolves when the record is acknowledged.
    ///
    /// # Errors
    /// [`ClientError::RecordTooLarge`], [`ClientError::UnknownTopic`],
    /// [`ClientError::UnknownPartition`], [`ClientError::Closed`], or [`ClientError::Timeout`] if
    /// there is no room within the delivery timeout. Nothing was sent then.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, ClientError> {
        let shared = &self.inner.shared;
        let bytes = record.bytes_max();
        let limit = RECORD_BYTES_MAX.min(shared.buffer_bytes);
        if bytes > limit {
            return Err(ClientError::RecordTooLarge { bytes, limit });
        }
        let known = shared.topics.read().get(&record.topic).cloned();
        let mut topic = match known {
            Some(topic) => topic,
            None => self.topic(&record.topic).await?,
        };
        if let Some(partition) = record.partition
            && topic.choose(Some(partition), None).is_none()
        {
            topic = self.topic_with(&record.topic, partition).await?;
        }
        self.reserve(bytes).await?;
        let queue = topic.choose(record.partition, record.key.as_deref());
        let Some(queue) = queue else {
            shared.give_back(bytes);
            return Err(ClientError::UnknownPartition {
                topic: record.topic,
                partition: record.partition.unwrap_or(-1),
                partitions: topic.queues.len(),
            });
        };
        let parts = Parts {
            timestamp_ms: record.timestamp_ms.unwrap_or_else(rt::wall_ms),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
            reserved: bytes,
        };
        let Some(pushed) = queue.push(&parts, shared.batches) else {
            shared.give_back(bytes);
            return Err(ClientError::Closed("producer"));
        };
        if pushed.filled && record.partition.is_none() && record.key.is_none() {
            topic.leave(queue.partition);
        }
        if pushed.news {
            shared.announce(queue);
        }
        Ok(pushed.delivery)
    }

    async fn reserve(&self, bytes: usize) -> Result<(), ClientError> {
        let shared = &self.inner.shared;
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Ok(permit) = shared.budget.try_acquire_many(permits) {
            permit.forget();
            return Ok(());
        }
        let after = shared.rules.delivery_timeout;
        match timeout(after, shared.budget.acquire_many(permits)).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(())
            }
            Ok(Err(_closed)) => Err(ClientError::Closed("producer")),
            Err(_elapsed) => Err(ClientError::Timeout {
                what: "room in the producer's buffer",
                after,
                maybe_applied: false,
                last: None,
            }),
        }
    }

    async fn topic(&self, name: &str) -> Result<Arc<TopicQueues>, ClientError> {
        let partitions = self.inner.client.partitions(name).await?;
        let shared = &self.inner.shared;
        let mut topics = shared.topics.write();
        if self.inner.commands.is_closed() {
            return Err(ClientError::Closed("producer"));
        }
        let new = || Arc::new(TopicQueues::new(name, partitions, &shared.next_id));
        Ok(Arc::clone(
            topics.entry(name.to_owned()).or_insert_with(new),
        ))
    }

    /// The queues of a topic that has got more partitions since this producer first wrote to it.
    async fn topic_with(
        &self,
        name: &str,
        partition: i32,
    ) -> Result<Arc<TopicQueues>, ClientError> {
        let client = &self.inner.client;
        let partitions = client.partitions_with(name, partition).await?;
        let shared = &self.inner.shared;
        let mut topics = shared.topics.write();
        // Without the topic the producer was closed.
        let topic = topics
            .get_mut(name)
            .ok_or(ClientError::Closed("producer"))?;
        if topic.choose(Some(partition), None).is_none() {
            *topic = Arc::new(topic.grown(name, partitions, &shared.next_id));
        }
        Ok(Arc::clone(topic))
    }

    /// Appends records in one batch, only if the partition's end offset is exactly `expected_end`.
    /// Independent of the records of [`send`](Self::send). Returns the place of the first record.
    ///
    /// # Errors
    /// If the end is another one, an error with code `WRONG_END_OFFSET`, whose
    /// [`actual_end_offset`](ClientError::actual_end_offset) tells it. Others as with `send`.
    pub async fn append_if(
        &self,
        topic: &str,
        partition: i32,
        expected_end: Offset,
        records: Vec<ProducerRecord>,
    ) -> Result<Delivered, ClientError> {
        self.inner
            .conditional
            .append(topic, partition, expected_end, records)
            .await
    }

    /// Sends everything now, without linger, and waits until each record that was sent before is
    /// acknowledged or has failed.
    ///
    /// # Errors
    /// The first failure, if a record failed.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let (reply, outstanding) = oneshot::channel();
        let sent = self.inner.commands.send(Command::Flush(reply)).await;
        sent.map_err(|_gone| ClientError::Closed("producer"))?;
        let outstanding = outstanding
            .await
            .map_err(|_gone| ClientError::Closed("producer"))?;
        let mut failed = Ok(());
        for completion in outstanding {
            let delivered = Delivery::new(completion, 0).await;
            failed = failed.and(delivered.map(|_| ()));
        }
        failed
    }

    /// [Flushes](Self::flush) and ends this producer and its clones.
    ///
    /// # Errors
    /// As `flush`.
    pub async fn close(self) -> Result<(), ClientError> {
        let flushed = self.flush().await;
        self.inner.shared.close();
        flushed
    }
}

/// Gets a new producer session from any node.
async fn init_session(client: &Client) -> Result<Session, ClientError> {
    // A session that nobody uses costs nothing, so this may be repeated.
    let limit = Duration::from_secs(30);
    let answer = client.any_node(
        "start a producer session",
        (limit, false),
        |address| async move {
            let mut log = client.metadata().channels.log(&address)?;
            let answer = log.init_producer(v1::InitProducerRequest {}).await;
            answer.map_err(|status| ClientError::from_status(&address, status))
        },
    );
    let answer = answer.await?.into_inner();
    let epoch = i16::try_from(answer.producer_epoch).unwrap_or(0);
    Ok(Session {
        id: ProducerId(answer.producer_id),
        epoch,
    })
}
