//! Nodes that leave, for good or for a restart.

use std::time::Duration;

use seriatim_cluster::{ClusterError, Refusal};
use seriatim_consensus::Role;
use seriatim_proto::ids::{NodeId, TopicPartition};
use seriatim_runtime::{clock, net::Net};

use crate::{
    common::{Node, Nodes, PATIENCE, deadline, eventually},
    moves::{moved, with_topic},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_decommissioned_and_forgotten() {
    let mut nodes = with_topic(4, 6, 3).await;
    // The hardest one: it leads the metadata group and votes in it.
    let gone = nodes.controller().await;
    let id = NodeId(u64::try_from(gone).unwrap());
    let other = (1..=4).find(|node| *node != gone).unwrap();
    let cluster = nodes.cluster(other).clone();
    cluster.decommission(id, false, deadline()).await.unwrap();
    cluster.decommission(id, false, deadline()).await.unwrap();
    eventually("the node is safe to stop", || {
        let image = cluster.image();
        let node = image.node(id).unwrap();
        node.leaving && !node.voter && !image.holds_replicas(id)
    })
    .await;
    moved(&nodes).await;
    let voters = cluster
        .image()
        .nodes
        .values()
        .filter(|node| node.voter)
        .count();
    assert_eq!(voters, 3);
    let left = &nodes.running[&gone];
    eventually("its logs are gone", || {
        left.storage.logs().iter().all(|key| key.group.0 == 0)
    })
    .await;
    let last = cluster.decommission(NodeId(u64::try_from(other).unwrap()), false, deadline());
    let refused = last.await.unwrap_err();
    let lacking = Refusal::NotEnoughNodes { wanted: 3, have: 2 };
    assert!(
        matches!(&refused, ClusterError::Refused(it) if *it == lacking),
        "{refused}"
    );
    nodes.stop(gone).await;
    eventually("the node is forgotten", || {
        cluster.image().node(id).is_none()
    })
    .await;

    // It does not come back by accident; with an empty folder it joins anew.
    let started = Node::start(
        nodes.dirs[gone - 1].path(),
        nodes.options(gone),
        Net::tokio(),
    )
    .await
    .unwrap();
    let failed = clock::timeout(PATIENCE, started.cluster.failed())
        .await
        .unwrap();
    assert!(failed.to_string().contains("decommissioned"), "{failed}");
    started.stop().await;
    nodes.dirs[gone - 1] = tempfile::TempDir::new().unwrap();
    nodes.start(gone).await;
    nodes.ready(gone).await;
    assert!(!cluster.image().node(id).unwrap().leaving);
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_stay_after_all() {
    let mut nodes = with_topic(4, 4, 3).await;
    let cluster = nodes.cluster(1).clone();
    cluster
        .decommission(NodeId(2), false, deadline())
        .await
        .unwrap();
    cluster
        .decommission(NodeId(2), true, deadline())
        .await
        .unwrap();
    moved(&nodes).await;
    let image = cluster.image();
    assert!(!image.node(NodeId(2)).unwrap().leaving);
    let unknown = cluster
        .decommission(NodeId(9), false, deadline())
        .await
        .unwrap_err();
    assert!(
        matches!(unknown, ClusterError::Refused(Refusal::UnknownNode { .. })),
        "{unknown}"
    );
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_come_and_go_with_the_nodes() {
    let mut nodes = Nodes::new(5);
    nodes.start_all().await;
    let cluster = nodes.cluster(5).clone();
    let voters = |count: usize| {
        let nodes = &cluster.image().nodes;
        nodes.values().filter(|node| node.voter).count() == count
    };
    eventually("five nodes vote", || voters(5)).await;
    cluster
        .decommission(NodeId(1), false, deadline())
        .await
        .unwrap();
    eventually("three nodes vote", || voters(3)).await;
    nodes.stop(1).await;
    eventually("node 1 is forgotten", || {
        cluster.image().node(NodeId(1)).is_none()
    })
    .await;
    // The first seed is gone for good; the others restart without it.
    nodes.stop(2).await;
    nodes.start(2).await;
    nodes.ready(2).await;
    nodes.stop_all().await;
}

fn led(node: &Node) -> usize {
    let replicas = node.cluster.local_replicas();
    let groups = replicas.iter().filter_map(|replica| replica.group.as_ref());
    groups
        .filter(|group| group.state().borrow().role == Role::Leader)
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaderships_are_handed_over_and_come_back() {
    let mut nodes = Nodes::new(3);
    nodes.leader_balance = Duration::from_millis(300);
    nodes.start_all().await;
    let created = nodes
        .cluster(1)
        .create_topic(crate::common::topic("t", 30, 3), deadline());
    let _created = created.await.unwrap();
    nodes.settled("t", 30).await;
    let even = |nodes: &Nodes| nodes.running.values().all(|node| led(node) == 10);
    eventually("leaders are where they are preferred", || even(&nodes)).await;

    let begin = clock::now();
    let left = nodes.cluster(1).hand_over(deadline()).await;
    println!("handed over in {:?}", clock::now() - begin);
    assert_eq!((left, led(&nodes.running[&1])), (0, 0));
    for number in 0..30 {
        let tp = TopicPartition::new("t", number);
        for node in [2, 3] {
            let cluster = nodes.cluster(node);
            eventually("the others know who leads", || {
                cluster
                    .leader(&tp)
                    .is_some_and(|leader| leader.node != NodeId(1))
            })
            .await;
        }
    }
    nodes.stop(1).await;
    nodes.start(1).await;
    eventually("its leaderships have come back", || even(&nodes)).await;
    nodes.stop_all().await;
}
