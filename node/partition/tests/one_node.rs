//! A partition with one replica: appends, duplicates, conditions, reads, restarts.

mod common;

use std::time::Duration;

use common::{Nodes, append, batch, deadline, read, request, timed_batch};
use futures::future::join_all;
use seriatim_partition::{Append, AppendError, At, Fetch, FetchError};
use seriatim_proto::ids::Offset;
use seriatim_runtime::clock;

#[tokio::test]
async fn what_is_appended_is_read() {
    let nodes = Nodes::start(1).await;
    let partition = nodes.leading().await;
    let first = append(&partition, batch(&["a", "b"], None)).await.unwrap();
    let second = append(&partition, batch(&["c"], None)).await.unwrap();
    assert_eq!(
        (first.base_offset, second.base_offset),
        (Offset(0), Offset(2))
    );
    assert!(!first.duplicate);
    let expected = [(0, "a"), (1, "b"), (2, "c")].map(|(at, value)| (at, value.to_owned()));
    assert_eq!(read(&partition, 0).await.unwrap(), expected);
    assert_eq!(*partition.high_watermark().borrow(), Offset(3));
    // From the middle of a batch the whole batch comes, as it is stored.
    assert_eq!(read(&partition, 1).await.unwrap(), expected);
    assert_eq!(read(&partition, 3).await.unwrap(), []);
    let beyond = partition.fetch(Fetch {
        offset: Offset(4),
        max_bytes: 1,
        deadline: deadline(),
    });
    let refused = beyond.await.unwrap_err();
    assert!(
        matches!(
            refused,
            FetchError::OffsetOutOfRange {
                start: Offset(0),
                end: Offset(3),
                ..
            }
        ),
        "{refused:?}"
    );
    nodes.stop().await;
}

#[tokio::test]
async fn a_repeated_batch_is_answered_with_its_place() {
    let nodes = Nodes::start(1).await;
    let partition = nodes.leading().await;
    let one = batch(&["a", "b"], Some((1, 0)));
    // At once: the second waits for the first, whose place is its answer.
    let (first, second) = tokio::join!(
        append(&partition, one.clone()),
        append(&partition, one.clone())
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.base_offset, second.base_offset);
    assert_eq!([first.duplicate, second.duplicate], [false, true]);
    let third = append(&partition, one).await.unwrap();
    assert!(third.duplicate);
    assert_eq!(read(&partition, 0).await.unwrap().len(), 2);
    nodes.stop().await;
}

#[tokio::test]
async fn batches_that_overtake_each_other_are_stored_in_order() {
    let nodes = Nodes::start(1).await;
    let partition = nodes.leading().await;
    let appends = [3, 1, 4, 0, 2].map(|sequence| {
        let value = sequence.to_string();
        append(&partition, batch(&[&value], Some((1, sequence))))
    });
    for result in join_all(appends).await {
        assert!(!result.unwrap().duplicate);
    }
    let values: Vec<String> = read(&partition, 0)
        .await
        .unwrap()
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(values, ["0", "1", "2", "3", "4"]);
    // The one before may also arrive later, if not much.
    let (late, early) = tokio::join!(append(&partition, batch(&["6"], Some((1, 6)))), async {
        clock::sleep(Duration::from_millis(40)).await;
        append(&partition, batch(&["5"], Some((1, 5)))).await
    });
    assert_eq!(early.unwrap().base_offset, Offset(5));
    assert_eq!(late.unwrap().base_offset, Offset(6));
    // What never comes is told after a moment.
    let gap = append(&partition, batch(&["9"], Some((1, 9)))).await;
    assert!(
        matches!(
            gap,
            Err(AppendError::OutOfOrderSequence {
                expected: 7,
                found: 9,
                ..
            })
        ),
        "{gap:?}"
    );
    nodes.stop().await;
}

#[tokio::test]
async fn of_concurrent_conditional_appends_exactly_one_wins() {
    let nodes = Nodes::start(1).await;
    let partition = nodes.leading().await;
    for round in 0..20_i64 {
        let appends = (0..8).map(|number| {
            let value = format!("{round}-{number}");
            let request = Append {
                expected_end: Some(Offset(round)),
                ..request(batch(&[&value], None))
            };
            let partition = partition.clone();
            async move { partition.append(request).await }
        });
        let results = join_all(appends).await;
        let won = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(won, 1, "{results:?}");
        for refused in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(
                *refused,
                AppendError::WrongEndOffset {
                    expected: Offset(round),
                    actual: Offset(round + 1)
                }
            );
        }
    }
    assert_eq!(read(&partition, 0).await.unwrap().len(), 20);
    nodes.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_records_and_producers() {
    let mut nodes = Nodes::start(1).await;
    let partition = nodes.leading().await;
    for sequence in 0..10 {
        let _ = append(&partition, batch(&["x"], Some((1, sequence))))
            .await
            .unwrap();
    }
    drop(partition);
    nodes.stop_node(1).await;
    nodes.start_node(1).await;
    let partition = nodes.leading().await;
    assert_eq!(read(&partition, 0).await.unwrap().len(), 10);
    let again = append(&partition, batch(&["x"], Some((1, 9))))
        .await
        .unwrap();
    assert!(again.duplicate);
    assert_eq!(again.base_offset, Offset(9));
    let next = append(&partition, batch(&["y"], Some((1, 10))))
        .await
        .unwrap();
    assert_eq!(next.base_offset, Offset(10));
    nodes.stop().await;
}

#[tokio::test]
async fn offsets_by_time() {
    let nodes = Nodes::start(1).await;
    let partition = nodes.leading().await;
    let _ = append(&partition, timed_batch(&["a", "b", "c"], 1000, None))
        .await
        .unwrap();
    let _ = append(&partition, timed_batch(&["d"], 2000, None))
        .await
        .unwrap();
    for (at, offset) in [
        (At::Start, 0),
        (At::End, 4),
        (At::Time(0), 0),
        (At::Time(1001), 1),
        (At::Time(1003), 3),
        (At::Time(2000), 3),
        (At::Time(2001), 4),
    ] {
        let (found, epoch) = partition.list_offset(at).await.unwrap();
        assert_eq!(found, Offset(offset), "{at:?}");
        assert!(epoch.0 > 0);
    }
    nodes.stop().await;
}

#[tokio::test]
async fn a_dropped_append_leaves_nothing_behind() {
    let nodes = Nodes::start(1).await;
    let partition = nodes.leading().await;
    for sequence in 0..20 {
        let appending = append(&partition, batch(&["x"], Some((1, sequence))));
        tokio::pin!(appending);
        // Submitted, then given up.
        drop(futures::poll!(&mut appending));
    }
    common::eventually("all answered", || partition.status().appends_in_flight == 0).await;
    let stored = read(&partition, 0).await.unwrap().len();
    let end = Append {
        expected_end: Some(Offset(i64::try_from(stored).unwrap())),
        ..request(batch(&["last"], None))
    };
    let appended = partition.append(end).await.unwrap();
    assert_eq!(usize::try_from(appended.base_offset.0).unwrap(), stored);
    nodes.stop().await;
}

#[tokio::test]
async fn a_batch_above_the_topics_limit_is_refused() {
    let nodes = Nodes::start(1).await;
    let partition = nodes.leading().await;
    let mut settings = partition.settings();
    settings.max_message_bytes = 1024;
    partition.set_settings(settings);
    let large = "x".repeat(2000);
    let refused = append(&partition, batch(&[&large], None)).await;
    assert!(
        matches!(refused, Err(AppendError::TooLarge { limit: 1024, .. })),
        "{refused:?}"
    );
    assert_eq!(read(&partition, 0).await.unwrap(), []);
    nodes.stop().await;
}
