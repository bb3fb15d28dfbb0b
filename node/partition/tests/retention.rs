//! Old records go, on every replica alike; what is left and what is remembered stays right.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails where it is wrong"
)]

mod common;

use common::{Nodes, append, batch, deadline, eventually, read, timed_batch};
use seriatim_consensus::Group;
use seriatim_partition::{At, FetchError, Partition, TrimError};
use seriatim_proto::{
    ids::{NodeId, Offset, ReplicaId},
    settings::TopicSettings,
};

const SEGMENT_BYTES: u32 = 64 << 10;

fn settings(bytes: Option<u64>) -> TopicSettings {
    TopicSettings {
        segment_bytes: SEGMENT_BYTES,
        retention_ms: None,
        retention_bytes: bytes,
        ..TopicSettings::default()
    }
}

/// The value at an offset: about 1 KiB, told apart by the offset.
fn value(offset: i64) -> String {
    format!("{offset}:{}", "x".repeat(1000))
}

/// Appends records of two each, from an even offset on; producer 1 numbers them.
async fn fill(partition: &Partition, offsets: std::ops::Range<i64>) {
    for base in offsets.step_by(2) {
        let values = [value(base), value(base + 1)];
        let stamp = Some((1, i32::try_from(base).unwrap()));
        let values = [values[0].as_str(), values[1].as_str()];
        let placed = append(partition, batch(&values, stamp)).await.unwrap();
        assert_eq!(placed.base_offset, Offset(base));
    }
}

fn start(partition: &Partition) -> i64 {
    partition.status().log_start_offset.0
}

/// Everything from the start on is there with its own value.
async fn check_records(partition: &Partition, end: i64) {
    let from = start(partition);
    let mut records = read(partition, from).await.unwrap();
    // The first batch may begin before.
    records.retain(|(offset, _)| *offset >= from);
    let expected: Vec<_> = (from..end).map(|offset| (offset, value(offset))).collect();
    assert!(
        records == expected,
        "from {from}: {} records",
        records.len()
    );
    if from > 0 {
        let refused = read(partition, from - 1).await.unwrap_err();
        assert!(
            matches!(refused, FetchError::OffsetOutOfRange { start, end: at, .. }
                if (start.0, at.0) == (from, end)),
            "{refused:?}"
        );
    }
}

/// A retry of a batch that was purged long ago is recognised.
async fn remembers(partition: &Partition, base: i64) {
    let values = [value(base), value(base + 1)];
    let stamp = Some((1, i32::try_from(base).unwrap()));
    let again = batch(&[values[0].as_str(), values[1].as_str()], stamp);
    let again = append(partition, again).await.unwrap();
    assert!(again.duplicate && again.base_offset == Offset(base));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_goes_and_a_restart_remembers_where_it_began() {
    let mut nodes = Nodes::start_with(1, settings(Some(300 << 10))).await;
    let partition = nodes.leading().await;
    // Another producer, of which nothing will be left but the memory.
    let first = append(&partition, batch(&["a", "b"], Some((9, 0)))).await;
    assert_eq!(first.unwrap().base_offset, Offset(0));
    let trimmed = partition.trim(Offset(2), deadline()).await.unwrap();
    assert_eq!(trimmed, Offset(2));
    fill_after_two(&partition, 1000).await;
    let moved = partition.retain(0).await.unwrap().expect("it moves");
    assert!(moved > Offset(500), "{moved}");
    assert_eq!(partition.retain(0).await.unwrap(), None, "once is enough");
    eventually("the files go", || nodes.disk_bytes(1) < 450 << 10).await;
    assert!(nodes.disk_bytes(1) >= 300 << 10);
    drop(partition);
    nodes.stop_node(1).await;
    nodes.start_node(1).await;
    let partition = nodes.leading().await;
    assert_eq!(start(&partition), moved.0);
    let again = append(&partition, batch(&["a", "b"], Some((9, 0)))).await;
    assert!(again.unwrap().duplicate);
    let records = read(&partition, moved.0).await.unwrap();
    assert!(records.iter().all(|(at, text)| *text == value(*at)));
    assert_eq!(records.last().map(|record| record.0), Some(1001));
    nodes.stop().await;
}

async fn fill_after_two(partition: &Partition, count: i64) {
    for base in (2..2 + count).step_by(2) {
        let values = [value(base), value(base + 1)];
        let values = [values[0].as_str(), values[1].as_str()];
        let placed = append(partition, batch(&values, None)).await.unwrap();
        assert_eq!(placed.base_offset, Offset(base));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trim_is_exact_and_stays() {
    let mut nodes = Nodes::start_with(1, settings(None)).await;
    let partition = nodes.leading().await;
    for base in (0..200).step_by(2) {
        let values = [value(base), value(base + 1)];
        let values = [values[0].as_str(), values[1].as_str()];
        let one = timed_batch(&values, 5000 + base, None);
        let _placed = append(&partition, one).await.unwrap();
    }
    let beyond = partition.trim(Offset(201), deadline()).await.unwrap_err();
    assert!(
        matches!(
            beyond,
            TrimError::OutOfRange {
                end: Offset(200),
                ..
            }
        ),
        "{beyond:?}"
    );
    // In the middle of a batch and of a file.
    let start_at = partition.trim(Offset(123), deadline()).await.unwrap();
    assert_eq!(start_at, Offset(123));
    let lower = partition.trim(Offset(7), deadline()).await.unwrap();
    assert_eq!(lower, Offset(123), "it never goes back");
    check_records(&partition, 200).await;
    for (time, expected) in [(0, 123), (5122, 123), (5123, 123), (5124, 124), (9999, 200)] {
        let (found, _) = partition.list_offset(At::Time(time)).await.unwrap();
        assert_eq!(found, Offset(expected), "{time}");
    }
    drop(partition);
    nodes.stop_node(1).await;
    nodes.start_node(1).await;
    let partition = nodes.leading().await;
    check_records(&partition, 200).await;
    let all = partition.trim(Offset(200), deadline()).await.unwrap();
    assert_eq!(all, Offset(200));
    assert!(read(&partition, 200).await.unwrap().is_empty());
    assert_eq!(
        partition.list_offset(At::Time(0)).await.unwrap().0,
        Offset(200)
    );
    let next = append(&partition, batch(&["next"], None)).await.unwrap();
    assert_eq!(next.base_offset, Offset(200));
    assert_eq!(next.log_start_offset, Offset(200));
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_records_go_although_their_file_is_not_full() {
    let settings = TopicSettings {
        retention_ms: Some(80_000),
        ..settings(None)
    };
    let nodes = Nodes::start_with(1, settings).await;
    let partition = nodes.leading().await;
    let at = |time| timed_batch(&["a", "b"], time, None);
    let _placed = append(&partition, at(1_000_000)).await.unwrap();
    assert_eq!(partition.retain(1_009_999).await.unwrap(), None);
    // A tenth of the time is over: the next records go to another file.
    assert_eq!(partition.retain(1_011_000).await.unwrap(), None);
    let _placed = append(&partition, at(1_070_000)).await.unwrap();
    assert_eq!(partition.retain(1_080_001).await.unwrap(), None);
    assert_eq!(partition.retain(1_080_002).await.unwrap(), Some(Offset(2)));
    // All of it, in the end.
    assert_eq!(partition.retain(1_150_002).await.unwrap(), Some(Offset(4)));
    assert_eq!(partition.retain(9_999_999).await.unwrap(), None);
    let next = append(&partition, at(2_000_000)).await.unwrap();
    assert_eq!(next.base_offset, Offset(4));
    nodes.stop().await;
}

/// Waits until a node has applied everything and dropped what the leader has.
async fn caught_up(nodes: &Nodes, number: usize, leader: usize) {
    let (one, other) = (&nodes.running[&number], &nodes.running[&leader]);
    let place = |partition: &Partition| {
        let status = partition.status();
        (status.high_watermark, status.log_start_offset)
    };
    eventually("the replica has caught up", || {
        place(&one.partition) == place(&other.partition)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_begins_at_the_boundary() {
    let mut nodes = Nodes::start_with(3, settings(Some(300 << 10))).await;
    let leader = nodes.leader().await;
    let partition = nodes.running[&leader].partition.clone();
    fill(&partition, 0..40).await;
    let away = leader % 3 + 1;
    nodes.stop_node(away).await;
    for round in 0..5_i64 {
        fill(&partition, 40 + round * 200..240 + round * 200).await;
        let _moved = partition.retain(0).await.unwrap();
    }
    assert!(start(&partition) > 500);
    eventually("the leader purges", || {
        nodes.running[&leader].partition.group().log().first_index() > 100
    })
    .await;
    nodes.start_node(away).await;
    caught_up(&nodes, away, leader).await;
    // It leads, and knows the producers as of then.
    drop(partition);
    nodes.stop_node(leader).await;
    let target = nodes.running[&away].partition.group().key().replica;
    let now = nodes.leader().await;
    if now != away {
        let group = nodes.running[&now].partition.group().clone();
        group.hand_over(target).await.unwrap();
    }
    let now = nodes.leader().await;
    assert_eq!(now, away);
    let partition = nodes.running[&now].partition.clone();
    check_records(&partition, 1040).await;
    remembers(&partition, 1038).await;
    fill(&partition, 1040..1060).await;
    drop(partition);
    nodes.start_node(leader).await;
    caught_up(&nodes, leader, now).await;
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_begins_at_the_boundary_while_the_leader_changes() {
    let mut nodes = Nodes::start_with(3, settings(Some(300 << 10))).await;
    let leader = nodes.leader().await;
    let partition = nodes.running[&leader].partition.clone();
    fill(&partition, 0..1000).await;
    let moved = partition.retain(0).await.unwrap().expect("it moves");
    let lost = leader % 3 + 1;
    nodes.stop_node(lost).await;
    nodes.lose_disk(lost, 4);
    nodes.start_node(lost).await;
    let number = |n: usize| u64::try_from(n).unwrap();
    let other = 6 - leader - lost;
    let voters = [leader, other, 4].map(|id| ReplicaId(number(id)));
    let change = async |group: Group| {
        let _known_already = group.add_learner(ReplicaId(4), NodeId(number(lost))).await;
        let seen = group.status().membership_id;
        group.change_voters(voters.into(), seen, false).await
    };
    let changing = change(partition.group().clone());
    let handing_over = partition.group().hand_over(ReplicaId(number(other)));
    // Either may fail for the other.
    let (changed, handed) = tokio::join!(changing, handing_over);
    drop((changed, handed));
    let mut done = false;
    while !done {
        let now = nodes.leader().await;
        let group = nodes.running[&now].partition.group().clone();
        done = change(group).await.is_ok();
    }
    let now = nodes.leader().await;
    caught_up(&nodes, lost, now).await;
    let fresh = nodes.running[&lost].partition.clone();
    assert!(fresh.group().log().first_index() > 0);
    assert_eq!(start(&fresh), moved.0);
    drop(partition);
    // What the new one has is all there is to go by.
    let group = nodes.running[&now].partition.group().clone();
    eventually("its leader knows that the new one could lead", || {
        let status = group.status();
        let mut members = status.membership.iter();
        members.any(|member| member.replica == ReplicaId(4) && status.can_lead(member))
    })
    .await;
    group.hand_over(ReplicaId(4)).await.unwrap();
    eventually("the new replica leads", || nodes.running[&lost].leads()).await;
    let partition = nodes.leading().await;
    check_records(&partition, 1000).await;
    remembers(&partition, 998).await;
    nodes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_beside_retention_never_get_a_wrong_record() {
    let nodes = Nodes::start_with(3, settings(Some(200 << 10))).await;
    let leader = nodes.leader().await;
    let partition = nodes.running[&leader].partition.clone();
    fill(&partition, 0..100).await;
    let reading = |partition: Partition| async move {
        let mut resets = 0;
        let mut next = 0;
        while next < 2000 {
            match read(&partition, next).await {
                Ok(records) => {
                    for (offset, text) in records.iter().filter(|(at, _)| *at >= next) {
                        assert_eq!(*text, value(*offset));
                    }
                    next = records.last().map_or(next, |(offset, _)| offset + 1);
                    tokio::task::yield_now().await;
                }
                Err(FetchError::OffsetOutOfRange { start, .. }) => {
                    assert!(start.0 > 0);
                    resets += 1;
                    // Once at the end, begin anew: what was read first is being removed.
                    next = start.0;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        resets
    };
    let slow = |partition: Partition| async move {
        let mut resets = 0;
        while *partition.high_watermark().borrow() < Offset(2000) {
            let from = start(&partition);
            match read(&partition, from).await {
                Ok(records) => {
                    assert!(records.iter().all(|(at, text)| *text == value(*at)));
                }
                Err(FetchError::OffsetOutOfRange { .. }) => resets += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        resets
    };
    let mut readers = tokio::task::JoinSet::new();
    let _reader = readers.spawn(reading(partition.clone()));
    for _ in 0..2 {
        let _reader = readers.spawn(slow(partition.clone()));
    }
    for base in (100..2000).step_by(20) {
        fill(&partition, base..base + 20).await;
        let _moved = partition.retain(0).await.unwrap();
    }
    while let Some(reader) = readers.join_next().await {
        let _resets: u32 = reader.unwrap();
    }
    assert!(start(&partition) > 1500);
    check_records(&partition, 2000).await;
    for (number, node) in &nodes.running {
        eventually("every replica purges", || {
            node.partition.status().log_start_offset.0 > 1500
                && nodes.disk_bytes(*number) < 400 << 10
        })
        .await;
    }
    drop(partition);
    nodes.stop().await;
}
