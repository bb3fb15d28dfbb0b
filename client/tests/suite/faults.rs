//! The client against a cluster that loses acknowledgements, moves leaders and is slow.

use std::{collections::HashMap, time::Duration};

use futures::StreamExt as _;
use seriatim_client::{
    Client, ClientError, Compression, ErrorCode, Offset, Position, ProducerRecord,
    partition_for_key,
};
use tokio::time::{Instant, timeout};

use crate::fake::{self, Fake, Fault};

const LIMIT: Duration = Duration::from_secs(30);

/// A small deterministic generator: the tests need variety, not randomness.
fn dice(mut seed: u64) -> impl FnMut(u64) -> u64 + Send {
    move |sides| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    }
}

fn record(key: u64, n: u64) -> ProducerRecord {
    ProducerRecord::new("t", n.to_string()).key(key.to_string())
}

fn value(record: &seriatim_client::Record) -> u64 {
    std::str::from_utf8(record.value.as_deref().unwrap())
        .unwrap()
        .parse()
        .unwrap()
}

/// Moves leaders until the task is aborted.
fn move_leaders(fake: &Fake, nodes: u64, partitions: u64) -> tokio::task::JoinHandle<()> {
    let fake = fake.clone();
    let mut roll = dice(7);
    fake::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (partition, node) = (roll(partitions), roll(nodes));
            fake.lead(
                usize::try_from(partition).unwrap(),
                usize::try_from(node).unwrap(),
            );
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_stored_once_and_in_order_whatever_happens() {
    const RECORDS: u64 = 30_000;
    let fake = Fake::start(3, 4).await;
    let mut roll = dice(1);
    fake.chaos(move |_| match roll(20) {
        0 => Fault::LoseAck,
        1 => Fault::Refuse(ErrorCode::Overloaded),
        2 => Fault::Slow(Duration::from_millis(5)),
        _ => Fault::None,
    });
    let moving = move_leaders(&fake, 3, 4);
    let client = Client::connect(&fake.servers()).await.unwrap();
    // Small batches and a small buffer: many requests, and back-pressure all the time.
    let builder = client.producer().batch_bytes(400).buffer_bytes(20_000);
    let producer = builder.compression(Compression::Lz4).build().await.unwrap();
    let mut deliveries = Vec::new();
    for n in 0..RECORDS {
        let sent = timeout(LIMIT, producer.send(record(n % 50, n))).await;
        deliveries.push(sent.expect("back-pressure ends").unwrap());
    }
    timeout(LIMIT, producer.close()).await.unwrap().unwrap();
    moving.abort();
    let stored: Vec<_> = (0..4).map(|p| fake.records(p)).collect();
    assert_eq!(
        stored.iter().map(Vec::len).sum::<usize>(),
        usize::try_from(RECORDS).unwrap()
    );
    for (n, delivery) in (0..RECORDS).zip(deliveries) {
        let at = delivery.await.unwrap();
        let key = (n % 50).to_string();
        assert_eq!(at.partition, partition_for_key(key.as_bytes(), 4));
        let place = usize::try_from(at.offset.0).unwrap();
        let found = &stored[usize::try_from(at.partition).unwrap()][place];
        assert_eq!(
            (value(found), found.key.as_deref().unwrap()),
            (n, key.as_bytes())
        );
    }
    for partition in &stored {
        let numbers: Vec<_> = partition.iter().map(value).collect();
        assert!(numbers.is_sorted(), "the order of sending");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_follows_leaders_without_gaps_or_repeats() {
    const RECORDS: u64 = 5_000;
    let fake = Fake::start(3, 2).await;
    let client = Client::connect(&fake.servers()).await.unwrap();
    let moving = move_leaders(&fake, 3, 2);
    let producer = client.producer().batch_bytes(300).build().await.unwrap();
    for n in 0..10 {
        let partition = i32::try_from(n % 2).unwrap();
        let _delivery = producer
            .send(record(0, n).partition(partition))
            .await
            .unwrap();
    }
    producer.flush().await.unwrap();
    let builder = client.consumer().prefetch_bytes(1);
    let mut consumer = builder
        .assign("t", 0, Position::Start)
        .assign("t", 1, Position::Offset(Offset(3)))
        .build()
        .await
        .unwrap();
    for n in 10..RECORDS {
        let partition = i32::try_from(n % 2).unwrap();
        let _delivery = producer
            .send(record(0, n).partition(partition))
            .await
            .unwrap();
    }
    producer.flush().await.unwrap();
    let mut next = HashMap::from([(0, 0), (1, 3)]);
    while next.values().sum::<i64>() < i64::try_from(RECORDS).unwrap() {
        let batch = timeout(LIMIT, consumer.next())
            .await
            .expect("goes on")
            .unwrap()
            .unwrap();
        let at = next.get_mut(&batch.partition()).unwrap();
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            assert_eq!(record.offset.0, *at);
            assert_eq!(
                value(&record),
                u64::try_from(*at * 2).unwrap() + u64::try_from(batch.partition()).unwrap()
            );
            *at += 1;
        }
        assert_eq!(consumer.position("t", batch.partition()), Some(Offset(*at)));
    }
    let sought = consumer
        .seek("t", 0, Position::Offset(Offset(10)))
        .await
        .unwrap();
    assert_eq!(sought, Offset(10));
    consumer.unassign("t", 1);
    let batch = timeout(LIMIT, consumer.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let first = batch.records().unwrap().next().unwrap().unwrap();
    assert_eq!((batch.partition(), first.offset), (0, Offset(10)));
    moving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hangs_is_left_as_soon_as_another_leads() {
    let fake = Fake::start(3, 1).await;
    fake.chaos(|node| if node == 0 { Fault::Hang } else { Fault::None });
    let client = Client::connect(&fake.servers()).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    let stuck = producer.send(record(1, 1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(stuck.poll_now().is_none());
    fake.lead(0, 2);
    let moved = Instant::now();
    let _stored = timeout(LIMIT, stuck).await.unwrap().unwrap();
    assert!(
        moved.elapsed() < Duration::from_secs(1),
        "{:?}",
        moved.elapsed()
    );
    assert_eq!(fake.records(0).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_grow_while_the_leader_is_busy() {
    let fake = Fake::start(1, 1).await;
    fake.chaos(|_| Fault::Slow(Duration::from_millis(50)));
    let client = Client::connect(&fake.servers()).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    for n in 0..500 {
        let _delivery = producer.send(record(1, n)).await.unwrap();
    }
    producer.flush().await.unwrap();
    let sizes: Vec<_> = fake
        .batches(0)
        .iter()
        .map(|b| b.header.record_count)
        .collect();
    assert_eq!(sizes.iter().sum::<u32>(), 500);
    assert!(sizes.len() <= 10, "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_buffer_makes_send_wait_and_a_late_record_fails() {
    let fake = Fake::start(1, 1).await;
    fake.chaos(|_| Fault::Hang);
    let client = Client::connect(&fake.servers()).await.unwrap();
    let builder = client.producer().batch_bytes(100).buffer_bytes(200);
    let builder = builder.delivery_timeout(Duration::from_secs(1));
    let producer = builder.build().await.unwrap();
    let mut deliveries = Vec::new();
    loop {
        match timeout(Duration::from_millis(200), producer.send(record(1, 1))).await {
            Ok(sent) => deliveries.push(sent.unwrap()),
            Err(_elapsed) => break,
        }
        assert!(deliveries.len() < 10, "no back-pressure");
    }
    for delivery in deliveries {
        let error = timeout(LIMIT, delivery).await.unwrap().unwrap_err();
        let ClientError::Timeout { .. } = error else {
            panic!("{error}")
        };
    }
    let _room_again = timeout(LIMIT, producer.send(record(1, 1)))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_on_condition() {
    let fake = Fake::start(2, 1).await;
    let client = Client::connect(&fake.servers()).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    let one = || vec![ProducerRecord::new("t", "1")];
    let stored = producer.append_if("t", 0, Offset(0), one()).await.unwrap();
    assert_eq!(stored.offset, Offset(0));
    let refused = producer
        .append_if("t", 0, Offset(0), one())
        .await
        .unwrap_err();
    assert_eq!(refused.actual_end_offset(), Some(Offset(1)));
    assert!(refused.has_no_side_effects() && !refused.is_retryable());
    // A lost acknowledgement is not a second append, nor a failure.
    let mut first = true;
    fake.chaos(move |_| {
        if std::mem::take(&mut first) {
            Fault::LoseAck
        } else {
            Fault::None
        }
    });
    let stored = producer.append_if("t", 0, Offset(1), one()).await.unwrap();
    assert_eq!(stored.offset, Offset(1));
    let stored = producer.append_if("t", 0, Offset(2), one()).await.unwrap();
    assert_eq!(stored.offset, Offset(2));
    assert_eq!(fake.records(0).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_said_at_once() {
    let fake = Fake::start(1, 2).await;
    let client = Client::connect(&fake.servers()).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    let unknown = producer
        .send(ProducerRecord::new("nope", "x"))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::UnknownTopic));
    let unknown = producer.send(record(1, 1).partition(2)).await.unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::UnknownPartition));
    let large = ProducerRecord::new("t", vec![0; 17 << 20]);
    let large = producer.send(large).await.unwrap_err();
    let ClientError::RecordTooLarge { .. } = large else {
        panic!("{large}")
    };
    let clone = producer.clone();
    producer.close().await.unwrap();
    let closed = clone.send(record(1, 1)).await.unwrap_err();
    let ClientError::Closed(_) = closed else {
        panic!("{closed}")
    };
}
