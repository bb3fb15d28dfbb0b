//! Event sourcing: appends to a stream of events only if nobody else did in between:
//! `SERIATIM_SERVERS=127.0.0.1:7401 cargo run -p seriatim-client --example append_if -- accounts`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use seriatim_client::{Client, ClientError, Position, ProducerRecord, TopicPartition};

#[tokio::main]
async fn main() -> Result<(), ClientError> {
    let servers = std::env::var("SERIATIM_SERVERS").unwrap_or_else(|_| "127.0.0.1:7401".to_owned());
    let topic = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "example".to_owned());
    let client = Client::connect(&servers).await?;
    let producer = client.producer().build().await?;
    let end = (TopicPartition::new(&topic, 0), Position::End);
    let mut expected = client
        .admin()
        .list_offsets(&[end])
        .await?
        .first()
        .copied()
        .unwrap_or_default();
    loop {
        // A real program would now decide what to append from the events before `expected`.
        let event = ProducerRecord::new(&topic, "withdrawn: 10");
        match producer.append_if(&topic, 0, expected, vec![event]).await {
            Ok(stored) => {
                println!("appended at {}", stored.offset);
                return Ok(());
            }
            Err(error) => match error.actual_end_offset() {
                Some(actual) => {
                    println!("somebody was faster: the end is {actual}");
                    expected = actual;
                }
                None => return Err(error),
            },
        }
    }
}
