//! The state of a cluster, merged from what each node says of itself.

use std::collections::BTreeMap;

use seriatim_proto::v1;

use crate::error::ClientError;

/// The state of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The cluster's id.
    pub cluster_id: String,
    /// The node that leads the metadata group, if known.
    pub controller: Option<u64>,
    /// Every node, in the order of their ids.
    pub nodes: Vec<NodeStatus>,
    /// Every partition, in the order of topic and number.
    pub partitions: Vec<PartitionStatus>,
}

/// The state of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its id.
    pub node: u64,
    /// Its gRPC address.
    pub grpc_address: String,
    /// Its rack, empty if it has none.
    pub rack: String,
    /// Why it does not answer, if so; the fields after this say nothing then.
    pub unreachable: Option<String>,
    /// Its version.
    pub version: String,
    /// Replicas that run on it.
    pub replicas: usize,
    /// Replicas that it leads.
    pub leaders: usize,
    /// Its disk has no room for appends.
    pub disk_full: bool,
    /// Replicas of which it is the preferred leader, whether it answers or not.
    pub preferred: usize,
    /// Replicas that it holds or is to get, whether it answers or not.
    pub assigned: usize,
    /// It is being decommissioned.
    pub leaving: bool,
    /// It has been asked to stop and hands over what it leads.
    pub stopping: bool,
    /// It votes in the metadata group.
    pub controller_voter: bool,
    /// When it came back without its data, in ms since the Unix epoch, if it ever did.
    pub data_lost_ms: Option<u64>,
}

impl NodeStatus {
    /// It was decommissioned and holds nothing any more: it may be stopped for good.
    pub const fn is_safe_to_stop(&self) -> bool {
        self.leaving && self.assigned == 0 && !self.controller_voter
    }
}

/// The state of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The topic.
    pub topic: String,
    /// The number.
    pub partition: i32,
    /// The node that leads it, if one does.
    pub leader: Option<u64>,
    /// The term of that leader, or the highest that any replica knows of.
    pub term: i64,
    /// Offset before which everything is committed.
    pub high_watermark: i64,
    /// Every replica, in the order of their nodes.
    pub replicas: Vec<ReplicaStatus>,
    /// The node that is the preferred leader.
    pub preferred_leader: Option<u64>,
    /// The move of the partition, if it is being moved.
    pub moving: Option<PartitionMoving>,
}

/// A partition that is being moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMoving {
    /// The nodes that hold it, the preferred leader first.
    pub from: Vec<u64>,
    /// The nodes that shall hold it.
    pub to: Vec<u64>,
    /// How far the move is, in the words of the leader.
    pub stage: String,
}

/// The state of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Where it is.
    pub node: u64,
    /// `running`, `opening`, `damaged`, `failed`, `rebuilding`, `missing` or `unreachable`.
    pub state: &'static str,
    /// Why, where there is a reason.
    pub reason: String,
    /// Log entries that it is behind the leader, if somebody knows.
    pub lag: Option<u64>,
    /// It only comes with a move that is under way.
    pub arriving: bool,
    /// End of its log, if it answers.
    pub log_end_offset: Option<i64>,
}

impl PartitionStatus {
    /// Some replica does not take part. Those that only come with a move are not counted.
    pub fn is_under_replicated(&self) -> bool {
        let mut replicas = self.replicas.iter().filter(|replica| !replica.arriving);
        replicas.any(|replica| replica.state != "running")
    }

    /// Whether the partition takes appends: it has a leader, and a majority of its replicas runs.
    pub fn is_available(&self) -> bool {
        let replicas = self.replicas.iter().filter(|replica| !replica.arriving);
        let running = replicas
            .clone()
            .filter(|replica| replica.state == "running");
        self.leader.is_some() && 2 * running.count() > replicas.count()
    }
}

type Answer = Result<v1::NodeStatusResponse, ClientError>;

/// What a node says of one of its replicas, by topic, partition and node.
type Replicas = BTreeMap<(String, i32, u64), v1::ReplicaStatus>;

pub(crate) fn merge_status(described: v1::DescribeResponse, answers: Vec<Answer>) -> ClusterStatus {
    let mut nodes = Vec::new();
    let mut replicas = Replicas::new();
    let loads = Loads::of(&described.topics);
    for (node, answer) in described.nodes.into_iter().zip(answers) {
        let id = node.node_id;
        nodes.push(node_status(node, &answer, &loads));
        for replica in answer.into_iter().flat_map(|a| a.replicas) {
            let key = (replica.topic.clone(), replica.partition, id);
            let _before = replicas.insert(key, replica);
        }
    }
    nodes.sort_by_key(|n| n.node);
    let mut partitions = Vec::new();
    for topic in described.topics {
        for partition in topic.partitions {
            partitions.push(partition_status(&topic.name, &partition, &nodes, &replicas));
        }
    }
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    ClusterStatus {
        cluster_id: described.cluster_id,
        controller: (described.controller != 0).then_some(described.controller),
        nodes,
        partitions,
    }
}

/// How much each node is to hold and to lead.
#[derive(Debug, Default)]
struct Loads {
    assigned: BTreeMap<u64, usize>,
    preferred: BTreeMap<u64, usize>,
}

impl Loads {
    fn of(topics: &[v1::Topic]) -> Self {
        let mut loads = Self::default();
        for partition in topics.iter().flat_map(|topic| &topic.partitions) {
            for node in hosts(partition) {
                *loads.assigned.entry(node).or_default() += 1;
            }
            if let Some(first) = partition.replicas.first() {
                *loads.preferred.entry(*first).or_default() += 1;
            }
        }
        loads
    }
}

/// The nodes at both ends of a move, each once.
fn hosts(partition: &v1::Partition) -> impl Iterator<Item = u64> {
    let target = partition.target_replicas.iter();
    let new = target.filter(|node| !partition.replicas.contains(node));
    partition.replicas.iter().chain(new).copied()
}

fn node_status(node: v1::Node, answer: &Answer, loads: &Loads) -> NodeStatus {
    let empty = v1::NodeStatusResponse::default();
    let said = answer.as_ref().unwrap_or(&empty);
    let leads = |r: &&v1::ReplicaStatus| r.role() == v1::ReplicaRole::Leader;
    NodeStatus {
        node: node.node_id,
        grpc_address: node.grpc_address,
        rack: node.rack,
        unreachable: answer.as_ref().err().map(ToString::to_string),
        version: said.version.clone(),
        replicas: said.replicas.len(),
        leaders: said.replicas.iter().filter(leads).count(),
        disk_full: said.disk_full,
        preferred: loads.preferred.get(&node.node_id).copied().unwrap_or(0),
        assigned: loads.assigned.get(&node.node_id).copied().unwrap_or(0),
        leaving: node.leaving,
        stopping: said.stopping,
        controller_voter: node.controller_voter,
        data_lost_ms: (node.data_lost_ms != 0).then_some(node.data_lost_ms),
    }
}

fn partition_status(
    topic: &str,
    partition: &v1::Partition,
    nodes: &[NodeStatus],
    replicas: &Replicas,
) -> PartitionStatus {
    let number = partition.partition;
    let of = |node: u64| replicas.get(&(topic.to_owned(), number, node));
    let mine: Vec<_> = hosts(partition).filter_map(of).collect();
    // A leader that lost a majority still thinks that it leads: the highest term is right.
    let leads = |r: &&&v1::ReplicaStatus| {
        r.role() == v1::ReplicaRole::Leader && r.state() == v1::ReplicaState::Running
    };
    let leader = mine.iter().filter(leads).max_by_key(|r| r.term);
    let term = mine
        .iter()
        .map(|r| r.term)
        .max()
        .unwrap_or(i64::from(partition.leader_epoch));
    let leader = leader.filter(|r| r.term == term);
    let leader_node = leader.and_then(|l| hosts(partition).find(|&n| of(n) == Some(*l)));
    let mut rows: Vec<_> = hosts(partition)
        .map(|node| {
            let down = nodes
                .iter()
                .any(|n| n.node == node && n.unreachable.is_some());
            let arriving = !partition.replicas.contains(&node);
            ReplicaStatus {
                arriving,
                ..replica_status(node, of(node), down, leader.copied())
            }
        })
        .collect();
    rows.sort_by_key(|r| r.node);
    PartitionStatus {
        topic: topic.to_owned(),
        partition: number,
        leader: leader_node,
        term,
        high_watermark: mine.iter().map(|r| r.high_watermark).max().unwrap_or(0),
        replicas: rows,
        preferred_leader: partition.replicas.first().copied(),
        moving: moving(partition, leader.copied()),
    }
}

fn moving(
    partition: &v1::Partition,
    leader: Option<&v1::ReplicaStatus>,
) -> Option<PartitionMoving> {
    if partition.target_replicas.is_empty() {
        return None;
    }
    let stage = leader.map_or("waiting for a leader", |leader| leader.move_state.as_str());
    Some(PartitionMoving {
        from: partition.replicas.clone(),
        to: partition.target_replicas.clone(),
        stage: if stage.is_empty() { "queued" } else { stage }.to_owned(),
    })
}

fn replica_status(
    node: u64,
    said: Option<&v1::ReplicaStatus>,
    down: bool,
    leader: Option<&v1::ReplicaStatus>,
) -> ReplicaStatus {
    let state = match said.map(v1::ReplicaStatus::state) {
        Some(v1::ReplicaState::Running) => "running",
        Some(v1::ReplicaState::Opening | v1::ReplicaState::Unspecified) => "opening",
        Some(v1::ReplicaState::Damaged) => "damaged",
        Some(v1::ReplicaState::Failed) => "failed",
        Some(v1::ReplicaState::Rebuilding) => "rebuilding",
        None if down => "unreachable",
        None => "missing",
    };
    let peer = leader.and_then(|l| l.peers.iter().find(|p| p.node_id == node));
    let is_leader = leader.is_some() && said == leader;
    let own = leader
        .zip(said)
        .map(|(l, r)| l.last_index.saturating_sub(r.last_index));
    let lag = if is_leader {
        Some(0)
    } else {
        peer.map(|p| p.lag_entries).or(own)
    };
    ReplicaStatus {
        node,
        state,
        reason: said.map(|r| r.reason.clone()).unwrap_or_default(),
        lag,
        arriving: false,
        log_end_offset: said.map(|r| r.log_end_offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(role: v1::ReplicaRole, term: i64, last_index: u64) -> v1::ReplicaStatus {
        v1::ReplicaStatus {
            topic: "t".to_owned(),
            state: v1::ReplicaState::Running.into(),
            role: role.into(),
            term,
            last_index,
            high_watermark: 5,
            ..v1::ReplicaStatus::default()
        }
    }

    fn answer(replica: v1::ReplicaStatus) -> Answer {
        Ok(v1::NodeStatusResponse {
            replicas: vec![replica],
            ..v1::NodeStatusResponse::default()
        })
    }

    #[test]
    fn the_highest_term_leads_and_the_dead_are_named() {
        let node = |node_id| v1::Node {
            node_id,
            ..v1::Node::default()
        };
        let partition = v1::Partition {
            replicas: vec![1, 2, 3],
            ..v1::Partition::default()
        };
        let topic = v1::Topic {
            name: "t".to_owned(),
            partitions: vec![partition],
            ..v1::Topic::default()
        };
        let described = v1::DescribeResponse {
            nodes: vec![node(1), node(2), node(3)],
            topics: vec![topic],
            ..v1::DescribeResponse::default()
        };
        let answers = vec![
            answer(replica(v1::ReplicaRole::Leader, 3, 70)),
            answer(replica(v1::ReplicaRole::Leader, 4, 80)),
            Err(ClientError::Closed("node")),
        ];
        let status = merge_status(described.clone(), answers);
        let [partition] = &status.partitions[..] else {
            panic!("{status:?}")
        };
        assert_eq!((partition.leader, partition.term), (Some(2), 4));
        let lags: Vec<_> = partition
            .replicas
            .iter()
            .map(|r| (r.state, r.lag))
            .collect();
        assert_eq!(
            lags,
            [
                ("running", Some(10)),
                ("running", Some(0)),
                ("unreachable", None)
            ]
        );
        assert!(partition.is_under_replicated());
        // A follower that knows of a later term: the old leader does not lead any more.
        let answers = vec![
            answer(replica(v1::ReplicaRole::Leader, 3, 70)),
            answer(replica(v1::ReplicaRole::Candidate, 4, 70)),
            Err(ClientError::Closed("node")),
        ];
        assert_eq!(merge_status(described, answers).partitions[0].leader, None);
    }
}
