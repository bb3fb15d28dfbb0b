//! A steady stream of records while a cluster changes: what each cost, and whether all are there.
//!
//! The load is open: a record is due at its time whatever became of the ones before, and its latency
//! counts from then, so that a pause shows in every record that had to wait for it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use seriatim_client::{
    Client, Compression, Consumer, Delivery, NewTopic, Offset, Position, ProducerRecord,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

/// Records of a partition that wait for their acknowledgement; more hold the stream up, which shows
/// as latency.
const WAITING: usize = 100_000;
/// How often records are sent.
const TICK: Duration = Duration::from_millis(2);
/// Longest that reading all of it back may take without a record.
const SILENCE: Duration = Duration::from_secs(30);

/// The time over which [`Figures::slots`] have one latency.
pub const SLOT: Duration = Duration::from_millis(100);

/// What to write.
#[derive(Debug, Clone)]
pub struct Load {
    /// The topic, which the stream creates.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// Its replicas.
    pub replicas: u32,
    /// Records a second, over all partitions.
    pub rate: u32,
    /// Size of a record.
    pub bytes: usize,
}

/// What the acknowledgements say.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Latency of the slowest record, from when it was due.
    pub latency_max: Duration,
    /// Latency that one record in a hundred exceeds.
    pub latency_p99: Duration,
    /// Latency that half of the records exceed.
    pub latency_p50: Duration,
    /// Longest time between two acknowledgements of one partition.
    pub gap_max: Duration,
    /// Records that failed, and why the first did.
    pub failed: (u64, Option<String>),
    /// The largest latency of the records that were due in each [`SLOT`], by partition.
    pub slots: Vec<Vec<Duration>>,
}

/// Latencies by millisecond, up to a minute, so that memory does not grow with the load.
#[derive(Debug)]
struct Latencies(Vec<u64>);

/// What one collector has seen. `acks` are offset and number of each record.
#[derive(Debug, Default)]
struct Seen {
    acks: Vec<(i64, u64)>,
    latency_max: Duration,
    gap_max: Duration,
    failed: (u64, Option<String>),
    slots: Vec<Duration>,
}

type Sent = (Instant, u64, Delivery);

/// A stream under way.
#[derive(Debug)]
pub struct Flow {
    load: Load,
    began: Instant,
    stop: watch::Sender<bool>,
    sending: JoinHandle<anyhow::Result<u64>>,
    collecting: Vec<JoinHandle<Seen>>,
    latencies: Arc<Mutex<Latencies>>,
}

impl Flow {
    /// Creates the topic and begins to write.
    ///
    /// # Errors
    /// If the topic cannot be created.
    pub async fn start(client: &Client, load: Load) -> anyhow::Result<Self> {
        let topic = NewTopic {
            name: load.topic.clone(),
            partitions: load.partitions,
            replication_factor: load.replicas,
            ..NewTopic::default()
        };
        let _created = client.admin().create_topic(topic).await?;
        let producer = client
            .producer()
            .compression(Compression::None)
            .build()
            .await?;
        let latencies = Arc::new(Mutex::new(Latencies(vec![0; 60_001])));
        let mut senders = Vec::new();
        let mut collecting = Vec::new();
        for _ in 0..load.partitions {
            let (sender, sent) = mpsc::channel(WAITING);
            senders.push(sender);
            collecting.push((sent, Arc::clone(&latencies)));
        }
        let (stop, stopped) = watch::channel(false);
        let began = Instant::now();
        let sending = spawn(send(producer, load.clone(), senders, (began, stopped)));
        let collecting = collecting.into_iter();
        let collecting = collecting.map(|(sent, all)| spawn(collect(sent, began, all)));
        let collecting = collecting.collect();
        Ok(Self {
            load,
            began,
            stop,
            sending,
            collecting,
            latencies,
        })
    }

    /// How long the stream has run.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends the stream, waits for the last acknowledgement, reads everything back, and fails where a
    /// record that was acknowledged is not at its offset, is there twice or is out of order.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn finish(self, client: &Client) -> anyhow::Result<Figures> {
        let _was = self.stop.send_replace(true);
        let sent = self.sending.await.context("the sender")??;
        let mut figures = Figures::default();
        let mut acks = BTreeMap::new();
        for (partition, collected) in (0..).zip(self.collecting) {
            let seen = collected.await.context("a collector")?;
            figures.acknowledged += u64::try_from(seen.acks.len())?;
            figures.latency_max = figures.latency_max.max(seen.latency_max);
            figures.gap_max = figures.gap_max.max(seen.gap_max);
            figures.failed.0 += seen.failed.0;
            figures.failed.1 = figures.failed.1.or(seen.failed.1);
            figures.slots.push(seen.slots);
            let _none = acks.insert(partition, seen.acks);
        }
        let failed = &figures.failed;
        ensure!(
            failed.0 == 0,
            "{} records failed, the first: {:?}",
            failed.0,
            failed.1
        );
        ensure!(figures.acknowledged == sent, "of {sent} sent: {figures:?}");
        figures.latency_p50 = self.latencies.lock().share(0.5);
        figures.latency_p99 = self.latencies.lock().share(0.99);
        for (partition, acks) in acks {
            check(client, &self.load.topic, partition, &acks)
                .await
                .with_context(|| format!("partition {partition}"))?;
        }
        Ok(figures)
    }
}

impl Seen {
    fn note(&mut self, due: Duration, latency: Duration) {
        let slot = usize::try_from(due.as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX);
        // A day of them is a megabyte; no run lasts as long.
        if slot >= self.slots.len() && slot < 1_000_000 {
            self.slots.resize(slot + 1, Duration::ZERO);
        }
        if let Some(largest) = self.slots.get_mut(slot) {
            *largest = latency.max(*largest);
        }
    }
}

impl Latencies {
    fn add(&mut self, latency: Duration) {
        let ms = usize::try_from(latency.as_millis()).unwrap_or(usize::MAX);
        let last = self.0.len() - 1;
        if let Some(count) = self.0.get_mut(ms.min(last)) {
            *count += 1;
        }
    }

    /// The latency below which this share of all records is.
    fn share(&self, share: f64) -> Duration {
        let total: u64 = self.0.iter().sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count"
        )]
        let wanted = (total as f64 * share) as u64;
        let mut below = 0;
        for (ms, count) in (0..).zip(&self.0) {
            below += count;
            if below >= wanted {
                return Duration::from_millis(ms);
            }
        }
        Duration::ZERO
    }
}

/// Sends what is due; returns how many records that were.
async fn send(
    producer: seriatim_client::Producer,
    load: Load,
    senders: Vec<mpsc::Sender<Sent>>,
    (began, stopped): (Instant, watch::Receiver<bool>),
) -> anyhow::Result<u64> {
    let between = Duration::from_secs(1) / load.rate;
    let mut number: u64 = 0;
    while !*stopped.borrow() {
        let due = began + between * u32::try_from(number)?;
        if due > Instant::now() {
            sleep_until((Instant::now() + TICK).max(due)).await;
        }
        let at = usize::try_from(number % u64::try_from(senders.len())?)?;
        let record = ProducerRecord::new(load.topic.as_str(), value(number, load.bytes))
            .partition(i32::try_from(at)?);
        let delivery = producer.send(record).await?;
        let sender = senders.get(at).context("a partition")?;
        sender.send((due, number, delivery)).await?;
        number += 1;
    }
    producer.close().await?;
    Ok(number)
}

fn value(number: u64, bytes: usize) -> Bytes {
    let mut value = BytesMut::with_capacity(bytes.max(8));
    value.put_u64(number);
    value.resize(bytes.max(8), b'f');
    value.freeze()
}

/// Waits for the acknowledgements of one partition.
async fn collect(
    mut sent: mpsc::Receiver<Sent>,
    began: Instant,
    latencies: Arc<Mutex<Latencies>>,
) -> Seen {
    let mut seen = Seen::default();
    let mut last: Option<Instant> = None;
    while let Some((due, number, delivery)) = sent.recv().await {
        match delivery.await {
            Ok(stored) => {
                let now = Instant::now();
                let latency = now.saturating_duration_since(due);
                latencies.lock().add(latency);
                seen.note(due - began, latency);
                seen.latency_max = seen.latency_max.max(latency);
                let gap = last.map_or(Duration::ZERO, |last| now - last);
                seen.gap_max = seen.gap_max.max(gap);
                last = Some(now);
                seen.acks.push((stored.offset.0, number));
            }
            Err(error) => {
                seen.failed.0 += 1;
                let _first = seen.failed.1.get_or_insert_with(|| error.to_string());
            }
        }
    }
    seen
}

/// Reads a partition: every record once, in the order in which they were sent, each acknowledged one
/// at its offset.
async fn check(
    client: &Client,
    topic: &str,
    partition: i32,
    acks: &[(i64, u64)],
) -> anyhow::Result<()> {
    let builder = client.consumer().assign(topic, partition, Position::Start);
    let mut consumer: Consumer = builder.build().await?;
    let end = acks.iter().map(|(offset, _)| offset + 1).max().unwrap_or(0);
    let mut expected = acks.iter();
    let mut next = 0;
    let mut last = None;
    while next < end {
        let batch = timeout(SILENCE, consumer.next_batch()).await;
        let batch = batch.with_context(|| format!("nothing at offset {next}"))?;
        let batch = batch.context("the consumer has ended")??;
        for record in batch.records()? {
            let record = record?;
            ensure!(record.offset == Offset(next), "{} at {next}", record.offset);
            let number = number_of(record.value.as_deref())?;
            ensure!(last < Some(number), "{number} after {last:?} at {next}");
            let acknowledged = expected.next();
            ensure!(
                acknowledged == Some(&(next, number)),
                "{acknowledged:?} is {number} at {next}"
            );
            last = Some(number);
            next += 1;
        }
    }
    Ok(())
}

fn number_of(value: Option<&[u8]>) -> anyhow::Result<u64> {
    let head = value.and_then(|value| value.first_chunk::<8>());
    Ok(u64::from_be_bytes(
        *head.context("a record without a number")?,
    ))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this harness runs outside the simulator; every task is joined by its owner"
)]
pub(crate) fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(future)
}
