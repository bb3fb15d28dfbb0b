//! The cluster layer as a whole: nodes of one process over loopback with real files.

mod common;
#[path = "parts/leaving.rs"]
mod leaving;
#[path = "parts/moves.rs"]
mod moves;

use std::{collections::BTreeMap, time::Duration};

use common::{Nodes, deadline, eventually, topic};
use moves::with_topic;
use seriatim_cluster::{ClusterError, GROUPS_PARTITIONS, GROUPS_TOPIC, Refusal};
use seriatim_proto::ids::{GroupId, NodeId, TopicPartition};
use seriatim_runtime::{clock, net::Net};
use seriatim_storage::LogKey;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_a_cluster() {
    let mut nodes = Nodes::new(3);
    let begin = clock::now();
    nodes.start_all().await;
    let created = nodes
        .cluster(2)
        .create_topic(topic("t", 6, 3), deadline())
        .await
        .unwrap();
    assert_eq!(created.partitions.len(), 6);
    assert!(nodes.cluster(2).wait_for_leaders("t", deadline()).await);
    let took = clock::now() - begin;
    assert!(took < Duration::from_secs(10), "{took:?}");
    nodes.settled("t", 6).await;
    let ids: Vec<String> = (1..=3)
        .map(|node| nodes.cluster(node).image().cluster_id.clone())
        .collect();
    assert!(
        !ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]),
        "{ids:?}"
    );
    for partition in 0..6 {
        let tp = TopicPartition::new("t", partition);
        let leaders: Vec<_> = (1..=3)
            .map(|node| nodes.cluster(node).leader(&tp))
            .collect();
        assert!(
            leaders.iter().all(|leader| *leader == leaders[0]),
            "{leaders:?}"
        );
    }
    nodes.stop_all().await;
}

/// Asked for before anybody is ready: the topic has as many replicas as on a settled cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_may_be_created_while_the_cluster_forms() {
    let mut nodes = Nodes::new(3);
    for node in 1..=3 {
        nodes.start(node).await;
    }
    let creating = (1..=3).map(|node| {
        let cluster = nodes.cluster(node);
        let (default, three) = (format!("default{node}"), format!("three{node}"));
        async move {
            let default = cluster.create_topic(topic(&default, 1, 0), deadline());
            let three = cluster.create_topic(topic(&three, 1, 3), deadline());
            let (default, three) = tokio::join!(default, three);
            [default, three].map(|created| created.map(|topic| topic.replication_factor))
        }
    });
    for created in futures::future::join_all(creating).await {
        assert_eq!(created.map(Result::unwrap), [3, 3]);
    }
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_seed_founds_alone() {
    let mut nodes = Nodes::new(1);
    nodes.start_all().await;
    let created = nodes
        .cluster(1)
        .create_topic(topic("t", 0, 0), deadline())
        .await
        .unwrap();
    assert_eq!(
        (created.partitions.len(), created.replication_factor),
        (1, 1)
    );
    assert!(nodes.cluster(1).wait_for_leaders("t", deadline()).await);
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_typed() {
    let mut nodes = Nodes::new(1);
    nodes.start_all().await;
    let cluster = nodes.cluster(1);
    let _ = cluster
        .create_topic(topic("a.b", 1, 1), deadline())
        .await
        .unwrap();
    let error = cluster
        .create_topic(topic("a.b", 1, 1), deadline())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClusterError::Refused(Refusal::TopicExists { .. })),
        "{error}"
    );
    let error = cluster
        .create_topic(topic("a_b", 1, 1), deadline())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClusterError::Refused(Refusal::NameCollision { .. })),
        "{error}"
    );
    let error = cluster
        .create_topic(topic("c", 1, 2), deadline())
        .await
        .unwrap_err();
    let lacking = Refusal::NotEnoughNodes { wanted: 2, have: 1 };
    assert!(
        matches!(&error, ClusterError::Refused(refusal) if *refusal == lacking),
        "{error}"
    );
    let error = cluster
        .create_topic(topic("a b", 1, 1), deadline())
        .await
        .unwrap_err();
    assert!(matches!(error, ClusterError::TopicName(_)), "{error}");
    let error = cluster
        .delete_topic("nothing", deadline())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClusterError::Refused(Refusal::UnknownTopic { .. })),
        "{error}"
    );
    let mut check = topic("only-checked", 1, 1);
    check.validate_only = true;
    let _ = cluster.create_topic(check, deadline()).await.unwrap();
    assert!(!cluster.image().topics.contains_key("only-checked"));
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_everything_again() {
    let mut nodes = Nodes::new(3);
    nodes.start_all().await;
    let _ = nodes
        .cluster(1)
        .create_topic(topic("t", 12, 3), deadline())
        .await
        .unwrap();
    nodes.settled("t", 12).await;
    let before = nodes.cluster(1).image();
    let first = nodes
        .cluster(1)
        .allocate_producer_id(deadline())
        .await
        .unwrap();
    nodes.stop_all().await;
    nodes.start_all().await;
    nodes.settled("t", 12).await;
    let after = nodes.cluster(2).image();
    assert_eq!(after.cluster_id, before.cluster_id);
    assert_eq!(after.topics, before.topics);
    let second = nodes
        .cluster(1)
        .allocate_producer_id(deadline())
        .await
        .unwrap();
    assert!(second > first, "{second} after {first}");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_topics_leave_nothing_behind() {
    let mut nodes = Nodes::new(3);
    nodes.start_all().await;
    let _ = nodes
        .cluster(1)
        .create_topic(topic("t", 4, 3), deadline())
        .await
        .unwrap();
    nodes.settled("t", 4).await;
    nodes.stop(3).await;
    nodes
        .cluster(2)
        .delete_topic("t", deadline())
        .await
        .unwrap();
    // Node 3 hears of it when it is back.
    nodes.start(3).await;
    for (number, node) in &nodes.running {
        eventually(&format!("node {number} is empty"), || {
            node.cluster.local_replicas().is_empty()
                && node.storage.logs().iter().all(|key| key.group.0 == 0)
        })
        .await;
    }
    let _ = nodes
        .cluster(3)
        .create_topic(topic("t", 2, 3), deadline())
        .await
        .unwrap();
    nodes.settled("t", 2).await;
    nodes.stop_all().await;
}

/// Seeds 56 and 299 of the simulator: the node that is asked for the deletion has not heard yet that
/// the topic was deleted and created anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_behind_deletes_the_topic_that_there_is() {
    let mut nodes = Nodes::new(3);
    nodes.start_all().await;
    let create = topic("t", 1, 1);
    let first = nodes.cluster(1).create_topic(create.clone(), deadline());
    let first = first.await.unwrap().id.clone();
    let known = |nodes: &Nodes| Some(nodes.cluster(3).image().topics.get("t")?.id.clone());
    eventually("node 3 knows it", || known(&nodes) == Some(first.clone())).await;
    nodes.stop(3).await;
    nodes
        .cluster(1)
        .delete_topic("t", deadline())
        .await
        .unwrap();
    let _second = nodes
        .cluster(1)
        .create_topic(create, deadline())
        .await
        .unwrap();
    nodes.start(3).await;
    assert_eq!(known(&nodes), Some(first), "it is not behind");
    let deleted = nodes.cluster(3).delete_topic("t", deadline()).await;
    assert!(deleted.is_ok(), "{deleted:?}");
    eventually("it is gone", || known(&nodes).is_none()).await;
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_settings_reach_open_partitions() {
    let mut nodes = Nodes::new(3);
    nodes.start_all().await;
    let _ = nodes
        .cluster(1)
        .create_topic(topic("t", 2, 3), deadline())
        .await
        .unwrap();
    nodes.settled("t", 2).await;
    let change = BTreeMap::from([("segment.bytes".to_owned(), "1048576".to_owned())]);
    let settings = nodes
        .cluster(3)
        .alter_topic("t", change, deadline())
        .await
        .unwrap();
    assert_eq!(settings.segment_bytes, 1 << 20);
    let tp = TopicPartition::new("t", 1);
    for node in nodes.running.values() {
        eventually("the partition has the setting", || {
            let partition = node.cluster.partition(&tp);
            partition.is_some_and(|partition| partition.settings().segment_bytes == 1 << 20)
        })
        .await;
    }
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_cluster_is_refused() {
    let mut other = Nodes::new(1);
    other.start_all().await;
    other.stop_all().await;
    let mut nodes = Nodes::new(3);
    nodes.start_all().await;
    nodes.stop(3).await;
    // The other cluster's folder under the name of node 3.
    let mut options = nodes.options(3);
    options.node_id = other.options(1).node_id;
    let node = common::Node::start(other.dirs[0].path(), options, Net::tokio())
        .await
        .unwrap();
    let refused = tokio::time::timeout(common::PATIENCE, node.cluster.failed())
        .await
        .unwrap();
    assert!(
        matches!(refused, ClusterError::WrongCluster { .. }),
        "{refused}"
    );
    node.stop().await;
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_folder_is_rebuilt_under_new_replica_ids() {
    let mut nodes = with_topic(3, 3, 3).await;
    let before = nodes.cluster(1).image();
    nodes.stop(3).await;
    nodes.dirs[2] = tempfile::TempDir::new().unwrap();
    nodes.start(3).await;
    let cluster = nodes.cluster(3);
    eventually("the replicas are new", || {
        let replicas = cluster.local_replicas();
        let reused = replicas
            .iter()
            .find(|replica| replica.key.replica.0 < before.next_replica);
        assert!(reused.is_none(), "opened again without its log: {reused:?}");
        replicas.len() == 3
    })
    .await;
    nodes.ready(3).await;
    nodes.settled("t", 3).await;
    for (_, number, partition) in cluster.image().partitions() {
        let old = before.topics["t"].partition(number).unwrap();
        let id = |partition: &seriatim_cluster::PartitionInfo| {
            partition.replica_on(cluster.node_id()).unwrap().id
        };
        assert!(id(partition).0 >= before.next_replica);
        assert_ne!(id(partition), id(old));
    }
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metadata_log_that_is_found_damaged_is_rebuilt_under_a_new_replica_id() {
    let mut nodes = with_topic(3, 3, 3).await;
    let replica = |nodes: &Nodes| nodes.cluster(1).image().nodes[&NodeId(3)].controller_replica;
    let old = replica(&nodes);
    nodes.stop(3).await;
    let data = nodes.dirs[2].path().to_owned();
    let log = LogKey {
        group: GroupId::METADATA,
        replica: old,
    };
    let files = || std::fs::read_dir(data.join("logs").join(log.to_string()));
    let segments = files().unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        path.extension()
            .is_some_and(|end| end == "seg")
            .then_some(path)
    });
    for segment in segments {
        std::fs::remove_file(segment).unwrap();
    }
    nodes.start(3).await;
    nodes.ready(3).await;
    eventually("the new replica is known", || replica(&nodes) > old).await;
    assert!(files().is_err(), "the damaged log is set aside");
    nodes.settled("t", 3).await;
    let created = nodes.cluster(3).create_topic(topic("u", 1, 3), deadline());
    assert_eq!(created.await.unwrap().partitions.len(), 1);
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_survives_the_loss_of_the_controller() {
    let mut nodes = Nodes::new(3);
    nodes.start_all().await;
    let controller = nodes.controller().await;
    let asked = (1..=3).find(|node| *node != controller).unwrap();
    let cluster = nodes.cluster(asked).clone();
    let creating = seriatim_runtime::task::spawn("create", async move {
        let mut names = Vec::new();
        for number in 0..20 {
            let name = format!("t{number}");
            let created = cluster.create_topic(topic(&name, 2, 2), deadline()).await;
            names.push(created.unwrap().name.clone());
        }
        names
    });
    nodes.stop(controller).await;
    let names = creating.await.unwrap();
    assert_eq!(names.len(), 20);
    let image = nodes.cluster(asked).image();
    assert!(names.iter().all(|name| image.topics.contains_key(name)));
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_node_learns_the_image_and_gets_partitions() {
    let mut nodes = Nodes::new(4);
    nodes.start_all().await;
    let created = nodes
        .cluster(4)
        .create_topic(topic("t", 4, 4), deadline())
        .await
        .unwrap();
    assert!(
        created
            .partitions
            .iter()
            .all(|partition| partition.replicas.len() == 4)
    );
    nodes.settled("t", 4).await;
    let image = nodes.cluster(4).image();
    let voters: Vec<u64> = image
        .nodes
        .values()
        .filter(|node| node.voter)
        .map(|node| node.id.0)
        .collect();
    assert_eq!(voters, [1, 2, 3]);
    nodes.stop(4).await;
    let _ = nodes
        .cluster(1)
        .create_topic(topic("u", 1, 1), deadline())
        .await
        .unwrap();
    nodes.start(4).await;
    let mut image = nodes.cluster(4).watch_image();
    let heard = image.wait_for(|image| image.topics.contains_key("u"));
    let _ = tokio::time::timeout(common::PATIENCE, heard)
        .await
        .unwrap()
        .unwrap();
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_partitions() {
    let mut nodes = Nodes::new(3);
    nodes.start_all().await;
    let begin = clock::now();
    let _ = nodes
        .cluster(1)
        .create_topic(topic("t", 1000, 3), deadline())
        .await
        .unwrap();
    assert!(nodes.cluster(1).wait_for_leaders("t", deadline()).await);
    println!("created and led in {:?}", clock::now() - begin);
    nodes.settled("t", 1000).await;
    let begin = clock::now();
    nodes.stop_all().await;
    println!("stopped in {:?}", clock::now() - begin);
    let begin = clock::now();
    nodes.start_all().await;
    nodes.settled("t", 1000).await;
    println!("led again in {:?}", clock::now() - begin);
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_ask_for_the_internal_topic_at_once_get_the_same() {
    let mut nodes = Nodes::new(3);
    nodes.start_all().await;
    let asked = (1..=3).map(|node| nodes.cluster(node).groups_topic(deadline()));
    let topics = futures::future::try_join_all(asked).await.unwrap();
    for topic in &topics {
        assert_eq!(topic.id, topics[0].id);
        assert_eq!(topic.partitions, topics[0].partitions);
    }
    assert_eq!(topics[0].name, GROUPS_TOPIC);
    let partitions = u32::try_from(topics[0].partitions.len());
    assert_eq!(partitions, Ok(GROUPS_PARTITIONS));
    assert_eq!(topics[0].replication_factor, 3);
    let again = nodes.cluster(2).groups_topic(deadline()).await.unwrap();
    assert_eq!(again.id, topics[0].id);
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_neither_create_nor_change_internal_topics() {
    let mut nodes = Nodes::new(1);
    nodes.start_all().await;
    let cluster = nodes.cluster(1);
    let created = cluster.create_topic(topic("__mine", 1, 1), deadline());
    let internal = |error| matches!(error, ClusterError::InternalTopic { .. });
    assert!(internal(created.await.unwrap_err()));
    let _topic = cluster.groups_topic(deadline()).await.unwrap();
    let deleted = cluster.delete_topic(GROUPS_TOPIC, deadline()).await;
    assert!(internal(deleted.unwrap_err()));
    let settings = [("durability".to_owned(), "os".to_owned())].into();
    let altered = cluster
        .alter_topic(GROUPS_TOPIC, settings, deadline())
        .await;
    assert!(internal(altered.unwrap_err()));
    assert!(cluster.image().topics.contains_key(GROUPS_TOPIC));
    nodes.stop_all().await;
}
