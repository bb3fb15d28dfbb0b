//! A partition with three replicas: what a change of leader must not change.

mod common;

use std::time::Duration;

use common::{Nodes, append, batch, eventually, read, request};
use futures::future::join_all;
use seriatim_partition::{Append, AppendError, Fetch, FetchError, TrimError};
use seriatim_proto::ids::Offset;
use seriatim_runtime::clock;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_knows_the_producers_of_the_old() {
    let mut nodes = Nodes::start(3).await;
    let old = nodes.leader().await;
    let partition = nodes.running[&old].partition.clone();
    let mut places = Vec::new();
    for sequence in 0..8 {
        let one = batch(&[&sequence.to_string()], Some((1, sequence)));
        places.push(append(&partition, one).await.unwrap().base_offset);
    }
    drop(partition);
    nodes.stop_node(old).await;
    let partition = nodes.leading().await;
    for (number, place) in (0..).zip(&places).skip(3) {
        let again = append(&partition, batch(&[&number.to_string()], Some((1, number))))
            .await
            .unwrap();
        assert!(again.duplicate, "{number}");
        assert_eq!(again.base_offset, *place);
    }
    let next = append(&partition, batch(&["8"], Some((1, 8))))
        .await
        .unwrap();
    assert!(!next.duplicate);
    assert_eq!(next.base_offset, Offset(8));
    // The old leader comes back and holds the same.
    nodes.start_node(old).await;
    let back = nodes.running[&old].partition.clone();
    eventually("the old leader has caught up", || {
        *back.high_watermark().borrow() == Offset(9)
    })
    .await;
    let values: Vec<String> = read(&nodes.leading().await, 0)
        .await
        .unwrap()
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    let expected: Vec<String> = (0..9).map(|n| n.to_string()).collect();
    assert_eq!(values, expected);
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_neither_appends_nor_serves() {
    let nodes = Nodes::start(3).await;
    let leader = nodes.leader().await;
    let (_, follower) = nodes
        .running
        .iter()
        .find(|(number, _)| **number != leader)
        .unwrap();
    let partition = &follower.partition;
    eventually("the follower knows its leader", || {
        partition.status().leader.is_some()
    })
    .await;
    let refused = append(partition, batch(&["x"], None)).await.unwrap_err();
    assert!(
        matches!(
            refused,
            AppendError::NotLeader {
                leader: Some(node),
                maybe_applied: false,
                ..
            } if node.0 == u64::try_from(leader).unwrap()
        ),
        "{refused:?}"
    );
    let refused = read(partition, 0).await.unwrap_err();
    assert!(
        matches!(refused, FetchError::NotLeader { .. }),
        "{refused:?}"
    );
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_concurrent_conditional_appends_exactly_one_wins() {
    let nodes = Nodes::start(3).await;
    let partition = nodes.leading().await;
    for round in 0..10_i64 {
        let appends = (0..8).map(|number| {
            let partition = partition.clone();
            let request = Append {
                expected_end: Some(Offset(round)),
                ..request(batch(&[&format!("{round}-{number}")], None))
            };
            tokio::task::spawn_blocking(move || {
                tokio::runtime::Handle::current().block_on(partition.append(request))
            })
        });
        let results = join_all(appends).await;
        let won = results
            .iter()
            .filter(|result| result.as_ref().unwrap().is_ok())
            .count();
        assert_eq!(won, 1, "{results:?}");
    }
    nodes.stop().await;
}

/// Leaves one node without a majority.
async fn stop_others(nodes: &mut Nodes, left: usize) {
    let others: Vec<usize> = nodes.running.keys().copied().collect();
    for other in others.into_iter().filter(|other| *other != left) {
        nodes.stop_node(other).await;
    }
}

/// Seeds 132 and 284 of the simulator: a leader that was cut off told a producer that batches were
/// missing, which its successor had stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_refuses_nothing_for_good() {
    let mut nodes = Nodes::start(3).await;
    let leader = nodes.leader().await;
    let partition = nodes.running[&leader].partition.clone();
    for sequence in 0..2 {
        let one = batch(&["x"], Some((1, sequence)));
        let _stored = append(&partition, one).await.unwrap();
    }
    let expecting = |end: i64| Append {
        expected_end: Some(Offset(end)),
        ..request(batch(&["y"], None))
    };
    // With a majority it knows better than the producer.
    let refused = append(&partition, batch(&["x"], Some((1, 5)))).await;
    assert!(
        matches!(refused, Err(AppendError::OutOfOrderSequence { .. })),
        "{refused:?}"
    );
    let refused = partition.append(expecting(5)).await;
    assert!(
        matches!(refused, Err(AppendError::WrongEndOffset { .. })),
        "{refused:?}"
    );
    stop_others(&mut nodes, leader).await;
    let unsure = |answer: &Result<_, AppendError>| {
        matches!(
            answer,
            Err(AppendError::NoMajority | AppendError::NotLeader { .. })
        )
    };
    let refused = append(&partition, batch(&["x"], Some((1, 5)))).await;
    assert!(unsure(&refused), "{refused:?}");
    let refused = partition.append(expecting(5)).await;
    assert!(unsure(&refused), "{refused:?}");
    // What the log has outgrown, it has outgrown whoever leads.
    let refused = partition.append(expecting(1)).await;
    assert!(
        matches!(refused, Err(AppendError::WrongEndOffset { .. })) || unsure(&refused),
        "{refused:?}"
    );
    drop(partition);
    nodes.stop().await;
}

/// A live run in which the network was split: a consumer that went on from where it had read to was told
/// by a leader that was cut off that the partition ends before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_denies_no_offset() {
    let mut nodes = Nodes::start(3).await;
    let leader = nodes.leader().await;
    let partition = nodes.running[&leader].partition.clone();
    let _stored = append(&partition, batch(&["x"], None)).await.unwrap();
    // Long enough for a majority that is there, and short enough to wait for one that is not.
    let soon = || clock::now() + Duration::from_secs(1);
    let beyond = || Fetch {
        offset: Offset(2),
        max_bytes: 1,
        deadline: soon(),
    };
    let refused = partition.fetch(beyond()).await;
    assert!(
        matches!(refused, Err(FetchError::OffsetOutOfRange { .. })),
        "{refused:?}"
    );
    let refused = partition.trim(Offset(2), soon()).await;
    assert!(
        matches!(refused, Err(TrimError::OutOfRange { .. })),
        "{refused:?}"
    );
    stop_others(&mut nodes, leader).await;
    let refused = partition.fetch(beyond()).await;
    assert!(
        matches!(
            refused,
            Err(FetchError::NoMajority | FetchError::NotLeader { .. })
        ),
        "{refused:?}"
    );
    let refused = partition.trim(Offset(2), soon()).await;
    assert!(
        matches!(
            refused,
            Err(TrimError::NoMajority | TrimError::NotLeader { .. })
        ),
        "{refused:?}"
    );
    drop(partition);
    nodes.stop().await;
}
