//! Followers that are behind are served at a limited rate, others are not.

use std::time::Duration;

use seriatim_runtime::clock;

use crate::group_tests::{Cluster, propose};

const ALL: [usize; 3] = [0, 1, 2];
const BYTES_PER_S: u64 = 200_000;

/// Cuts a follower off, writes so many bytes, and lets it come back.
async fn with_one_behind(bytes: usize) -> (Cluster, usize, usize) {
    let cluster = Cluster::start_with(1, None, BYTES_PER_S).await;
    let (leader, term) = cluster.leader(0, &ALL).await;
    let behind = (leader + 1) % 3;
    cluster.cut_off(behind);
    let group = cluster.group(leader, 0);
    let count = bytes as u64 / 1000;
    assert_eq!(
        propose(group, term, 0..count, 1000).await.len() as u64,
        count
    );
    (cluster, leader, behind)
}

#[tokio::test]
async fn a_follower_behind_is_slowed_down_and_nobody_else() {
    let (cluster, leader, _behind) = with_one_behind(800_000).await;
    let began = clock::now();
    cluster.heal();
    // The others go on at full speed.
    let (_, term) = cluster.leader(0, &[leader]).await;
    let more = propose(cluster.group(leader, 0), term, 10_000..10_200, 1000).await;
    assert_eq!(more.len(), 200);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(cluster.converged(0, &ALL).await.len(), 1_000);
    // Nearly all of it comes from the disk; the first message goes at once.
    assert!(
        began.elapsed() > Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_follower_without_which_nothing_is_committed_is_not_slowed_down() {
    let (cluster, leader, behind) = with_one_behind(2_000_000).await;
    let other = 3 - leader - behind;
    cluster.cut_off(other);
    let began = clock::now();
    // Only the one that is behind can make a majority with the leader.
    cluster.reconnect(leader, behind);
    let (now, term) = cluster.leader(0, &[leader, behind]).await;
    assert_eq!(now, leader, "only the leader has everything");
    let more = propose(cluster.group(leader, 0), term, 10_000..10_010, 8).await;
    assert_eq!(more.len(), 10);
    // At the limit it would have taken ten seconds.
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    cluster.heal();
    cluster.stop().await;
}
