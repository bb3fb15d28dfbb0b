//! A leader that has been replaced reads nothing on the strength of old answers.

use crate::group_tests::{Cluster, Jam, command, eventually, node_id, propose};

/// What seed 4922 found, step by step.
#[tokio::test]
async fn answers_that_were_held_up_confirm_no_leader() {
    let cluster = Cluster::start(1).await;
    let (old, term) = cluster.leader(0, &[0, 1, 2]).await;
    let group = cluster.group(old, 0);
    assert_eq!(propose(group, term, 0..5, 100).await.len(), 5);
    let before = cluster.converged(0, &[0, 1, 2]).await;
    let others: Vec<usize> = (0..3).filter(|at| *at != old).collect();
    let jam = |at: usize, from: &[usize], requests, answers| {
        let from = from.iter().map(|at| node_id(*at)).collect();
        let jam = Jam {
            from,
            requests,
            answers,
        };
        cluster.jam(at, jam);
    };

    // The last entry of the old leader reaches the others, and their answers wait.
    let first = group.log().last_log_id();
    others.iter().for_each(|at| jam(*at, &[old], false, true));
    let _last = group.submit(command(5, 100), term).await.unwrap();
    eventually("the others have its last entry", || {
        let last = group.log().last_log_id();
        let has = |at: &usize| cluster.group(*at, 0).log().last_log_id() == last;
        last > first && others.iter().all(has)
    })
    .await;
    others.iter().for_each(|at| jam(*at, &[old], true, true));
    jam(old, &others, true, false);
    assert_eq!(cluster.machine(old, 0).values(), before);

    // Another one is elected and goes on.
    let (new, new_term) = cluster.leader(0, &others).await;
    let acked = propose(cluster.group(new, 0), new_term, 6..7, 100).await;
    assert_eq!(acked.len(), 1);

    // While the old leader is asked, the answers come through: the first commits that entry, which the old leader
    // tells the others; the second is as old.
    let late = async {
        jam(others[0], &[old], true, false);
        eventually("its last entry is committed", || {
            cluster.machine(old, 0).values().len() > before.len()
        })
        .await;
        let lost = cluster.lost(others[1]);
        eventually("it tells of the commit", || {
            cluster.lost(others[1]) > lost + 1
        })
        .await;
        jam(others[1], &[old], true, false);
    };
    let (confirmed, ()) = tokio::join!(group.read_barrier(), late);
    let values = cluster.machine(old, 0).values();
    assert!(confirmed.is_err(), "it reads {values:?} without 6");
    cluster.stop().await;
}
