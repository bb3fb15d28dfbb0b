//! Members of a group against a coordinator that works.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use parking_lot::Mutex;
use seriatim_client::{
    Client, ClientError, CommitOffset, Consumer, ErrorCode, GroupBatch, GroupBuilder,
    GroupConsumer, Offset, Position, ProducerRecord, Rebalance, ResetPolicy, TopicPartition,
};
use tokio::time::{Instant, sleep, timeout};

use crate::fake::Fake;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A cluster with so many records in each partition, in batches of ten.
pub(crate) async fn filled(nodes: usize, partitions: usize, records: usize) -> (Fake, Client) {
    let fake = Fake::start(nodes, partitions).await;
    let client = Client::connect(&fake.servers()).await.unwrap();
    produce(&client, partitions, records).await;
    (fake, client)
}

pub(crate) async fn produce(client: &Client, partitions: usize, records: usize) {
    let producer = client.producer().build().await.unwrap();
    for n in 0..records {
        for partition in 0..partitions {
            let record = ProducerRecord::new("t", n.to_string());
            let record = record.partition(i32::try_from(partition).unwrap());
            let _delivery = producer.send(record).await.unwrap();
        }
        if n % 10 == 9 {
            producer.flush().await.unwrap();
        }
    }
    producer.close().await.unwrap();
}

pub(crate) fn member(client: &Client) -> GroupBuilder {
    let group = Consumer::group(client, "g").topics(["t"]);
    group
        .session_timeout(Duration::from_secs(3))
        .auto_commit(Some(Duration::from_millis(50)))
}

pub(crate) async fn next(consumer: &mut GroupConsumer) -> GroupBatch {
    let next = timeout(LIMIT, consumer.next()).await.expect("goes on");
    next.unwrap().unwrap()
}

/// Nothing comes for a while.
pub(crate) async fn quiet(consumer: &mut GroupConsumer) {
    let next = timeout(Duration::from_millis(200), consumer.next()).await;
    assert!(next.is_err(), "{next:?}");
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The offsets of records by partition, each with how often it came.
pub(crate) type Seen = BTreeMap<(i32, i64), u32>;

pub(crate) fn note(seen: &mut Seen, batch: &GroupBatch) {
    for record in batch.records().unwrap() {
        let offset = record.unwrap().offset.0;
        *seen.entry((batch.partition(), offset)).or_default() += 1;
    }
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_handed_on_once_and_committed() {
    let (fake, client) = filled(2, 4, 100).await;
    let mut consumer = member(&client).build().await.unwrap();
    let mut seen = Seen::new();
    while seen.len() < 400 {
        note(&mut seen, &next(&mut consumer).await);
    }
    assert!(seen.values().all(|times| *times == 1));
    assert_eq!(consumer.assignment(), [0, 1, 2, 3].map(tp));
    assert!(consumer.generation() > 0);
    quiet(&mut consumer).await;
    let all = |fake: &Fake| (0..4).all(|p| fake.committed(p).is_some_and(|c| c.0 == 100));
    until("automatic commits", || all(&fake)).await;
    consumer.close().await.unwrap();
    assert_eq!(fake.members(), 0);
    for partition in 0..4 {
        let commits = fake.commits(partition);
        assert!(
            commits.is_sorted() && commits.iter().all(|c| *c <= 100),
            "{commits:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_contiguous_part_is_committed() {
    let (fake, client) = filled(1, 1, 50).await;
    let mut consumer = member(&client).build().await.unwrap();
    let mut held = Vec::new();
    while consumer.position("t", 0) != Some(Offset(50)) {
        held.push(next(&mut consumer).await);
    }
    assert!(held.len() >= 5);
    // Dropped elsewhere, the last first, while this task waits for the next batch.
    let first = held.remove(0);
    let end_of_first = first.next_offset().0;
    let dropping =
        crate::fake::spawn(async move { drop(held.into_iter().rev().collect::<Vec<_>>()) });
    quiet(&mut consumer).await;
    dropping.await.unwrap();
    consumer.commit().await.unwrap();
    assert_eq!(fake.committed(0), None);
    drop(first);
    assert_eq!(
        fake.commits(0),
        [],
        "nobody has come back for the next one yet"
    );
    consumer.commit().await.unwrap();
    assert_eq!(fake.committed(0).unwrap().0, 50);
    assert!(end_of_first < 50);
    consumer.close().await.unwrap();
}

/// A handler that fails with `?` or panics drops its batch on the way out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_was_at_when_it_failed_comes_again() {
    let (fake, client) = filled(1, 1, 50).await;
    let mut consumer = member(&client).build().await.unwrap();
    let done = next(&mut consumer).await.next_offset();
    let failing = next(&mut consumer).await;
    assert_eq!(failing.first_offset(), done);
    drop(failing);
    // Time for automatic commits, which must not cover it.
    until("the first batch is committed", || {
        fake.committed(0).is_some()
    })
    .await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(fake.committed(0).unwrap().0, done.0);
    drop(consumer);
    until("it leaves", || fake.members() == 0).await;
    assert_eq!(fake.committed(0).unwrap().0, done.0);

    let mut again = member(&client).build().await.unwrap();
    let batch = next(&mut again).await;
    assert_eq!(batch.first_offset(), done);
    let panicked = std::thread::spawn(move || {
        let _held = batch;
        std::panic::resume_unwind(Box::new("the handler's"));
    });
    assert!(panicked.join().is_err());
    let behind = next(&mut again).await;
    drop(behind);
    again.close().await.unwrap();
    assert_eq!(fake.committed(0).unwrap().0, done.0);

    let mut last = member(&client).build().await.unwrap();
    let batch = next(&mut last).await;
    assert_eq!(batch.first_offset(), done);
    // How many records a batch has is the producer's choice.
    let part = Offset(batch.next_offset().0.min(done.0 + 3));
    batch.processed_until(part);
    last.close().await.unwrap();
    assert_eq!(fake.committed(0).unwrap().0, part.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_moves_is_revoked_and_the_rest_flows_on() {
    let (fake, client) = filled(1, 4, 20).await;
    let changes = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&changes);
    let first = member(&client).on_rebalance(move |change, _handle| {
        told.lock().push(change);
        std::future::ready(())
    });
    let mut first = first.build().await.unwrap();
    let mut seen = Seen::new();
    // One batch of each partition is with the application.
    let mut held: BTreeMap<i32, GroupBatch> = BTreeMap::new();
    while held.len() < 4 {
        let batch = next(&mut first).await;
        note(&mut seen, &batch);
        let partition = batch.partition();
        if let std::collections::btree_map::Entry::Vacant(place) = held.entry(partition) {
            let _held = place.insert(batch);
        }
    }
    let second = member(&client);
    let mut second = timeout(LIMIT, second.build()).await.unwrap().unwrap();
    until("two are to go", || first.assignment().len() == 2).await;
    let stay: BTreeSet<i32> = first.assignment().iter().map(|tp| tp.partition.0).collect();
    assert!(second.assignment().is_empty(), "they are still held");
    produce(&client, 4, 20).await;
    while stay
        .iter()
        .any(|&p| first.position("t", p) != Some(Offset(40)))
    {
        let batch = next(&mut first).await;
        assert!(
            stay.contains(&batch.partition()),
            "a revoked partition flows"
        );
        note(&mut seen, &batch);
    }
    assert!(
        changes.lock().len() == 1,
        "nothing is told while it is held"
    );
    let ends: BTreeMap<i32, i64> = held.iter().map(|(p, b)| (*p, b.next_offset().0)).collect();
    held.clear();
    quiet(&mut first).await;
    until("they have moved", || second.assignment().len() == 2).await;
    for (partition, end) in ends {
        if !stay.contains(&partition) {
            assert!(
                fake.committed(partition).unwrap().0 >= end,
                "commit on revoke"
            );
        }
    }
    while seen.len() < 160 {
        note(&mut seen, &next(&mut second).await);
    }
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
    let changes = changes.lock().clone();
    let Rebalance::Assigned(all) = &changes[0] else {
        panic!("{changes:?}")
    };
    assert_eq!(all.len(), 4);
    let moved = |change: &Rebalance| match change {
        Rebalance::Revoked(partitions) => partitions.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(changes[1..].iter().map(moved).sum::<usize>(), 2);
    second.close().await.unwrap();
    until("it gets them back", || first.assignment().len() == 4).await;
    first.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_by_hand() {
    let (fake, client) = filled(1, 2, 20).await;
    let mut consumer = member(&client).auto_commit(None).build().await.unwrap();
    let mut seen = Seen::new();
    while seen.len() < 40 {
        note(&mut seen, &next(&mut consumer).await);
    }
    quiet(&mut consumer).await;
    assert_eq!(fake.committed(0), None);
    let at = |partition, offset, metadata: &str| {
        let commit = CommitOffset {
            offset: Offset(offset),
            metadata: metadata.to_owned(),
        };
        BTreeMap::from([(tp(partition), commit)])
    };
    consumer.commit_offsets(at(0, 7, "here")).await.unwrap();
    assert_eq!(fake.committed(0), Some((7, "here".to_owned())));
    assert_eq!(fake.committed(1), None, "only what was chosen");
    let beyond = consumer.commit_offsets(at(0, 21, "")).await.unwrap_err();
    assert!(matches!(beyond, ClientError::Invalid(_)), "{beyond}");
    let strange = consumer.commit_offsets(at(7, 1, "")).await.unwrap_err();
    assert!(matches!(strange, ClientError::NotAssigned(_)), "{strange}");
    let text = "x".repeat(5_000);
    let long = consumer.commit_offsets(at(0, 8, &text)).await.unwrap_err();
    assert!(matches!(long, ClientError::Invalid(_)), "{long}");
    consumer.commit().await.unwrap();
    assert_eq!(
        (fake.committed(0).unwrap().0, fake.committed(1).unwrap().0),
        (20, 20)
    );
    let back = consumer.commit_offsets(at(1, 5, "")).await.unwrap_err();
    assert_eq!(back.code(), Some(ErrorCode::OffsetWentBack));
    assert_eq!(fake.committed(1).unwrap().0, 20);

    // Sought back, what is processed from there may be committed.
    until("known anew", || !consumer.assignment().is_empty()).await;
    let sought = consumer.seek("t", 1, Position::Offset(Offset(4))).await;
    assert_eq!(sought.unwrap(), Offset(4));
    let batch = next(&mut consumer).await;
    assert_eq!((batch.partition(), batch.first_offset()), (1, Offset(4)));
    let end = batch.next_offset().0;
    drop(batch);
    consumer.commit().await.unwrap();
    assert_eq!(fake.committed(1).unwrap().0, end);
    consumer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_resume_and_lag() {
    let (_fake, client) = filled(1, 2, 30).await;
    let mut consumer = member(&client).build().await.unwrap();
    until("assigned", || consumer.assignment().len() == 2).await;
    consumer.pause("t", 0).unwrap();
    let mut others = 0;
    while others < 30 {
        let batch = next(&mut consumer).await;
        assert_eq!(batch.partition(), 1, "0 is paused");
        others += batch.record_count();
    }
    quiet(&mut consumer).await;
    let lag = consumer.lag().await.unwrap();
    let lag: Vec<_> = lag
        .iter()
        .map(|l| (l.position.0, l.end.0, l.lag()))
        .collect();
    assert_eq!(lag, [(0, 30, 30), (30, 30, 0)]);
    consumer.resume("t", 0).unwrap();
    let batch = next(&mut consumer).await;
    assert_eq!((batch.partition(), batch.first_offset()), (0, Offset(0)));
    assert!(consumer.pause("t", 5).is_err());
    drop(batch);
    consumer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_group_begins() {
    let (fake, client) = filled(1, 1, 30).await;
    let end = member(&client).reset(ResetPolicy::End);
    let mut end = end.build().await.unwrap();
    until("at the end", || end.position("t", 0) == Some(Offset(30))).await;
    quiet(&mut end).await;
    end.close().await.unwrap();
    assert_eq!(fake.committed(0), None, "a reset commits nothing");

    let mut fail = member(&client)
        .reset(ResetPolicy::Fail)
        .build()
        .await
        .unwrap();
    let error = timeout(LIMIT, fail.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, ClientError::NoOffset { .. }), "{error}");
    // The application decides, and it goes on.
    let _sought = fail
        .seek("t", 0, Position::Offset(Offset(10)))
        .await
        .unwrap();
    assert_eq!(next(&mut fail).await.first_offset(), Offset(10));
    fail.close().await.unwrap();

    fake.trim(0, 15);
    fake.set_offset(0, 5);
    for (policy, expected) in [(ResetPolicy::Start, 15), (ResetPolicy::End, 30)] {
        let mut consumer = member(&client).reset(policy).build().await.unwrap();
        if policy == ResetPolicy::End {
            produce(&client, 1, 10).await;
        }
        let batch = next(&mut consumer).await;
        assert_eq!(batch.first_offset(), Offset(expected), "{policy:?}");
        batch.abandon();
        consumer.close().await.unwrap();
        assert_eq!(fake.committed(0).unwrap().0, 5);
    }
    let mut fail = member(&client)
        .reset(ResetPolicy::Fail)
        .build()
        .await
        .unwrap();
    let error = timeout(LIMIT, fail.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.valid_range(), Some((Offset(15), Offset(40))));
    fail.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_consumer_obeys_the_same_policy() {
    let (fake, client) = filled(1, 1, 30).await;
    fake.trim(0, 10);
    let from = |policy| {
        let consumer = client.consumer().on_out_of_range(policy);
        consumer.assign("t", 0, Position::Offset(Offset(3)))
    };
    let mut start = from(ResetPolicy::Start).build().await.unwrap();
    let batch = timeout(LIMIT, start.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(batch.first_offset(), Offset(10));
    // The default.
    let fail = client
        .consumer()
        .assign("t", 0, Position::Offset(Offset(3)));
    let mut fail = fail.build().await.unwrap();
    let error = timeout(LIMIT, fail.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.valid_range(), Some((Offset(10), Offset(30))));
    let mut end = from(ResetPolicy::End).build().await.unwrap();
    let none = timeout(Duration::from_millis(200), end.next()).await;
    assert!(none.is_err(), "the end was skipped to");
    produce(&client, 1, 10).await;
    let batch = timeout(LIMIT, end.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(batch.first_offset(), Offset(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_a_name_keeps_its_place() {
    let (fake, client) = filled(1, 1, 30).await;
    let first = member(&client).instance_id("worker-1");
    let mut first = first.build().await.unwrap();
    let end = next(&mut first).await.next_offset();
    first.close().await.unwrap();
    assert_eq!(fake.members(), 1, "it may come back");
    assert_eq!(fake.committed(0).unwrap().0, end.0);
    let again = member(&client).instance_id("worker-1");
    let mut again = again.build().await.unwrap();
    assert_eq!(fake.members(), 1);
    assert_eq!(next(&mut again).await.first_offset(), end);
    again.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_cannot_be() {
    let (_fake, client) = filled(1, 1, 0).await;
    let bad = [
        Consumer::group(&client, "").topics(["t"]),
        Consumer::group(&client, "a\nb").topics(["t"]),
        Consumer::group(&client, "g"),
        member(&client).session_timeout(Duration::from_secs(2)),
        member(&client).rebalance_timeout(Duration::ZERO),
        member(&client).auto_commit(Some(Duration::ZERO)),
    ];
    for builder in bad {
        let error = builder.build().await.unwrap_err();
        assert!(matches!(error, ClientError::Invalid(_)), "{error}");
    }
}

/// It begins where the group is, so nothing makes it ask where the partitions are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_goes_on_where_the_group_is() {
    let (fake, _other_process) = filled(2, 2, 30).await;
    fake.set_offset(0, 10);
    fake.set_offset(1, 10);
    let client = Client::connect(&fake.servers()).await.unwrap();
    let mut consumer = member(&client).build().await.unwrap();
    let mut seen = Seen::new();
    while seen.len() < 40 {
        note(&mut seen, &next(&mut consumer).await);
    }
    assert!(seen.keys().all(|(_, offset)| *offset >= 10));
    consumer.close().await.unwrap();
}
