//! Leadership is handed over, or the next attempt can be made.

use std::sync::atomic::Ordering;

use seriatim_proto::ids::ReplicaId;

use crate::group_tests::{Cluster, node_id};

const ALL: [usize; 3] = [0, 1, 2];

/// Found by seed 3345 of the simulator: whoever waits for a handover may give up, and must not leave
/// the group one that is never over.
#[tokio::test]
async fn a_handover_that_nobody_waits_for_any_more_is_over() {
    let cluster = Cluster::start(1).await;
    let (leader, term) = cluster.leader(0, &ALL).await;
    let group = cluster.group(leader, 0);
    let under_way = || group.handing_over_in().load(Ordering::Acquire);
    {
        let to = ReplicaId(node_id((leader + 1) % 3).0);
        let mut handing = std::pin::pin!(group.hand_over(to));
        assert!(futures::poll!(handing.as_mut()).is_pending());
        assert_eq!(under_way(), term);
    }
    assert_eq!(under_way(), 0);
    // From whoever leads now, to each in turn.
    for _round in 0..3 {
        let (leader, _term) = cluster.leader(0, &ALL).await;
        let to = ReplicaId(node_id((leader + 1) % 3).0);
        let mut handed = cluster.group(leader, 0).hand_over(to).await;
        while handed.is_err() {
            let (leader, _term) = cluster.leader(0, &ALL).await;
            let to = ReplicaId(node_id((leader + 1) % 3).0);
            handed = cluster.group(leader, 0).hand_over(to).await;
        }
    }
    cluster.stop().await;
}
