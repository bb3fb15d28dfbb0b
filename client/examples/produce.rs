//! Appends ten records to a topic and prints where they are:
//! `SERIATIM_SERVERS=127.0.0.1:7401 cargo run -p seriatim-client --example produce -- flights`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use seriatim_client::{Client, ClientError, ProducerRecord};

#[tokio::main]
async fn main() -> Result<(), ClientError> {
    let servers = std::env::var("SERIATIM_SERVERS").unwrap_or_else(|_| "127.0.0.1:7401".to_owned());
    let topic = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "example".to_owned());
    let client = Client::connect(&servers).await?;
    let producer = client.producer().build().await?;
    // Queue all, then wait for all: the records travel in few batches.
    let mut deliveries = Vec::new();
    for n in 0..10 {
        let record =
            ProducerRecord::new(&topic, format!("event {n}")).key(format!("key {}", n % 3));
        deliveries.push(producer.send(record).await?);
    }
    for delivery in deliveries {
        let stored = delivery.await?;
        println!("partition {} offset {}", stored.partition, stored.offset);
    }
    producer.close().await
}
