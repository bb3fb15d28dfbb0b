//! Replicas that move.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as it must be"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use seriatim_cluster::{ClusterError, PartitionInfo, Refusal};
use seriatim_proto::ids::{NodeId, PartitionId, ReplicaId, TopicPartition};
use seriatim_runtime::clock;

use crate::common::{Nodes, deadline, eventually, topic};

const P0: PartitionId = PartitionId(0);

/// Nodes and a topic "t" that has settled.
pub(crate) async fn with_topic(nodes: usize, partitions: u32, replicas: u32) -> Nodes {
    let mut nodes = Nodes::new(nodes);
    nodes.start_all().await;
    create(&nodes, partitions, replicas).await;
    nodes
}

async fn create(nodes: &Nodes, partitions: u32, replicas: u32) {
    let created = nodes
        .cluster(1)
        .create_topic(topic("t", partitions, replicas), deadline());
    let _created = created.await.unwrap();
    nodes.settled("t", i32::try_from(partitions).unwrap()).await;
}

/// Five nodes between which the network can be cut, and what each of them is to the one partition of "t".
struct Five {
    nodes: Nodes,
    /// Leads the metadata group and has no replica.
    controller: usize,
    /// Has no replica either.
    free: usize,
    leader: usize,
    followers: [usize; 2],
}

impl Five {
    async fn start() -> Self {
        let mut nodes = Nodes::between_cuts(5);
        nodes.start_all().await;
        create(&nodes, 1, 3).await;
        let controller = nodes.controller().await;
        let others: Vec<usize> = (1..=5).filter(|node| *node != controller).collect();
        let to: Vec<NodeId> = others[..3].iter().map(|node| id(*node)).collect();
        let begun = nodes
            .cluster(controller)
            .reassign("t", P0, &to, deadline())
            .await;
        let _begun = begun.unwrap();
        moved(&nodes).await;
        let mut leader = None;
        eventually("it leads", || {
            leader = others[..3]
                .iter()
                .copied()
                .find(|node| leads(&nodes, *node));
            leader.is_some()
        })
        .await;
        let leader = leader.unwrap();
        let mut followers = others[..3].iter().copied().filter(|node| *node != leader);
        Self {
            controller,
            free: others[3],
            leader,
            followers: [followers.next().unwrap(), followers.next().unwrap()],
            nodes,
        }
    }

    fn known_to(&self, node: usize) -> PartitionInfo {
        known_to(&self.nodes, node, P0)
    }

    /// The members of the group and whether they vote, as a node has them that leads it.
    fn members(&self, node: usize) -> Option<BTreeMap<NodeId, bool>> {
        let partition = self.nodes.cluster(node).partition(&t0())?;
        let members = partition.group().status().membership;
        let of = members.iter().map(|member| (member.node, member.voter));
        partition.status().leads.then(|| of.collect())
    }

    fn replica(&self, node: usize) -> ReplicaId {
        let info = self.known_to(self.controller);
        info.replica_on(id(node)).unwrap().id
    }
}

fn t0() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn id(node: usize) -> NodeId {
    NodeId(u64::try_from(node).unwrap())
}

fn leads(nodes: &Nodes, node: usize) -> bool {
    let partition = nodes.cluster(node).partition(&t0());
    partition.is_some_and(|partition| partition.status().leads)
}

/// Whether a condition stays away for longer than a leader waits until it tries again to add a replica.
async fn never(what: &str, condition: impl FnMut() -> bool) -> bool {
    let come = clock::timeout(Duration::from_secs(3), eventually(what, condition));
    come.await.is_err()
}

pub(crate) fn node(nodes: &Nodes) -> usize {
    *nodes.running.keys().next().unwrap()
}

fn info(nodes: &Nodes, number: i32) -> PartitionInfo {
    known_to(nodes, node(nodes), PartitionId(number))
}

/// What a node knows of a partition.
fn known_to(nodes: &Nodes, node: usize, number: PartitionId) -> PartitionInfo {
    let image = nodes.cluster(node).image();
    image.topics["t"].partition(number).unwrap().clone()
}

fn held_by(info: &PartitionInfo) -> Vec<u64> {
    info.replicas.iter().map(|replica| replica.node.0).collect()
}

/// No partition moves any more, every replica runs, and the members of each group are those that
/// the image names.
pub(crate) async fn moved(nodes: &Nodes) {
    for (number, node) in &nodes.running {
        eventually(
            &format!("node {number} has heard that all moves are done"),
            || {
                node.cluster
                    .image()
                    .partitions()
                    .all(|(_, _, info)| !info.is_moving())
            },
        )
        .await;
    }
    let image = nodes.cluster(node(nodes)).image();
    let partitions = i32::try_from(image.topics["t"].partitions.len()).unwrap();
    nodes.settled("t", partitions).await;
    for number in 0..partitions {
        let tp = TopicPartition::new("t", number);
        eventually(
            &format!("the members of {tp} are those of the image"),
            || {
                let wanted: BTreeSet<_> =
                    info(nodes, number).replicas.iter().map(|r| r.id).collect();
                nodes.running.values().any(|node| {
                    let Some(partition) = node.cluster.partition(&tp) else {
                        return false;
                    };
                    let status = partition.group().status();
                    let members: BTreeSet<_> =
                        status.membership.iter().map(|m| m.replica).collect();
                    partition.status().leads && members == wanted
                })
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_moves_and_its_log_is_gone() {
    let nodes = with_topic(4, 1, 3).await;
    let before = info(&nodes, 0);
    // The leader goes, and with it the preferred replica.
    let tp = TopicPartition::new("t", 0);
    let leader = nodes.cluster(1).leader(&tp).unwrap().node;
    let free = (1..=4)
        .map(NodeId)
        .find(|n| before.replica_on(*n).is_none())
        .unwrap();
    let mut to: Vec<NodeId> = before.replicas.iter().map(|r| r.node).collect();
    to.retain(|node| *node != leader);
    to.push(free);
    let begun = nodes
        .cluster(2)
        .reassign("t", P0, &to, deadline())
        .await
        .unwrap();
    assert_eq!(begun.len(), 1);
    let again = nodes
        .cluster(3)
        .reassign("t", P0, &to, deadline())
        .await
        .unwrap();
    assert_eq!(again, [], "it is on its way there");
    moved(&nodes).await;
    let wanted: Vec<u64> = to.iter().map(|node| node.0).collect();
    assert_eq!(held_by(&info(&nodes, 0)), wanted);
    let left = &nodes.running[&usize::try_from(leader.0).unwrap()];
    eventually("the log is gone", || {
        left.storage
            .logs()
            .iter()
            .all(|key| key.group != before.group)
    })
    .await;
    let now = nodes.cluster(1).leader(&tp).unwrap().node;
    assert_ne!(now, leader);
    let mut nodes = nodes;
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_goes_on_when_leader_and_controller_are_lost() {
    let mut nodes = with_topic(5, 4, 3).await;
    // Everything moves to nodes 3, 4 and 5; then the nodes that drive it stop.
    let to = [5, 4, 3].map(NodeId);
    for number in 0..4 {
        let begun = nodes
            .cluster(1)
            .reassign("t", PartitionId(number), &to, deadline());
        let _begun = begun.await.unwrap();
    }
    let controller = nodes.controller().await;
    nodes.stop(controller).await;
    let leader = nodes
        .running
        .values()
        .find_map(|node| node.cluster.leader(&TopicPartition::new("t", 0)))
        .map(|leader| usize::try_from(leader.node.0).unwrap());
    if let Some(leader) = leader.filter(|leader| nodes.running.contains_key(leader)) {
        nodes.stop(leader).await;
        nodes.start(leader).await;
    }
    nodes.start(controller).await;
    moved(&nodes).await;
    for number in 0..4 {
        assert_eq!(held_by(&info(&nodes, number)), [5, 4, 3]);
    }
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_move_comes_back() {
    let mut nodes = with_topic(4, 1, 3).await;
    let before = info(&nodes, 0);
    let free = (1..=4)
        .map(NodeId)
        .find(|n| before.replica_on(*n).is_none())
        .unwrap();
    let down = usize::try_from(free.0).unwrap();
    // Its new replica never comes, so the move waits.
    nodes.stop(down).await;
    let mut to: Vec<NodeId> = before.replicas.iter().skip(1).map(|r| r.node).collect();
    to.push(free);
    let asked = nodes.cluster(node(&nodes)).clone();
    let _begun = asked.reassign("t", P0, &to, deadline()).await.unwrap();
    let refused = asked
        .reassign("t", P0, &to[..1], deadline())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ClusterError::Refused(Refusal::Moving { .. })),
        "{refused}"
    );
    eventually("the new replica is waited for", || {
        nodes
            .running
            .values()
            .any(|node| node.cluster.move_stage(before.group).is_some())
    })
    .await;
    let turned = asked.cancel_move("t", P0, deadline()).await.unwrap();
    assert_eq!(turned.len(), 1);
    moved(&nodes).await;
    assert_eq!(info(&nodes, 0).replicas, before.replicas);
    assert_eq!(asked.cancel_move("t", P0, deadline()).await.unwrap(), []);
    nodes.start(down).await;
    moved(&nodes).await;
    let gone = &nodes.running[&down];
    eventually("what was begun there is gone", || {
        gone.storage
            .logs()
            .iter()
            .all(|key| key.group != before.group)
    })
    .await;
    nodes.stop_all().await;
}

/// A leader that had been replaced and did not know it found the members that it knew to be those of a
/// move that had been turned round, and ended it, while its successor had given votes to the other end:
/// half of the voters lost their logs (simulator seed 9973).
#[tokio::test]
async fn only_a_leader_that_a_majority_confirms_ends_a_move() {
    let five = Five::start().await;
    let before = five.known_to(five.controller);
    // The controller reaches the old leader, and is the last of those that would lead.
    let to = [five.leader, five.free, five.controller].map(id);
    let others: Vec<usize> = (1..=5).filter(|node| *node != five.leader).collect();
    five.nodes.cut(five.leader, &others);
    let asked = five.nodes.cluster(five.controller).clone();
    let _begun = asked.reassign("t", P0, &to, deadline()).await.unwrap();
    eventually("a new leader lets the other end vote", || {
        let mut members = others.iter().filter_map(|node| five.members(*node));
        members.any(|members| to.iter().all(|node| members.get(node) == Some(&true)))
    })
    .await;
    let turned = asked.cancel_move("t", P0, deadline()).await.unwrap();
    assert_eq!(turned.len(), 1);
    five.nodes.mend(five.leader, five.controller);
    eventually("the old leader has heard of that", || {
        five.known_to(five.leader).returning
    })
    .await;
    assert!(leads(&five.nodes, five.leader), "it knows of no other");
    let ended = || !five.known_to(five.controller).is_moving();
    assert!(never("its end", ended).await, "the old leader ended it");

    five.nodes.heal();
    moved(&five.nodes).await;
    assert_eq!(five.known_to(five.controller).replicas, before.replicas);
    let mut nodes = five.nodes;
    nodes.stop_all().await;
}

/// The other way round: a leader that was elected after the end of a move, and has not heard of it.
#[tokio::test]
async fn a_leader_moves_nothing_by_an_image_from_before_its_election() {
    let mut five = Five::start().await;
    let before = five.known_to(five.controller);
    let [next, other] = five.followers;
    // Its new replica never comes, so the move waits.
    five.nodes.stop(five.free).await;
    let to = [five.leader, next, five.free].map(id);
    let asked = five.nodes.cluster(five.controller).clone();
    let _begun = asked.reassign("t", P0, &to, deadline()).await.unwrap();
    eventually("the new replica is waited for", || {
        let members = five.members(five.leader).unwrap_or_default();
        members.contains_key(&id(five.free)) && five.known_to(next).is_moving()
    })
    .await;
    five.nodes.cut(next, &[five.controller]);
    let _turned = asked.cancel_move("t", P0, deadline()).await.unwrap();
    eventually("the move is over", || {
        !five.known_to(five.controller).is_moving()
    })
    .await;
    let old = five.nodes.cluster(five.leader).partition(&t0()).unwrap();
    old.group().hand_over(five.replica(next)).await.unwrap();
    eventually("the next one leads", || leads(&five.nodes, next)).await;
    let info = five.known_to(next);
    assert!(info.is_moving() && !info.returning, "it knows of no end");
    let wanted = [five.leader, next, other].map(|node| (id(node), true));
    let others = || five.members(next) != Some(BTreeMap::from(wanted));
    assert!(never("a move", others).await, "{:?}", five.members(next));

    five.nodes.heal();
    moved(&five.nodes).await;
    assert_eq!(five.known_to(next).replicas, before.replicas);
    five.nodes.start(five.free).await;
    moved(&five.nodes).await;
    five.nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_grow_and_shrink_while_they_are_there() {
    let mut nodes = with_topic(4, 2, 1).await;
    let cluster = nodes.cluster(2).clone();
    let grown = cluster
        .set_replication_factor("t", 3, deadline())
        .await
        .unwrap();
    assert_eq!(grown.len(), 2);
    moved(&nodes).await;
    assert!((0..2).all(|number| info(&nodes, number).replicas.len() == 3));
    cluster.set_partitions("t", 5, deadline()).await.unwrap();
    cluster.set_partitions("t", 5, deadline()).await.unwrap();
    let fewer = cluster
        .set_partitions("t", 4, deadline())
        .await
        .unwrap_err();
    assert!(
        matches!(
            fewer,
            ClusterError::Refused(Refusal::FewerPartitions { have: 5, .. })
        ),
        "{fewer}"
    );
    eventually("the new partitions are known", || {
        cluster.image().topics["t"].partitions.len() == 5
    })
    .await;
    moved(&nodes).await;
    assert!((0..5).all(|number| info(&nodes, number).replicas.len() == 3));
    let shrunk = cluster
        .set_replication_factor("t", 2, deadline())
        .await
        .unwrap();
    assert_eq!(shrunk.len(), 5);
    moved(&nodes).await;
    let image = cluster.image();
    assert_eq!(image.topics["t"].replication_factor, 2);
    assert!((0..5).all(|number| info(&nodes, number).replicas.len() == 2));
    let many = cluster
        .set_replication_factor("t", 5, deadline())
        .await
        .unwrap_err();
    let lacking = Refusal::NotEnoughNodes { wanted: 5, have: 4 };
    assert!(
        matches!(&many, ClusterError::Refused(it) if *it == lacking),
        "{many}"
    );
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_gets_its_share() {
    let mut nodes = Nodes::new(4);
    for node in 1..=3 {
        nodes.start(node).await;
    }
    let created = nodes.cluster(1).create_topic(topic("t", 8, 3), deadline());
    let _created = created.await.unwrap();
    nodes.settled("t", 8).await;
    nodes.start(4).await;
    nodes.ready(4).await;
    let dry = nodes.cluster(1).rebalance(true, deadline()).await.unwrap();
    assert!(!dry.is_empty() && !nodes.cluster(1).image().holds_replicas(NodeId(4)));
    let begun = nodes.cluster(2).rebalance(false, deadline()).await.unwrap();
    assert_eq!(begun, dry);
    moved(&nodes).await;
    let load = nodes.cluster(4).image().load();
    assert!(
        load.values()
            .all(|load| load.replicas == 6 && load.leaders == 2),
        "{load:?}"
    );
    let nothing = nodes.cluster(3).rebalance(true, deadline()).await.unwrap();
    assert_eq!(nothing, []);
    nodes.stop_all().await;
}
