//! Members of a group whose coordinator moves, forgets them, or is not heard.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use parking_lot::Mutex;
use seriatim_client::{ErrorCode, Offset, Rebalance};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    fake::coordinator::CommitFault,
    groups::{LIMIT, Seen, filled, member, next, note, produce, quiet, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_moves_and_nothing_else_does() {
    let (fake, client) = filled(3, 2, 50).await;
    let mut consumer = member(&client).build().await.unwrap();
    let id = consumer.member_id();
    let mut seen = Seen::new();
    for node in [1, 2, 0, 1] {
        let before = seen.len();
        fake.coordinate(node);
        produce(&client, 2, 10).await;
        while seen.len() < before + 10 {
            note(&mut seen, &next(&mut consumer).await);
        }
        consumer.commit().await.unwrap();
    }
    while seen.len() < 180 {
        note(&mut seen, &next(&mut consumer).await);
    }
    assert!(seen.values().all(|times| *times == 1));
    until("it is back", || {
        fake.joins().last().is_some_and(|j| j.rejoin)
    })
    .await;
    assert_eq!(consumer.member_id(), id);
    assert!(fake.joins().iter().all(|join| join.member_id == id));
    consumer.close().await.unwrap();
    assert_eq!(fake.committed(0).unwrap().0, 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_are_repeated_until_they_are_stored() {
    let (fake, client) = filled(1, 1, 50).await;
    fake.fail_commits(vec![
        CommitFault::LoseAck,
        CommitFault::Refuse(ErrorCode::LeaderNotAvailable),
        CommitFault::Refuse(ErrorCode::StaleGeneration),
        CommitFault::LoseAck,
    ]);
    let mut consumer = member(&client).auto_commit(None).build().await.unwrap();
    let mut seen = Seen::new();
    while seen.len() < 50 {
        note(&mut seen, &next(&mut consumer).await);
    }
    consumer.commit().await.unwrap();
    assert_eq!(fake.committed(0).unwrap().0, 50);
    let stored = fake.commits(0);
    assert!(
        !stored.is_empty() && stored.iter().all(|c| *c == 50),
        "{stored:?}"
    );
    let ours = consumer.commit_offsets([].into()).await;
    ours.unwrap();
    consumer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_given_up_begins_anew_at_the_committed_offsets() {
    let (fake, client) = filled(1, 1, 50).await;
    let changes = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&changes);
    let consumer = member(&client).on_rebalance(move |change, _handle| {
        told.lock().push(change);
        std::future::ready(())
    });
    let mut consumer = consumer.build().await.unwrap();
    let id = consumer.member_id();
    let end = next(&mut consumer).await.next_offset();
    consumer.commit().await.unwrap();
    let held = next(&mut consumer).await;
    assert_eq!(held.first_offset(), end);
    fake.evict_all();
    until("another id", || consumer.member_id() != id).await;
    // From before the loss: it counts no more.
    drop(held);
    let again = next(&mut consumer).await;
    assert_eq!(again.first_offset(), end, "as committed");
    let joins = fake.joins();
    assert!(!joins.last().unwrap().rejoin, "{joins:?}");
    assert_eq!(fake.committed(0).unwrap().0, end.0);
    drop(again);
    consumer.close().await.unwrap();
    let kinds: Vec<_> = changes
        .lock()
        .iter()
        .map(|change| match change {
            Rebalance::Assigned(_) => "assigned",
            Rebalance::Revoked(_) => "revoked",
            Rebalance::Lost(_) => "lost",
        })
        .collect();
    assert_eq!(kinds, ["assigned", "lost", "assigned", "revoked"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_member_ends_and_says_why() {
    let (fake, client) = filled(1, 1, 50).await;
    let first = member(&client).instance_id("worker-1");
    let mut first = first.build().await.unwrap();
    let _processed = next(&mut first).await.next_offset();
    let second = member(&client).instance_id("worker-1");
    let second = second.build().await.unwrap();
    let error = loop {
        match timeout(LIMIT, first.next()).await.unwrap().unwrap() {
            Ok(_batch) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Some(ErrorCode::MemberFenced));
    assert!(!error.is_retryable());
    assert!(timeout(LIMIT, first.next()).await.unwrap().is_none());
    assert!(first.assignment().is_empty());
    first.close().await.unwrap();
    assert_eq!(fake.members(), 1);
    second.close().await.unwrap();
}

/// Whoever hears nothing for the session timeout may have lost everything to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_handed_on_once_the_lease_has_run_out() {
    let (fake, client) = filled(1, 1, 20).await;
    let mut consumer = member(&client).build().await.unwrap();
    let mut seen = Seen::new();
    while seen.len() < 20 {
        note(&mut seen, &next(&mut consumer).await);
    }
    quiet(&mut consumer).await;
    until("committed", || fake.committed(0).is_some_and(|c| c.0 == 20)).await;
    fake.deafen(true);
    let deaf = Instant::now();
    sleep(Duration::from_millis(3_100)).await;
    produce(&client, 1, 10).await;
    // The fake lets it in again at once, and does not hear it: the lease of the join holds.
    let batch = next(&mut consumer).await;
    assert!(deaf.elapsed() > Duration::from_secs(3));
    let joins = fake.joins().len();
    assert!(joins >= 2, "it had to be confirmed: {joins} joins");
    note(&mut seen, &batch);
    drop(batch);
    fake.deafen(false);
    while seen.len() < 30 {
        note(&mut seen, &next(&mut consumer).await);
    }
    consumer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handler_is_not_evicted() {
    let (fake, client) = filled(1, 1, 20).await;
    let mut consumer = member(&client).build().await.unwrap();
    let id = consumer.member_id();
    let batch = next(&mut consumer).await;
    // Two session timeouts without coming back to the consumer.
    sleep(Duration::from_millis(6_500)).await;
    assert_eq!(fake.members(), 1);
    assert_eq!((consumer.member_id(), fake.joins().len()), (id, 1));
    drop(batch);
    let _more = next(&mut consumer).await;
    consumer.close().await.unwrap();
    assert!(fake.committed(0).is_some_and(|c| c.0 > 0));
}

/// Somebody else had the partition while the stream was broken, and committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_was_elsewhere_is_read_from_where_others_are() {
    let (fake, client) = filled(2, 1, 50).await;
    let mut consumer = member(&client).build().await.unwrap();
    let _first = next(&mut consumer).await.next_offset();
    consumer.commit().await.unwrap();
    fake.lend(0, 45);
    fake.coordinate(1);
    let batch = loop {
        let batch = next(&mut consumer).await;
        if batch.first_offset() == Offset(45) {
            break batch;
        }
    };
    let end = batch.next_offset().0;
    drop(batch);
    consumer.close().await.unwrap();
    assert!(fake.commits(0).is_sorted());
    assert_eq!(fake.committed(0).unwrap().0, end);
}
