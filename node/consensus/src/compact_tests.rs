//! Logs that get shorter: by themselves, beside followers that are away or stuck, and on restart.

use std::{sync::atomic::Ordering, time::Duration};

use seriatim_runtime::clock;

use crate::{
    StateMachine as _,
    group_tests::{Cluster, eventually, propose},
    parts,
};

const ALL: [usize; 3] = [0, 1, 2];

#[tokio::test]
async fn a_group_that_is_all_state_drops_its_log_and_a_follower_that_was_away_gets_the_state() {
    const LIMIT: Option<u64> = Some(200_000);
    let mut cluster = Cluster::start_with(1, LIMIT, 0).await;
    let (leader, term) = cluster.leader(0, &ALL).await;
    let away = (leader + 1) % 3;
    cluster.cut_off(away);
    let mut written = 0;
    // Several times over: what was dropped is not counted again.
    for _ in 0..3 {
        let group = cluster.group(leader, 0);
        let numbers = written..written + 1_000;
        assert_eq!(propose(group, term, numbers, 300).await.len(), 1_000);
        written += 1_000;
        for at in ALL.into_iter().filter(|at| *at != away) {
            let log = cluster.group(at, 0).log();
            eventually("the log gets short", || log.size_bytes() < 320_000).await;
            assert!(log.first_index() > 0);
        }
    }
    cluster.heal();
    let applied = cluster.converged(0, &ALL).await;
    assert_eq!(applied, (0..written).collect::<Vec<_>>());
    assert!(cluster.machine(away, 0).installed.load(Ordering::Relaxed) > 0);
    // Machines that remember nothing begin with the snapshot.
    cluster.reopen(LIMIT).await;
    let (leader, term) = cluster.leader(0, &ALL).await;
    let more = written..written + 10;
    assert_eq!(
        propose(cluster.group(leader, 0), term, more, 8).await.len(),
        10
    );
    let applied = cluster.converged(0, &ALL).await;
    assert_eq!(applied, (0..written + 10).collect::<Vec<_>>());
    cluster.stop().await;
}

#[tokio::test]
async fn a_snapshot_of_many_parts_arrives_whole() {
    let cluster = Cluster::start(1).await;
    let (leader, term) = cluster.leader(0, &ALL).await;
    let away = (leader + 1) % 3;
    cluster.cut_off(away);
    let group = cluster.group(leader, 0);
    let bytes = 100_000;
    let count = 2 * parts::PART_BYTES as u64 / 100_000 + 10;
    assert_eq!(
        propose(group, term, 0..count, bytes).await.len() as u64,
        count
    );
    group
        .compact(group.status().applied.unwrap())
        .await
        .unwrap();
    let boundary = group.log().boundary().await.unwrap().unwrap();
    assert!(boundary.state.len() > 2 * parts::PART_BYTES);
    cluster.heal();
    let applied = cluster.converged(0, &ALL).await;
    assert_eq!(applied, (0..count).collect::<Vec<_>>());
    assert_eq!(
        cluster.machine(away, 0).installed.load(Ordering::Relaxed),
        1
    );
    let received = cluster.group(away, 0).log().boundary().await.unwrap();
    assert_eq!(received, Some(boundary));
    cluster.stop().await;
}

#[tokio::test]
async fn a_follower_whose_disk_hangs_does_not_keep_the_log() {
    let cluster = Cluster::start(1).await;
    let (leader, term) = cluster.leader(0, &ALL).await;
    let stuck = (leader + 1) % 3;
    let group = cluster.group(leader, 0);
    assert_eq!(propose(group, term, 0..20, 300).await.len(), 20);
    let _same = cluster.converged(0, &ALL).await;
    // It answers, but no append to it is ever done.
    cluster.nodes[stuck]
        .disk
        .set_sync_time(Duration::from_secs(15));
    assert_eq!(propose(group, term, 20..400, 300).await.len(), 380);
    let upto = group.status().applied.unwrap();
    let began = clock::now();
    group.compact(upto).await.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "it waited for the disk"
    );
    assert_eq!(group.log().purged_log_id(), Some(upto));
    cluster.nodes[stuck].disk.set_sync_time(Duration::ZERO);
    let (leader, term) = cluster.leader(0, &ALL).await;
    let more = propose(cluster.group(leader, 0), term, 400..420, 300).await;
    assert_eq!(more.len(), 20);
    let applied = cluster.converged(0, &ALL).await;
    assert_eq!(applied, (0..420).collect::<Vec<_>>());
    cluster.stop().await;
}

#[tokio::test]
async fn a_state_that_is_kept_never_runs_ahead_of_its_own_log() {
    let cluster = Cluster::start_with(1, Some(1 << 30), 0).await;
    let (leader, term) = cluster.leader(0, &ALL).await;
    let slow = (leader + 1) % 3;
    assert_eq!(
        propose(cluster.group(leader, 0), term, 0..20, 8)
            .await
            .len(),
        20
    );
    let _same = cluster.converged(0, &ALL).await;
    cluster.nodes[slow]
        .disk
        .set_sync_time(Duration::from_millis(700));
    let (log, mut ahead) = (cluster.group(slow, 0).log(), 0);
    for round in 1..=5 {
        let values = round * 20..round * 20 + 20;
        let done = propose(cluster.group(leader, 0), term, values, 8).await;
        assert_eq!(done.len(), 20, "the others commit without it");
        let last = cluster.group(leader, 0).status().applied;
        eventually("it hears of what is committed", || log.committed() >= last).await;
        let flushed = log.flushed_index();
        let state = cluster.machine(slow, 0).applied_state().unwrap();
        let applied = state.log_id.map(|id| id.index);
        // The other way round it may have been flushed since.
        assert!(applied <= log.flushed_index(), "{applied:?}");
        ahead += u64::from(last.map(|id| id.index) > flushed);
    }
    assert!(ahead > 0, "its disk was never slower than the others");
    cluster.nodes[slow].disk.set_sync_time(Duration::ZERO);
    let applied = cluster.converged(0, &ALL).await;
    assert_eq!(applied, (0..120).collect::<Vec<_>>());
    cluster.stop().await;
}
