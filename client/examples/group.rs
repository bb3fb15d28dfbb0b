//! Reads a topic as a member of a group until Ctrl-C; start it several times to see them share:
//! `SERIATIM_SERVERS=127.0.0.1:7401 cargo run -p seriatim-client --example group -- flights billing`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::pin::pin;

use futures::StreamExt as _;
use seriatim_client::{Client, ClientError, Consumer, Rebalance, TopicPartition};

#[tokio::main]
async fn main() -> Result<(), ClientError> {
    let servers = std::env::var("SERIATIM_SERVERS").unwrap_or_else(|_| "127.0.0.1:7401".to_owned());
    let mut args = std::env::args().skip(1);
    let topic = args.next().unwrap_or_else(|| "example".to_owned());
    let group = args.next().unwrap_or_else(|| "example".to_owned());
    let client = Client::connect(&servers).await?;
    let mut consumer = Consumer::group(&client, group)
        .topics([topic])
        .on_rebalance(|change, _handle| {
            print_change(&change);
            std::future::ready(())
        })
        .build()
        .await?;
    // One future for all rounds: a new one would not hear of a signal that came while records were processed.
    let mut ctrl_c = pin!(tokio::signal::ctrl_c());
    loop {
        let batch = tokio::select! {
            batch = consumer.next() => batch,
            _ctrl_c = &mut ctrl_c => break,
        };
        let Some(batch) = batch.transpose()? else {
            break;
        };
        for record in batch.records()? {
            let record = record?;
            let value =
                String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
            println!("{}-{}: {value}", batch.partition(), record.offset);
        }
        // The batch is dropped here: it is processed, and committed within a second.
    }
    // Commits the rest and gives the partitions back.
    consumer.close().await
}

fn print_change(change: &Rebalance) {
    let (what, partitions) = match change {
        Rebalance::Assigned(partitions) => ("assigned", partitions),
        Rebalance::Revoked(partitions) => ("revoked", partitions),
        Rebalance::Lost(partitions) => ("lost", partitions),
    };
    let names: Vec<_> = partitions.iter().map(TopicPartition::to_string).collect();
    println!("{what}: {}", names.join(", "));
}
