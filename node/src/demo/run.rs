//! Producing and consuming at once, with a leader killed half way.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use seriatim_client::{Admin, Client, Delivered, Position, ProducerRecord};
use seriatim_runtime::{
    clock::{self, Instant},
    task,
};
use tokio::sync::{mpsc, watch};

use super::{PARTITIONS, PATIENCE, TOPIC, events::Event, nodes::Nodes};
use crate::cli::common::tell;

/// Where records of an acknowledgement go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acknowledged {
    pub(super) line: usize,
    pub(super) partition: i32,
    pub(super) offset: i64,
    sent: Instant,
    at: Instant,
}

/// A record as it was read.
#[derive(Debug, Clone)]
pub(super) struct Consumed {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) value: Bytes,
}

/// What happened.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) acknowledged: Vec<Acknowledged>,
    pub(super) failed: Vec<String>,
    pub(super) consumed: Vec<Consumed>,
    pub(super) produce_time: Duration,
    pub(super) failover: Option<Duration>,
    pub(super) killed: u64,
}

/// The demo's load.
pub(super) struct Run {
    client: Client,
    pub(super) events: Arc<Vec<Event>>,
    rate: u32,
}

impl Run {
    pub(super) fn new(client: Client, events: Vec<Event>, rate: u32) -> Self {
        Self {
            client,
            events: Arc::new(events),
            rate,
        }
    }

    pub(super) async fn go(&mut self, admin: &Admin, nodes: &mut Nodes) -> anyhow::Result<Outcome> {
        let bars = MultiProgress::new();
        let style = ProgressStyle::with_template("{msg:10} {bar:40} {pos}/{len} {per_sec}")?;
        let bar = |name: &'static str| {
            let length = u64::try_from(self.events.len()).unwrap_or_default();
            bars.add(
                ProgressBar::new(length)
                    .with_style(style.clone())
                    .with_message(name),
            )
        };
        let (produced_bar, consumed_bar) = (bar("produced"), bar("consumed"));
        let (goal_sender, goal) = watch::channel(None);
        let consuming = task::spawn(
            "demo-consume",
            consume(self.client.clone(), goal, consumed_bar),
        );
        let began = clock::now();
        let (acknowledged, failed, killed) =
            self.produce(admin, nodes, (&bars, &produced_bar)).await?;
        let produce_time = began.elapsed();
        let _before = goal_sender.send_replace(Some(acknowledged.len()));
        let consumed = clock::timeout(PATIENCE, consuming)
            .await
            .context("not everything that was acknowledged could be read")???;
        let failover = acknowledged
            .iter()
            .filter(|ack| ack.partition == 0 && ack.sent > killed.at)
            .map(|ack| ack.at - killed.at)
            .min();
        Ok(Outcome {
            acknowledged,
            failed,
            consumed,
            produce_time,
            failover,
            killed: killed.node,
        })
    }

    async fn produce(
        &self,
        admin: &Admin,
        nodes: &mut Nodes,
        (bars, bar): (&MultiProgress, &ProgressBar),
    ) -> anyhow::Result<(Vec<Acknowledged>, Vec<String>, Killed)> {
        let producer = self.client.producer().build().await?;
        let (waiting, deliveries) = mpsc::channel(100_000);
        let collecting = task::spawn("demo-acknowledged", collect(deliveries, bar.clone()));
        let half = self.events.len() / 2;
        let began = clock::now();
        let mut killed = None;
        let mut restarted = false;
        for (line, event) in self.events.iter().enumerate() {
            let due =
                Duration::from_secs_f64(f64::from(u32::try_from(line)?) / f64::from(self.rate));
            clock::sleep_until(began + due).await;
            if line == half {
                let now = kill_leader(admin, nodes).await?;
                note(
                    bars,
                    &format!("killed node {}, which led partition 0", now.node),
                );
                killed = Some(now);
            }
            if let Some(Killed { node, at }) = killed
                && !restarted
                && at.elapsed() >= Duration::from_secs(2)
            {
                nodes.restart(node)?;
                note(bars, &format!("started node {node} again"));
                restarted = true;
            }
            let mut record = ProducerRecord::new(TOPIC, event.value.clone());
            record.key.clone_from(&event.key);
            let sent = clock::now();
            let delivery = producer.send(record).await?;
            waiting.send((line, sent, delivery)).await?;
        }
        drop(waiting);
        let killed = killed.context("no leader was killed")?;
        if !restarted {
            nodes.restart(killed.node)?;
        }
        let (acknowledged, failed) = collecting.await?;
        producer.close().await?;
        bar.finish();
        Ok((acknowledged, failed, killed))
    }
}

/// A line above the bars.
fn note(bars: &MultiProgress, line: &str) {
    bars.suspend(|| tell(line));
}

#[derive(Debug, Clone, Copy)]
struct Killed {
    node: u64,
    at: Instant,
}

/// Kills the leader of partition 0.
async fn kill_leader(admin: &Admin, nodes: &mut Nodes) -> anyhow::Result<Killed> {
    let described = admin.describe(TOPIC).await?;
    let first = described
        .partitions
        .first()
        .context("the topic has no partitions")?;
    let node = first.leader.context("partition 0 has no leader")?;
    let at = clock::now();
    nodes.kill(node).await?;
    Ok(Killed { node, at })
}

type Sent = (usize, Instant, seriatim_client::Delivery);

async fn collect(
    mut sent: mpsc::Receiver<Sent>,
    bar: ProgressBar,
) -> (Vec<Acknowledged>, Vec<String>) {
    let mut acknowledged = Vec::new();
    let mut failed = Vec::new();
    // All at once, so that a partition without a leader hides no other's
    // acknowledgement time.
    let mut under_way = futures::stream::FuturesUnordered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            Some((line, sent, result)) = futures::StreamExt::next(&mut under_way), if !under_way.is_empty() => {
                let result: Result<Delivered, _> = result;
                match result {
                    Ok(delivered) => acknowledged.push(Acknowledged {
                        line,
                        partition: delivered.partition,
                        offset: delivered.offset.0,
                        sent,
                        at: clock::now(),
                    }),
                    Err(error) => failed.push(format!("event {line}: {error}")),
                }
                bar.inc(1);
            }
            next = sent.recv(), if open => match next {
                Some((line, sent, delivery)) => {
                    under_way.push(async move { (line, sent, delivery.await) });
                }
                None => open = false,
            }
        }
    }
    (acknowledged, failed)
}

/// Reads every partition until as many records were read as were acknowledged.
async fn consume(
    client: Client,
    mut goal: watch::Receiver<Option<usize>>,
    bar: ProgressBar,
) -> anyhow::Result<Vec<Consumed>> {
    let mut builder = client.consumer();
    for partition in 0..PARTITIONS {
        builder = builder.assign(TOPIC, partition, Position::Start);
    }
    let mut consumer = builder.build().await?;
    let mut consumed = Vec::new();
    loop {
        if goal.borrow().is_some_and(|goal| consumed.len() >= goal) {
            bar.finish();
            return Ok(consumed);
        }
        tokio::select! {
            batch = consumer.next_batch() => {
                let batch = batch.context("the consumer ended")??;
                let partition = batch.partition();
                for record in batch.records()? {
                    let record = record?;
                    consumed.push(Consumed {
                        partition,
                        offset: record.offset.0,
                        value: record.value.unwrap_or_default(),
                    });
                    bar.inc(1);
                }
            }
            changed = goal.changed() => changed?,
        }
    }
}

/// Lines by place, for the verdict.
pub(super) fn by_place(acknowledged: &[Acknowledged]) -> HashMap<(i32, i64), usize> {
    acknowledged
        .iter()
        .map(|ack| ((ack.partition, ack.offset), ack.line))
        .collect()
}
