//! Three nodes of one process over loopback, real files: storage, lane, consensus, cluster, groups.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

use std::{net::TcpListener, path::Path, sync::Arc, time::Duration};

use seriatim_cluster::{
    Cluster, ClusterOptions, CreateTopic, GROUPS_PARTITIONS, GROUPS_TOPIC, LocalState,
};
use seriatim_consensus::{Consensus, ConsensusOptions, Lane, Role};
use seriatim_groups::{GroupOptions, Groups, MemberStream, shard_of};
use seriatim_proto::{
    ids::{NodeId, TopicPartition},
    v1,
};
use seriatim_runtime::{
    clock::{self, Instant},
    mark,
    net::Net,
    task::TaskGroup,
};
use seriatim_storage::{Storage, StorageOptions, disk::PosixDisk};
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;
use v1::{member_request::Request, member_response::Response};

const PATIENCE: Duration = Duration::from_secs(120);

/// Small, so that a test can fill it.
const LOG_BYTES: u64 = 1 << 20;

const GROUP: &str = "group";

fn deadline() -> Instant {
    clock::now() + PATIENCE
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = deadline();
    while !condition() {
        assert!(clock::now() < deadline, "not in time: {what}");
        clock::sleep(Duration::from_millis(10)).await;
    }
}

struct Node {
    cluster: Cluster,
    groups: Groups,
    storage: Storage,
    consensus: Consensus,
    tasks: TaskGroup,
}

impl Node {
    async fn start(dir: &Path, id: u64, addresses: &[String]) -> Self {
        Self::start_at(dir, id, addresses, format!("127.0.0.1:{id}")).await
    }

    /// With its native API at this address.
    async fn start_at(dir: &Path, id: u64, addresses: &[String], grpc_addr: String) -> Self {
        let tasks = TaskGroup::new();
        let storage = Storage::open(Arc::new(PosixDisk), dir, StorageOptions::default()).unwrap();
        let address = addresses[usize::try_from(id).unwrap() - 1].clone();
        let of_lane = storage.clone();
        let cluster_id = move || of_lane.identity().read().ok().flatten()?.cluster_id;
        let node_id = NodeId(id);
        let lane = Lane::start(Net::tokio(), &address, node_id, cluster_id, tasks.clone());
        let lane = lane.await.unwrap();
        let options = ConsensusOptions {
            node_id,
            ..ConsensusOptions::default()
        };
        let consensus = Consensus::new(options, storage.clone(), lane.clone());
        let options = GroupOptions {
            log_bytes: LOG_BYTES,
            ..GroupOptions::default()
        };
        let groups = Groups::new(storage.clone(), options);
        let options = ClusterOptions {
            node_id,
            seeds: addresses.to_vec(),
            replication_addr: address,
            grpc_addr,
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(
            options,
            storage.clone(),
            consensus.clone(),
            lane,
            groups.host(),
            tasks.clone(),
        );
        let cluster = cluster.await.unwrap();
        groups.attach(&cluster);
        Self {
            cluster,
            groups,
            storage,
            consensus,
            tasks,
        }
    }

    async fn stop(self) {
        self.cluster.shutdown().await;
        self.consensus.shutdown().await;
        assert!(self.tasks.shutdown(PATIENCE).await, "tasks ended in time");
        self.storage.shutdown().await;
    }

    /// This node's replica of a shard.
    fn shard(&self, tp: &TopicPartition) -> Option<seriatim_consensus::Group> {
        let mut replicas = self.cluster.local_replicas().into_iter();
        let found = replicas.find(|replica| replica.tp == *tp)?;
        found.group.filter(|_| found.state == LocalState::Running)
    }
}

fn commit(group: &str, offset: i64) -> v1::CommitOffsetsRequest {
    let at = |partition| v1::OffsetCommit {
        topic: "t".to_owned(),
        partition,
        offset,
        metadata: "m".repeat(4_000),
        allow_back: false,
    };
    v1::CommitOffsetsRequest {
        group: group.to_owned(),
        offsets: (0..4).map(at).collect(),
        ..v1::CommitOffsetsRequest::default()
    }
}

async fn offsets(groups: &Groups, group: &str) -> Result<Vec<Option<i64>>, v1::Error> {
    let request = v1::FetchOffsetsRequest {
        group: group.to_owned(),
        partitions: Vec::new(),
    };
    let fetched = groups.fetch_offsets(request, deadline()).await?;
    Ok(fetched.into_iter().map(|at| at.offset).collect())
}

/// Has this node's replica of the shard lead, and waits until it serves.
async fn lead(nodes: &[Node], at: usize, tp: &TopicPartition, group: &str) {
    let deadline = deadline();
    while offsets(&nodes[at].groups, group).await.is_err() {
        assert!(clock::now() < deadline, "node {at} does not lead in time");
        let to = nodes[at].shard(tp).map(|shard| shard.key().replica);
        let mut shards = nodes.iter().filter_map(|node| node.shard(tp));
        let leader = shards.find(|shard| shard.state().borrow().role == Role::Leader);
        if let (Some(leader), Some(to)) = (leader, to) {
            // Refused until that replica has caught up.
            let _handed = leader.hand_over(to).await;
        }
        clock::sleep(Duration::from_millis(100)).await;
    }
}

/// Three nodes with their folders, and the shard of [`GROUP`], which node 1 leads.
async fn three_nodes() -> (Vec<TempDir>, Vec<String>, Vec<Node>, TopicPartition) {
    let listeners: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addresses: Vec<String> = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().to_string())
        .collect();
    drop(listeners);
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let mut nodes = Vec::new();
    for (id, dir) in (1..).zip(&dirs) {
        nodes.push(Node::start(dir.path(), id, &addresses).await);
    }
    for node in &nodes {
        node.cluster.ready().await.unwrap();
    }
    let topic = CreateTopic {
        name: "t".to_owned(),
        partitions: 4,
        ..CreateTopic::default()
    };
    let _topic = nodes[0]
        .cluster
        .create_topic(topic, deadline())
        .await
        .unwrap();
    let name = GROUP.to_owned();
    let found = nodes[0]
        .groups
        .coordinators(std::slice::from_ref(&name), deadline());
    assert_eq!(found.await.unwrap()[0].error, None);
    let tp = TopicPartition::new(
        GROUPS_TOPIC,
        i32::try_from(shard_of(GROUP, GROUPS_PARTITIONS)).unwrap(),
    );
    lead(&nodes, 0, &tp, GROUP).await;
    (dirs, addresses, nodes, tp)
}

/// Logs stay short, and a node that lost its disk gets the groups as a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_gets_the_groups_behind_a_log_that_was_cut() {
    let (mut dirs, addresses, mut nodes, tp) = three_nodes().await;
    let mut offset = 0;
    let is_cut = |node: &Node| {
        node.shard(&tp)
            .is_some_and(|it| it.log().purged_log_id().is_some())
    };
    let until = deadline();
    while !is_cut(&nodes[0]) || offset < 200 {
        assert!(clock::now() < until, "the log was not cut in time");
        offset += 1;
        let committed = nodes[0].groups.commit(commit(GROUP, offset), deadline());
        committed.await.unwrap();
    }

    nodes.remove(2).stop().await;
    dirs[2] = TempDir::new().unwrap();
    nodes.push(Node::start(dirs[2].path(), 3, &addresses).await);
    eventually("the new replica runs", || nodes[2].shard(&tp).is_some()).await;
    lead(&nodes, 2, &tp, GROUP).await;
    assert_eq!(
        offsets(&nodes[2].groups, GROUP).await.unwrap(),
        [Some(offset); 4]
    );
    let moved = nodes[0]
        .groups
        .commit(commit(GROUP, offset + 1), deadline())
        .await;
    let error = moved.unwrap_err();
    assert_eq!(error.code(), v1::ErrorCode::NotCoordinator);
    assert_eq!(error.leader.unwrap().node_id, 3);
    for node in nodes {
        node.stop().await;
    }
}

/// How the stream of a member ends that comes back and is not known.
async fn come_back(groups: &Groups) -> v1::ErrorCode {
    let join = v1::JoinGroup {
        group: GROUP.to_owned(),
        member_id: "a member of before".to_owned(),
        topics: vec!["t".to_owned()],
        rejoin: true,
        ..v1::JoinGroup::default()
    };
    let (_stream, mut responses) = match groups.join(join).await {
        Ok(joined) => joined,
        Err(error) => return error.code(),
    };
    let mut last = None;
    while let Some(response) = responses.recv().await {
        last = response.response;
    }
    match last {
        Some(Response::Error(error)) => error.code(),
        other => panic!("not an error: {other:?}"),
    }
}

/// A coordinator that had been replaced and did not know it denied a member that its successor knew
/// (simulator seed 5843).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_cut_off_denies_no_member() {
    let (_dirs, _addresses, nodes, _tp) = three_nodes().await;
    assert_eq!(
        come_back(&nodes[0].groups).await,
        v1::ErrorCode::UnknownMember
    );
    let others = nodes[1..].iter().map(|node| node.consensus.shutdown());
    let _cut_off = futures::future::join_all(others).await;
    let told = come_back(&nodes[0].groups).await;
    assert!(
        told == v1::ErrorCode::LeaderNotAvailable || told == v1::ErrorCode::NotCoordinator,
        "{told:?}"
    );
    for node in nodes {
        node.stop().await;
    }
}

/// Joins with a new member, until that has all partitions.
async fn join(groups: &Groups, member: &str) -> (MemberStream, Receiver<v1::MemberResponse>) {
    let join = v1::JoinGroup {
        group: GROUP.to_owned(),
        member_id: member.to_owned(),
        topics: vec!["t".to_owned()],
        ..v1::JoinGroup::default()
    };
    let (stream, mut responses) = groups.join(join).await.unwrap();
    let told = clock::timeout(PATIENCE, async {
        while let Some(response) = responses.recv().await {
            match response.response {
                Some(Response::Assignment(told)) if told.assigned.len() == 4 => return,
                Some(Response::Error(error)) => panic!("{member}: {error:?}"),
                _ => {}
            }
        }
        panic!("{member}: the stream ended");
    });
    told.await.unwrap();
    (stream, responses)
}

async fn leave((stream, _responses): (MemberStream, Receiver<v1::MemberResponse>)) {
    let leave = v1::MemberRequest {
        request: Some(Request::Leave(v1::Leave {})),
    };
    stream.receive(leave).await;
    let left = clock::timeout(PATIENCE, stream.ended()).await;
    left.unwrap();
}

/// The coordinator decides what becomes of a member while the group is there, and it is gone when that
/// is applied: it has to decide again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_joins_a_group_that_is_deleted_meanwhile() {
    let (_dirs, _addresses, nodes, _tp) = three_nodes().await;
    let groups = &nodes[0].groups;
    let until = deadline();
    for round in 0.. {
        // With offsets the group outlives its member, and its generation is not that of a new one.
        groups.commit(commit(GROUP, 1), deadline()).await.unwrap();
        leave(join(groups, "before").await).await;

        // A first member is decided about 100 ms after it came; the delete comes around then.
        let late = Duration::from_millis(90 + round % 20);
        let delete = async {
            clock::sleep(late).await;
            groups.delete(GROUP, deadline()).await
        };
        let (joined, deleted) = tokio::join!(join(groups, "after"), delete);
        if let Err(error) = deleted {
            assert_eq!(error.code(), v1::ErrorCode::GroupNotEmpty);
        }
        leave(joined).await;
        if mark::visits_of("groups.update.superseded") > 0 {
            break;
        }
        assert!(clock::now() < until, "never met by a delete");
    }
    for node in nodes {
        node.stop().await;
    }
}

/// A node can know that another one leads, and not where it is: its image is behind, or that one has not
/// registered yet. It named such a coordinator with an empty address, which clients took for a wrong one of
/// their own, for good (a live run of all faults: a node back from a kill, while one led that was new).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_whose_address_is_unknown_is_not_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [listener.local_addr().unwrap().to_string()];
    drop(listener);
    let dir = TempDir::new().unwrap();
    let node = Node::start_at(dir.path(), 1, &addresses, String::new()).await;
    node.cluster.ready().await.unwrap();
    let group = [GROUP.to_owned()];
    let found = node.groups.coordinators(&group, deadline()).await.unwrap();
    let error = found[0].error.clone().unwrap();
    assert_eq!(error.code(), v1::ErrorCode::LeaderNotAvailable);
    assert!(error.message.contains("node 1, whose address"), "{error:?}");
    node.stop().await;
}
