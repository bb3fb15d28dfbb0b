//! Prints every record of a topic from its start to its present end:
//! `SERIATIM_SERVERS=127.0.0.1:7401 cargo run -p seriatim-client --example consume -- flights`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;

use futures::StreamExt as _;
use seriatim_client::{Client, ClientError, Position, TopicPartition};

#[tokio::main]
async fn main() -> Result<(), ClientError> {
    let servers = std::env::var("SERIATIM_SERVERS").unwrap_or_else(|_| "127.0.0.1:7401".to_owned());
    let topic = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "example".to_owned());
    let client = Client::connect(&servers).await?;
    let mut builder = client.consumer();
    let mut wanted = Vec::new();
    for partition in 0..client.partitions(&topic).await? {
        builder = builder.assign(&topic, partition, Position::Start);
        wanted.push((TopicPartition::new(&topic, partition), Position::End));
    }
    let ends = client.admin().list_offsets(&wanted).await?;
    let mut consumer = builder.build().await?;
    let mut left: BTreeMap<_, _> = wanted
        .into_iter()
        .zip(ends)
        .map(|((tp, _), end)| (tp.partition.0, end))
        .collect();
    left.retain(|&partition, end| consumer.position(&topic, partition) < Some(*end));
    while !left.is_empty() {
        let Some(batch) = consumer.next().await.transpose()? else {
            break;
        };
        for record in batch.records()? {
            let record = record?;
            let value =
                String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
            println!("{}-{}: {value}", batch.partition(), record.offset);
        }
        if left
            .get(&batch.partition())
            .is_some_and(|end| batch.next_offset() >= *end)
        {
            let _done = left.remove(&batch.partition());
        }
    }
    Ok(())
}
