//! What a client sees while a cluster changes: who leads, and what there is to read.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use seriatim_client::{Client, Offset, Position};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::flow::spawn;

/// Longest that a reader may be without a record although there are more.
const SILENCE: Duration = Duration::from_secs(30);

/// Watches who leads the partitions of a topic, as any client can ask.
#[derive(Debug)]
pub struct LeaderWatch {
    stop: watch::Sender<bool>,
    watching: JoinHandle<Duration>,
}

impl LeaderWatch {
    /// Begins to ask, 20 times a second.
    pub fn start(client: Client, topic: &str) -> Self {
        let (stop, stopped) = watch::channel(false);
        let topic = topic.to_owned();
        let watching = spawn(async move {
            let admin = client.admin();
            let mut since: BTreeMap<i32, Instant> = BTreeMap::new();
            let mut longest = Duration::ZERO;
            while !*stopped.borrow() {
                // A node that does not answer says nothing about leaders.
                if let Ok(described) = admin.describe(&topic).await {
                    let now = Instant::now();
                    for partition in described.partitions {
                        if partition.leader.is_some() {
                            let _led = since.remove(&partition.partition);
                        } else {
                            let began = *since.entry(partition.partition).or_insert(now);
                            longest = longest.max(now - began);
                        }
                    }
                }
                sleep(Duration::from_millis(50)).await;
            }
            longest
        });
        Self { stop, watching }
    }

    /// Ends; the longest time that a partition was without a leader.
    ///
    /// # Errors
    /// If the watch itself failed.
    pub async fn finish(self) -> anyhow::Result<Duration> {
        let _was = self.stop.send_replace(true);
        self.watching.await.context("the watch")
    }
}

/// Reads every partition of a topic from its start, as long as there is something to read.
#[derive(Debug)]
pub struct Follower {
    reading: JoinHandle<anyhow::Result<u64>>,
    last: watch::Sender<Option<u64>>,
}

impl Follower {
    /// Begins to read.
    ///
    /// # Errors
    /// If the topic cannot be read.
    pub async fn start(client: &Client, topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let all = (0..partitions).fold(client.consumer(), |consumer, partition| {
            consumer.assign(topic, partition, Position::Start)
        });
        let mut consumer = all.build().await?;
        let (last, mut known) = watch::channel(None);
        let reading = spawn(async move {
            let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
            let mut read = 0;
            loop {
                if known.borrow().is_some_and(|total| read >= total) {
                    return Ok(read);
                }
                let batch = tokio::select! {
                    batch = timeout(SILENCE, consumer.next_batch()) => batch,
                    _told = known.changed() => continue,
                };
                let batch = batch.context("nothing comes")?.context("the end of it")??;
                let end = ends.entry(batch.partition()).or_default();
                for record in batch.records()? {
                    let record = record?;
                    ensure!(record.offset == Offset(*end), "{} at {end}", record.offset);
                    *end += 1;
                    read += 1;
                }
            }
        });
        Ok(Self { reading, last })
    }

    /// Waits until so many records are read; fails where one was missing, there twice, or could not
    /// be read.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn finish(self, total: u64) -> anyhow::Result<()> {
        let _was = self.last.send_replace(Some(total));
        let read = self.reading.await.context("the reader")??;
        ensure!(read == total, "{read} of {total} records were read");
        Ok(())
    }
}
