//! How long writes stop when a leader does.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use seriatim_client::{NewTopic, Producer, ProducerRecord};
use tokio::time::{Instant, timeout};

use crate::cluster::Cluster;

/// The topic that is written to.
const TOPIC: &str = "failover";
/// Longest that one round may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What stops the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGKILL: its connections break.
    Kill,
    /// SIGSTOP: its connections stay, and say nothing.
    Freeze,
}

/// Stops the leader of a partition `rounds` times, brings it back each time, and measures what a
/// producer with default settings sees: the time from the signal to the acknowledgement of a record
/// sent right after it.
///
/// # Errors
/// If a record is not acknowledged.
pub async fn measure(
    cluster: &mut Cluster,
    stop: Stop,
    rounds: u32,
) -> anyhow::Result<Vec<Duration>> {
    let client = cluster.client().await?;
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: 1,
        replication_factor: 3,
        ..NewTopic::default()
    };
    let _created = client.admin().create_topic(topic).await?;
    let producer = client.producer().build().await?;
    let mut times = Vec::new();
    for round in 0..rounds {
        // Everybody is back and has caught up, and the producer knows the leader.
        cluster.settle().await?;
        write(&producer, "before").await?;
        let victim = cluster.leader(TOPIC, 0).await?;
        let began = Instant::now();
        let signal = match stop {
            Stop::Kill => Signal::KILL,
            Stop::Freeze => Signal::STOP,
        };
        cluster.node(victim)?.signal(signal)?;
        write(&producer, "after")
            .await
            .with_context(|| format!("round {round}: node {victim} was stopped"))?;
        times.push(began.elapsed());
        ensure!(
            cluster.leader(TOPIC, 0).await? != victim,
            "node {victim} leads although it was stopped"
        );
        let node = cluster.node_mut(victim)?;
        match stop {
            Stop::Kill => {
                let _status = node.wait().await?;
                node.start()?;
            }
            Stop::Freeze => node.signal(Signal::CONT)?,
        }
        node.ready().await?;
    }
    producer.close().await?;
    Ok(times)
}

/// The middle of the times.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

async fn write(producer: &Producer, value: &'static str) -> anyhow::Result<()> {
    let record = ProducerRecord::new(TOPIC, value).partition(0);
    let delivery = producer.send(record).await?;
    let _stored = timeout(LIMIT, delivery)
        .await
        .context("no acknowledgement")??;
    Ok(())
}
