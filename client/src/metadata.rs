//! Who leads what, as far as this client has heard.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::RwLock;
use seriatim_proto::v1;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{channels::Channels, error::ClientError, rt};

/// Least time between two refreshes in the background.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the first answer waits for the others, which may know of a newer leader.
const SECOND_OPINION: Duration = Duration::from_millis(20);
/// Nodes asked in one refresh.
const OPINIONS: usize = 3;

/// The leader of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: u64,
    pub(crate) address: Arc<str>,
    pub(crate) epoch: i32,
}

#[derive(Debug, Default)]
struct View {
    cluster_id: String,
    nodes: HashMap<u64, Arc<str>>,
    topics: HashMap<String, Topic>,
    /// Topics that were asked for, of which a node says that it knows none, and no other has told.
    unknown: BTreeSet<String>,
}

#[derive(Debug)]
struct Topic {
    id: String,
    partitions: Vec<Option<Leader>>,
}

/// The cache and what keeps it fresh.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) channels: Channels,
    seeds: Vec<String>,
    view: RwLock<View>,
    /// Topics that somebody reads, whether a node has described them yet or not.
    read: RwLock<BTreeSet<String>>,
    /// Counts changes of any leader.
    changed: watch::Sender<u64>,
    wanted: Notify,
}

impl Metadata {
    pub(crate) fn new(seeds: Vec<String>, channels: Channels) -> Self {
        Self {
            channels,
            seeds,
            view: RwLock::default(),
            read: RwLock::default(),
            changed: watch::Sender::new(0),
            wanted: Notify::new(),
        }
    }

    pub(crate) fn cluster_id(&self) -> String {
        self.view.read().cluster_id.clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Number of partitions of a topic that this client has heard of.
    pub(crate) fn partitions(&self, topic: &str) -> Option<usize> {
        self.view
            .read()
            .topics
            .get(topic)
            .map(|t| t.partitions.len())
    }

    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<Leader> {
        let at = usize::try_from(partition).ok()?;
        self.view
            .read()
            .topics
            .get(topic)?
            .partitions
            .get(at)?
            .clone()
    }

    /// Every address that may answer, in random order, so that no node gets all the questions.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let view = self.view.read();
        let known: BTreeSet<&str> = view.nodes.values().map(AsRef::as_ref).collect();
        let mut all: Vec<String> = known.into_iter().map(str::to_owned).collect();
        for seed in &self.seeds {
            if !all.contains(seed) {
                all.push(seed.clone());
            }
        }
        let start = rt::below(all.len());
        all.rotate_left(start);
        all
    }

    /// Takes over what a node said about who leads; older news is ignored.
    pub(crate) fn note_leader(&self, topic: &str, partition: i32, hint: &v1::LeaderHint) {
        let Ok(at) = usize::try_from(partition) else {
            return;
        };
        if hint.node_id == 0 || hint.grpc_address.is_empty() {
            return;
        }
        let mut view = self.view.write();
        let slot = view
            .topics
            .get_mut(topic)
            .and_then(|t| t.partitions.get_mut(at));
        let Some(slot) = slot else { return };
        let known = slot.as_ref();
        let newer = known.is_none_or(|l| hint.leader_epoch > l.epoch);
        let fixes = known.is_some_and(|l| hint.leader_epoch == l.epoch && hint.node_id != l.node);
        if newer || fixes {
            *slot = Some(Leader {
                node: hint.node_id,
                address: hint.grpc_address.as_str().into(),
                epoch: hint.leader_epoch,
            });
            drop(view);
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Whether a topic has a partition, as far as this client has heard.
    pub(crate) fn has(&self, topic: &str, partition: i32) -> bool {
        let partitions = self.partitions(topic).unwrap_or(0);
        usize::try_from(partition).is_ok_and(|partition| partition < partitions)
    }

    /// Why there is no such partition, if nodes say so and not only that nobody leads it.
    pub(crate) fn missing(&self, topic: &str, partition: i32) -> Option<ClientError> {
        match self.partitions(topic) {
            Some(_) if self.has(topic, partition) => None,
            Some(partitions) => Some(ClientError::UnknownPartition {
                topic: topic.to_owned(),
                partition,
                partitions,
            }),
            None if self.is_unknown(topic) => Some(ClientError::UnknownTopic(topic.to_owned())),
            None => None,
        }
    }

    /// Whether nodes were asked for a topic, and none of those that answered has heard of it.
    fn is_unknown(&self, topic: &str) -> bool {
        self.view.read().unknown.contains(topic)
    }

    /// Asks for a topic in every refresh from now on.
    pub(crate) fn follow(&self, topic: &str) {
        if !self.read.read().contains(topic) {
            let _new = self.read.write().insert(topic.to_owned());
        }
    }

    /// Asks for a refresh in the background.
    pub(crate) fn want_refresh(&self) {
        self.wanted.notify_one();
    }

    /// Refreshes whenever wanted, until dropped.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        loop {
            self.wanted.notified().await;
            if let Err(error) = self.refresh(None).await {
                tracing::debug!(%error, "metadata refresh failed");
                self.wanted.notify_one();
            }
            sleep(REFRESH_INTERVAL).await;
        }
    }

    /// Asks several nodes and takes over the newest of what they say about the known topics and
    /// `topic`.
    pub(crate) async fn refresh(&self, topic: Option<&str>) -> Result<(), ClientError> {
        let mut topics: BTreeSet<String> = self.read.read().clone();
        topics.extend(self.view.read().topics.keys().cloned());
        topics.extend(topic.map(str::to_owned));
        let topics: Vec<_> = topics.into_iter().collect();
        let nodes_only = topics.is_empty();
        let request = v1::DescribeRequest {
            topics,
            nodes_only,
            ..Default::default()
        };
        let mut waiting = self.addresses().into_iter();
        let ask = |address| self.describe(address, request.clone());
        let mut asked: FuturesUnordered<_> = waiting.by_ref().take(OPINIONS).map(ask).collect();
        let mut last = None;
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(answer) => {
                    self.merge(answer);
                    let until = Instant::now() + SECOND_OPINION;
                    while let Ok(Some(answer)) = timeout_at(until, asked.next()).await {
                        if let Ok(answer) = answer {
                            self.merge(answer);
                        }
                    }
                    return Ok(());
                }
                Err(error) => last = Some(Box::new(error)),
            }
            asked.extend(waiting.next().map(ask));
        }
        let servers = self.addresses().join(", ");
        Err(ClientError::Unreachable { servers, last })
    }

    async fn describe(
        &self,
        address: String,
        request: v1::DescribeRequest,
    ) -> Result<v1::DescribeResponse, ClientError> {
        let mut client = self.channels.metadata(&address)?;
        match timeout(DESCRIBE_TIMEOUT, client.describe(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(ClientError::from_status(&address, status)),
            Err(_elapsed) => Err(ClientError::Timeout {
                what: "describe",
                after: DESCRIBE_TIMEOUT,
                maybe_applied: false,
                last: None,
            }),
        }
    }

    fn merge(&self, answer: v1::DescribeResponse) {
        let mut changed = false;
        let mut view = self.view.write();
        let view = &mut *view;
        if !answer.cluster_id.is_empty() {
            view.cluster_id = answer.cluster_id;
        }
        // A node that is known by its replication address only has not joined yet.
        for node in answer
            .nodes
            .into_iter()
            .filter(|n| !n.grpc_address.is_empty())
        {
            let _before = view.nodes.insert(node.node_id, node.grpc_address.into());
        }
        for topic in answer.topics {
            let _was = view.unknown.remove(&topic.name);
            changed |= merge_topic(&mut view.topics, &view.nodes, topic);
        }
        for topic in answer.unknown_topics {
            if !view.topics.contains_key(&topic) {
                let _new = view.unknown.insert(topic);
            }
        }
        // A node that has not heard of a new topic yet must not make this client forget it; one
        // that was deleted is found out by the request that fails.
        if changed {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Forgets a topic that does not exist any more.
    pub(crate) fn forget(&self, topic: &str) {
        let _known = self.view.write().topics.remove(topic);
        let _read = self.read.write().remove(topic);
    }
}

fn merge_topic(
    topics: &mut HashMap<String, Topic>,
    nodes: &HashMap<u64, Arc<str>>,
    news: v1::Topic,
) -> bool {
    let known = topics.entry(news.name).or_insert_with(|| Topic {
        id: news.topic_id.clone(),
        partitions: Vec::new(),
    });
    let mut changed = false;
    if known.id != news.topic_id {
        known.id = news.topic_id;
        known.partitions.clear();
    }
    if known.partitions.len() < news.partitions.len() {
        known.partitions.resize(news.partitions.len(), None);
        changed = true;
    }
    for partition in news.partitions {
        let at = usize::try_from(partition.partition).ok();
        let Some(slot) = at.and_then(|at| known.partitions.get_mut(at)) else {
            continue;
        };
        let epoch = partition.leader_epoch;
        if let Some(address) = nodes.get(&partition.leader) {
            let outdated = |known: &Leader| {
                let moved = known.node == partition.leader && known.address != *address;
                known.epoch < epoch || (known.epoch == epoch && moved)
            };
            if !slot.as_ref().is_none_or(outdated) {
                continue;
            }
            let address = Arc::clone(address);
            *slot = Some(Leader {
                node: partition.leader,
                address,
                epoch,
            });
            changed = true;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(leader: u64, epoch: i32, id: &str) -> v1::DescribeResponse {
        let node = |node_id| v1::Node {
            node_id,
            grpc_address: format!("n{node_id}:1"),
            ..v1::Node::default()
        };
        let partition = v1::Partition {
            partition: 0,
            leader,
            leader_epoch: epoch,
            ..v1::Partition::default()
        };
        let topic = v1::Topic {
            name: "t".to_owned(),
            topic_id: id.to_owned(),
            partitions: vec![partition],
            ..v1::Topic::default()
        };
        v1::DescribeResponse {
            nodes: vec![node(1), node(2)],
            topics: vec![topic],
            ..v1::DescribeResponse::default()
        }
    }

    fn known(metadata: &Metadata) -> Option<(u64, i32)> {
        metadata.leader("t", 0).map(|l| (l.node, l.epoch))
    }

    #[test]
    fn the_newest_epoch_wins_whoever_says_it() {
        let metadata = Metadata::new(vec!["n1:1".to_owned()], Channels::new(None));
        metadata.merge(describe(0, 1, "a"));
        assert_eq!(
            (metadata.partitions("t"), known(&metadata)),
            (Some(1), None)
        );
        metadata.merge(describe(1, 2, "a"));
        assert_eq!(known(&metadata), Some((1, 2)));
        let hint = |node_id, leader_epoch| v1::LeaderHint {
            node_id,
            grpc_address: format!("n{node_id}:1"),
            leader_epoch,
        };
        metadata.note_leader("t", 0, &hint(2, 1));
        assert_eq!(known(&metadata), Some((1, 2)), "old news");
        metadata.note_leader("t", 0, &hint(2, 3));
        assert_eq!(known(&metadata), Some((2, 3)));
        metadata.merge(describe(1, 2, "a"));
        assert_eq!(known(&metadata), Some((2, 3)), "a node that lags behind");
        metadata.merge(describe(0, 4, "a"));
        assert_eq!(known(&metadata), Some((2, 3)), "nobody leads yet");
        metadata.merge(describe(1, 1, "b"));
        assert_eq!(known(&metadata), Some((1, 1)), "the topic was created anew");
    }

    #[test]
    fn a_topic_is_unknown_until_a_node_knows_it() {
        let metadata = Metadata::new(vec!["n1:1".to_owned()], Channels::new(None));
        let nobody = || v1::DescribeResponse {
            unknown_topics: vec!["t".to_owned()],
            ..v1::DescribeResponse::default()
        };
        assert!(!metadata.is_unknown("t"), "nobody was asked");
        metadata.merge(nobody());
        assert!(metadata.is_unknown("t"));
        metadata.merge(describe(1, 2, "a"));
        assert!(!metadata.is_unknown("t"));
        metadata.merge(nobody());
        assert!(!metadata.is_unknown("t"), "a node that lags behind");
        let why = |partition| metadata.missing("t", partition).and_then(|e| e.code());
        assert_eq!(why(0), None);
        assert_eq!(why(1), Some(v1::ErrorCode::UnknownPartition));
        metadata.forget("t");
        assert!(!metadata.is_unknown("t"), "nobody was asked since");
        assert_eq!(why(0), None);
        metadata.merge(nobody());
        assert_eq!(why(0), Some(v1::ErrorCode::UnknownTopic));
    }

    #[test]
    fn a_node_may_have_no_address_yet_and_another_one_later() {
        let metadata = Metadata::new(vec!["seed:1".to_owned()], Channels::new(None));
        let with_address = |address: &str| {
            let mut answer = describe(1, 2, "a");
            answer.nodes.truncate(1);
            answer.nodes[0].grpc_address = address.to_owned();
            answer
        };
        metadata.merge(with_address(""));
        assert_eq!(metadata.addresses(), ["seed:1"]);
        assert_eq!(known(&metadata), None);
        for address in ["n1:1", "n1:2"] {
            metadata.merge(with_address(address));
            let leader = metadata.leader("t", 0).unwrap();
            assert_eq!((&*leader.address, leader.epoch), (address, 2));
        }
    }
}
