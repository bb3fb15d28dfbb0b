//! Who leads what, as far as this client has heard.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::RwLock;
use seriatim_proto::v1::{self, ErrorCode};
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

/// Most names of which it is known that a topic was deleted.
const DELETED_MAX: usize = 10_000;

/// The leader of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: u64,
    pub(crate) address: Arc<str>,
    pub(crate) epoch: i32,
    /// The log that it leads, 0 where nodes do not say: that of a topic created anew is another one, with a
    /// higher id.
    pub(crate) log: u64,
}

impl Leader {
    /// Grows with every change of leadership of a partition. Terms of different logs cannot be compared.
    pub(crate) const fn term(&self) -> Term {
        (self.log, self.epoch)
    }

    /// Whether it may lead this log: not if it leads one of an earlier topic of that name.
    pub(crate) const fn may_lead(&self, log: u64) -> bool {
        self.log == 0 || self.log >= log
    }

    /// Another node leads since, or another log.
    pub(crate) fn took_over_from(&self, other: &Self) -> bool {
        self.term() > other.term() && (self.node != other.node || self.log != other.log)
    }
}

/// See [`Leader::term`].
pub(crate) type Term = (u64, i32);

#[derive(Debug, Default)]
struct View {
    cluster_id: String,
    nodes: HashMap<u64, Arc<str>>,
    topics: HashMap<String, Topic>,
    /// Topics that were asked for, of which a node says that it knows none, and no other has told.
    unknown: BTreeSet<String>,
    /// Logs below these are of topics that were deleted, whatever a node that is behind says.
    deleted: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Topic {
    id: String,
    /// The log of its first partition, 0 where nodes do not say.
    log: u64,
    partitions: Vec<Slot>,
}

impl Topic {
    fn slot(&self, partition: i32) -> Option<&Slot> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }
}

#[derive(Debug, Clone, Default)]
struct Slot {
    log: u64,
    leader: Option<Leader>,
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
        self.slot(topic, partition)?.leader
    }

    /// Which log a partition has, 0 if nobody has said.
    pub(crate) fn log(&self, topic: &str, partition: i32) -> u64 {
        self.slot(topic, partition).map_or(0, |slot| slot.log)
    }

    fn slot(&self, topic: &str, partition: i32) -> Option<Slot> {
        let view = self.view.read();
        view.topics.get(topic)?.slot(partition).cloned()
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
        if hint.log_id != 0 && slot.log != 0 && hint.log_id != slot.log {
            // Who leads a partition of another topic of that name. If it is a later one, nodes describe it.
            return self.want_refresh();
        }
        let known = slot.leader.as_ref();
        let newer = known.is_none_or(|l| hint.leader_epoch > l.epoch);
        let fixes = known.is_some_and(|l| hint.leader_epoch == l.epoch && hint.node_id != l.node);
        if newer || fixes {
            slot.leader = Some(Leader {
                node: hint.node_id,
                address: hint.grpc_address.as_str().into(),
                epoch: hint.leader_epoch,
                log: slot.log,
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
            let first = view.deleted.get(&topic.name).copied().unwrap_or(0);
            let log = log_of(&topic);
            if log != 0 && log < first {
                // The node has not heard of the deletion.
                continue;
            }
            let _was = view.unknown.remove(&topic.name);
            changed |= merge_topic(&mut view.topics, &view.nodes, topic, log);
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
    fn forget(&self, topic: &str) {
        let _known = self.view.write().topics.remove(topic);
        let _read = self.read.write().remove(topic);
    }

    /// A topic was created whose first partition has this log: what is known of its name is of an earlier
    /// one.
    pub(crate) fn created(&self, topic: &str, log: u64) {
        self.view.write().delete_below(topic, log);
        self.forget(topic);
    }

    /// The topic that was known under a name before, if one was, was deleted.
    pub(crate) fn deleted(&self, topic: &str, known: Option<u64>) {
        if let Some(log) = known {
            self.view.write().delete_below(topic, log + 1);
        }
        self.forget(topic);
    }

    /// The log of the first partition of a topic, if it is known.
    pub(crate) fn first_log(&self, topic: &str) -> Option<u64> {
        let view = self.view.read();
        view.topics.get(topic).map(|topic| topic.log)
    }

    /// Takes in what the answer to a request for a log says besides: who leads, or that the topic is gone.
    pub(crate) fn heed(&self, topic: &str, partition: i32, log: u64, error: &ClientError) {
        let ClientError::Server(server) = error else {
            return;
        };
        if let Some(hint) = &server.leader {
            self.note_leader(topic, partition, hint);
        }
        if server.code() == ErrorCode::TopicDeleted {
            self.log_deleted(topic, partition, log);
        }
    }

    /// A node says that the topic to which a log belonged was deleted.
    fn log_deleted(&self, topic: &str, partition: i32, log: u64) {
        let mut view = self.view.write();
        if let Some(known) = view.topics.get(topic)
            && log != 0
            && known.slot(partition).is_some_and(|slot| slot.log == log)
        {
            let later = known.log + 1;
            view.delete_below(topic, later);
            let _known = view.topics.remove(topic);
        }
        drop(view);
        self.want_refresh();
    }
}

impl View {
    fn delete_below(&mut self, topic: &str, log: u64) {
        if self.deleted.len() >= DELETED_MAX && !self.deleted.contains_key(topic) {
            let _any = self.deleted.pop_first();
        }
        let first = self.deleted.entry(topic.to_owned()).or_default();
        *first = log.max(*first);
    }
}

/// The log of the first partition of a topic, 0 where the node does not say.
fn log_of(topic: &v1::Topic) -> u64 {
    let mut partitions = topic.partitions.iter();
    let first = partitions.find(|partition| partition.partition == 0);
    first.map_or(0, |first| first.log_id)
}

fn merge_topic(
    topics: &mut HashMap<String, Topic>,
    nodes: &HashMap<u64, Arc<str>>,
    news: v1::Topic,
    log: u64,
) -> bool {
    let known = topics.entry(news.name).or_insert_with(|| Topic {
        id: news.topic_id.clone(),
        log,
        partitions: Vec::new(),
    });
    let mut changed = false;
    if known.id != news.topic_id {
        if log != 0 && log < known.log {
            // The node still knows an earlier topic of that name.
            return false;
        }
        known.id = news.topic_id;
        known.partitions.clear();
        changed = true;
    }
    known.log = known.log.max(log);
    if known.partitions.len() < news.partitions.len() {
        known
            .partitions
            .resize(news.partitions.len(), Slot::default());
        changed = true;
    }
    for partition in news.partitions {
        let at = usize::try_from(partition.partition).ok();
        let Some(slot) = at.and_then(|at| known.partitions.get_mut(at)) else {
            continue;
        };
        slot.log = slot.log.max(partition.log_id);
        let epoch = partition.leader_epoch;
        if let Some(address) = nodes.get(&partition.leader) {
            let outdated = |known: &Leader| {
                let moved = known.node == partition.leader && known.address != *address;
                known.epoch < epoch || (known.epoch == epoch && moved)
            };
            if !slot.leader.as_ref().is_none_or(outdated) {
                continue;
            }
            let address = Arc::clone(address);
            slot.leader = Some(Leader {
                node: partition.leader,
                address,
                epoch,
                log: slot.log,
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
            log_id: 0,
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

    fn of_log(leader: u64, epoch: i32, log: u64) -> v1::DescribeResponse {
        let mut answer = describe(leader, epoch, &log.to_string());
        answer.topics[0].partitions[0].log_id = log;
        answer
    }

    /// Seed 221 of the simulator: a node that is behind describes the topic that was deleted.
    #[test]
    fn a_node_that_is_behind_brings_no_deleted_topic_back() {
        let metadata = Metadata::new(vec!["n1:1".to_owned()], Channels::new(None));
        let term = |metadata: &Metadata| metadata.leader("t", 0).map(|l| l.term());
        metadata.merge(of_log(1, 7, 5));
        metadata.merge(of_log(2, 1, 9));
        assert_eq!(
            term(&metadata),
            Some((9, 1)),
            "a later topic, whatever the term"
        );
        metadata.merge(of_log(1, 8, 5));
        assert_eq!(term(&metadata), Some((9, 1)));
        let of_earlier = v1::LeaderHint {
            node_id: 1,
            grpc_address: "n1:1".to_owned(),
            leader_epoch: 8,
            log_id: 5,
        };
        metadata.note_leader("t", 0, &of_earlier);
        assert_eq!(term(&metadata), Some((9, 1)));
        let known = metadata.first_log("t");
        metadata.deleted("t", known);
        metadata.merge(of_log(1, 2, 9));
        assert_eq!(metadata.partitions("t"), None, "it was deleted");
        metadata.created("t", 12);
        metadata.merge(of_log(1, 2, 10));
        assert_eq!(metadata.partitions("t"), None, "deleted before that");
        metadata.merge(of_log(1, 1, 12));
        assert_eq!(term(&metadata), Some((12, 1)));
        metadata.log_deleted("t", 0, 9);
        assert_eq!(term(&metadata), Some((12, 1)), "known already");
        metadata.log_deleted("t", 0, 12);
        metadata.merge(of_log(1, 1, 12));
        assert_eq!(metadata.log("t", 0), 0);
    }

    #[test]
    fn what_is_remembered_of_deleted_topics_is_bounded() {
        let mut view = View::default();
        for topic in 0..2 * DELETED_MAX {
            view.delete_below(&topic.to_string(), 1);
        }
        assert_eq!(view.deleted.len(), DELETED_MAX);
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
