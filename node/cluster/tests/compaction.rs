//! The metadata log does not grow for ever, and who lacks its old part gets the image instead.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails where it is wrong"
)]

mod common;

use std::collections::BTreeMap;

use common::{Nodes, deadline, eventually, topic};
use futures::{StreamExt as _, stream};
use seriatim_proto::ids::GroupId;
use seriatim_storage::Log;

const LIMIT: u64 = 60_000;
const COMMANDS: u32 = 4_000;

fn log(nodes: &Nodes, node: usize) -> Log {
    let group = nodes.running[&node].consensus.get(GroupId::METADATA);
    group.expect("it takes part").log().clone()
}

/// Sets a setting to many values, one after the other and some at once.
async fn alter(nodes: &Nodes, node: usize) {
    let cluster = nodes.cluster(node);
    let altered = stream::iter(0..COMMANDS).map(|n| async move {
        let value = (1_048_576 + n).to_string();
        let settings = BTreeMap::from([("segment.bytes".to_owned(), value)]);
        cluster
            .alter_topic("t", settings, deadline())
            .await
            .unwrap()
    });
    let _all: Vec<_> = altered.buffer_unordered(64).collect().await;
    let last = BTreeMap::from([("segment.bytes".to_owned(), "2000000".to_owned())]);
    let _settings = cluster.alter_topic("t", last, deadline()).await.unwrap();
}

/// Waits until a node knows the last value.
async fn knows(nodes: &Nodes, node: usize) {
    let cluster = nodes.cluster(node);
    eventually(&format!("node {node} knows the image"), || {
        let image = cluster.image();
        let topic = image.topics.get("t");
        topic.is_some_and(|topic| topic.settings.segment_bytes == 2_000_000)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_commands_go_and_nodes_without_them_get_the_image() {
    let mut nodes = Nodes::new(4);
    nodes.metadata_log_bytes = Some(LIMIT);
    for node in 1..=3 {
        nodes.start(node).await;
    }
    let created = nodes.cluster(1).create_topic(topic("t", 2, 3), deadline());
    let _topic = created.await.unwrap();
    nodes.settled("t", 2).await;
    nodes.stop(3).await;
    alter(&nodes, 1).await;
    for node in 1..=2 {
        let log = log(&nodes, node);
        eventually("the metadata log gets short", || {
            log.first_index() > 0 && log.size_bytes() < LIMIT + 100_000
        })
        .await;
    }
    // One that was away, and one that is new.
    nodes.start(3).await;
    nodes.start(4).await;
    for node in 1..=4 {
        knows(&nodes, node).await;
    }
    // The image is there a moment before the log begins anew.
    let fresh = log(&nodes, 4);
    eventually("the new log begins behind the image", || {
        fresh.first_index() > 0
    })
    .await;
    // All of them come back with what they have.
    nodes.stop_all().await;
    nodes.start_all().await;
    for node in 1..=4 {
        knows(&nodes, node).await;
    }
    let again = nodes.cluster(4).create_topic(topic("u", 1, 3), deadline());
    let _topic = again.await.unwrap();
    nodes.stop_all().await;
}
