//! The loop that sends records, each at its time.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use indicatif::ProgressBar;
use parking_lot::Mutex;
use seriatim_client::{Client, Compression, Producer, ProducerRecord};
use seriatim_runtime::{
    clock::{self, Instant},
    task,
};
use tokio::runtime::Handle;

use crate::{
    acks::Acks, latency::Latency, plan::Load, schedule::Schedule, tally::Tally, values::Values,
    window::Window,
};

/// Shortest sleep: at high rates several records are sent at each waking, so that the generator
/// does not use up the processor it shares. They are late by at most this, and counted so.
const TICK: Duration = Duration::from_micros(100);
/// Stamps are cut from pieces of memory of this size.
const STAMPS_BYTES: usize = 64 << 10;
const STAMP_BYTES: usize = 8;

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    pub(crate) topic: String,
    pub(crate) window: Window,
    /// Stop after so many records over all clients, rather than at the window's end.
    pub(crate) records: Option<u64>,
    /// Ignored where a number of records is given.
    pub(crate) rate: Option<NonZeroU64>,
    /// Whether the key of a record tells its intended time.
    pub(crate) stamped: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    pub(crate) tally: Tally,
    /// How long the records had waited at the end that were due in the window and found no room.
    /// They would have taken longer than that.
    pub(crate) unsent: Latency,
}

/// Sends with every client and waits until every record has ended.
pub(crate) async fn send_all(
    load: &Load,
    clients: &[Client],
    orders: &Orders,
    bar: &ProgressBar,
) -> anyhow::Result<Sending> {
    let count = u64::try_from(clients.len())?;
    let values = match load.compression {
        Compression::None => Values::random(load.record_size),
        _ => Values::text(load.record_size),
    };
    let mut senders = Vec::new();
    for (number, client) in (0..).zip(clients) {
        let producer = client.producer().linger(load.linger);
        let producer = producer
            .batch_bytes(load.batch_bytes)
            .buffer_bytes(load.buffer_bytes)
            .compression(load.compression);
        let schedule = |rate| Schedule::new(orders.window.begin, rate, (number, count));
        let share = |records: u64| records / count + u64::from(number < records % count);
        let partitions = 0..usize::try_from(load.partitions)?;
        senders.push(Sender {
            producer: producer.build().await?,
            topic: orders.topic.clone(),
            values: values.clone(),
            window: orders.window,
            left: orders.records.map_or(u64::MAX, share),
            schedule: orders.rate.map(schedule),
            stamps: orders.stamped.then(BytesMut::new),
            acks: partitions.map(|_| Arc::default()).collect(),
            partition: 0,
            sending: Sending::default(),
        });
    }
    let counted = (orders.window, u64::try_from(load.record_size)?);
    let running: Vec<_> = senders
        .into_iter()
        .map(|sender| task::spawn("client", sender.send_and_count(counted, bar.clone())))
        .collect();
    let mut all = Sending::default();
    for client in running {
        let sending = client.await??;
        all.tally.merge(&sending.tally);
        all.unsent.merge(&sending.unsent);
    }
    Ok(all)
}

/// One client's producer.
struct Sender {
    producer: Producer,
    topic: String,
    values: Values,
    window: Window,
    /// Records that may still be sent.
    left: u64,
    schedule: Option<Schedule>,
    stamps: Option<BytesMut>,
    /// By partition.
    acks: Vec<Arc<Acks>>,
    /// Invariant: below the number of `acks`.
    partition: usize,
    sending: Sending,
}

impl Sender {
    async fn send_and_count(
        self,
        counted: (Window, u64),
        bar: ProgressBar,
    ) -> anyhow::Result<Sending> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut counting = Vec::new();
        for acks in &self.acks {
            let (acks, tally, bar) = (Arc::clone(acks), Arc::clone(&tally), bar.clone());
            counting.push(task::spawn("acknowledgements", async move {
                acks.count(&tally, counted, &bar).await;
            }));
        }
        // A thread of its own, because the executor's timer is too coarse for a latency.
        let executor = Handle::current();
        let send = move || executor.block_on(self.run());
        let mut sending = task::blocking("send", send).await;
        for acks in counting {
            acks.await?;
        }
        sending.tally.merge(&tally.lock());
        Ok(sending)
    }

    /// Blocks the thread while nothing is due.
    async fn run(mut self) -> Sending {
        precise_sleep();
        while self.left > 0
            && let Some(intended) = self.wait()
        {
            self.left -= 1;
            self.send(intended).await;
        }
        for acks in &self.acks {
            acks.close();
        }
        if let Some(schedule) = self.schedule {
            let at = clock::now();
            let rest = schedule.rest(self.window.until);
            for intended in rest.filter(|&intended| self.window.contains(intended)) {
                self.sending
                    .unsent
                    .record(at.saturating_duration_since(intended));
            }
        }
        // Lets the acknowledgements arrive; failures are counted where they are taken.
        let _flushed = self.producer.close().await.is_ok();
        self.sending
    }

    /// Waits for the next record's time; `None` at the window's end.
    fn wait(&mut self) -> Option<Instant> {
        let mut now = clock::now();
        let intended = match &mut self.schedule {
            None => now,
            Some(schedule) => {
                let due = schedule.due();
                if due >= self.window.until {
                    return None;
                }
                while now < due {
                    sleep((due - now).max(TICK));
                    now = clock::now();
                }
                due
            }
        };
        if now >= self.window.until {
            return None;
        }
        if let Some(schedule) = &mut self.schedule {
            schedule.advance();
        }
        Some(intended)
    }

    async fn send(&mut self, intended: Instant) {
        let partition = self.partition;
        self.partition = (partition + 1) % self.acks.len();
        let record = ProducerRecord {
            topic: self.topic.clone(),
            partition: i32::try_from(partition).ok(),
            key: self.stamp(intended),
            value: Some(self.values.next()),
            ..ProducerRecord::default()
        };
        match (self.producer.send(record).await, self.acks.get(partition)) {
            (Ok(delivery), Some(acks)) => acks.push(intended, delivery),
            (Ok(_), None) => unreachable!("there is a queue for each partition"),
            (Err(error), _) => self.sending.tally.failures.add(1, &error),
        }
    }

    fn stamp(&mut self, intended: Instant) -> Option<Bytes> {
        let stamps = self.stamps.as_mut()?;
        if stamps.capacity() < STAMP_BYTES {
            *stamps = BytesMut::with_capacity(STAMPS_BYTES);
        }
        let since = intended.saturating_duration_since(self.window.begin);
        stamps.put_u64(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        Some(stamps.split().freeze())
    }
}

/// The intended time that a key tells, of a load that began at `begin`.
pub(crate) fn stamped_at(begin: Instant, key: Option<&[u8]>) -> Option<Instant> {
    let nanos = u64::from_be_bytes(key?.try_into().ok()?);
    begin.checked_add(Duration::from_nanos(nanos))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the thread is the sender's own, and the executor's timer counts milliseconds"
)]
fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

/// Asks the kernel to wake this thread on time, rather than up to 50 us later.
fn precise_sleep() {
    // Where it cannot be set, latencies are a little longer, and that is all.
    let _set = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).is_ok();
}
