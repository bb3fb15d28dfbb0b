//! Writing to every partition of a topic.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::try_join_all;
use seriatim_client::{Client, Compression, NewTopic, Producer, ProducerRecord};
use seriatim_tests::cluster::Cluster;
use tokio::time::{Instant, timeout};

/// Longest that the cluster may take to accept a write.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) async fn create(client: &Client, name: &str, partitions: i32) -> anyhow::Result<()> {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor: 3,
        ..NewTopic::default()
    };
    let _created = client.admin().create_topic(topic).await?;
    Ok(())
}

/// Kills all nodes and starts them again; seconds from then until every partition took a write.
pub(crate) async fn after_kill(
    cluster: &mut Cluster,
    client: &Client,
    (topic, partitions): (&str, i32),
) -> anyhow::Result<f64> {
    let producer = client.producer().build().await?;
    to_all(&producer, topic, partitions).await?;
    cluster.kill_all().await?;
    let began = Instant::now();
    cluster.start_all()?;
    to_all(&producer, topic, partitions).await?;
    Ok(began.elapsed().as_secs_f64())
}

/// Returns when a record is acknowledged on every partition.
pub(crate) async fn to_all(producer: &Producer, topic: &str, count: i32) -> anyhow::Result<()> {
    let write = async {
        let mut deliveries = Vec::new();
        for partition in 0..count {
            let record = ProducerRecord::new(topic, "x").partition(partition);
            deliveries.push(producer.send(record).await?);
        }
        let _stored = try_join_all(deliveries).await?;
        anyhow::Ok(())
    };
    timeout(LIMIT, write)
        .await
        .context("some partition accepts no write")?
}

/// Writes so many bytes, evenly over the partitions of a topic.
pub(crate) async fn fill(
    client: &Client,
    (topic, partitions): (&str, i32),
    bytes: u64,
) -> anyhow::Result<()> {
    const RECORD: usize = 256 << 10;
    let producer = client
        .producer()
        .compression(Compression::None)
        .build()
        .await?;
    let value = Bytes::from(vec![b'f'; RECORD]);
    let records = bytes / u64::try_from(RECORD)?;
    // Back-pressure holds the sending; what fails shows at the end.
    let mut last = None;
    for number in 0..records {
        let partition = i32::try_from(number % u64::try_from(partitions)?)?;
        let record = ProducerRecord::new(topic, value.clone()).partition(partition);
        last = Some(producer.send(record).await?);
    }
    producer.flush().await?;
    if let Some(last) = last {
        let _stored = last.await?;
    }
    producer.close().await?;
    Ok(())
}
