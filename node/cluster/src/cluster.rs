//! The handle of the cluster layer and what the layers above may ask of it.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use seriatim_consensus::{Consensus, Lane};
use seriatim_partition::Partition;
use seriatim_proto::{
    ids::{NodeId, ProducerId, TopicPartition},
    internal::v1 as wire,
    limits::MAX_TOPIC_PARTITIONS,
    settings::TopicSettings,
    topic_name,
};
use seriatim_runtime::{
    clock,
    task::{self, TaskGroup},
};
use seriatim_storage::Storage;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use wire::{meta_command::Command, meta_reply::Reply};

use crate::{
    balance, bootstrap, control,
    error::ClusterError,
    gossip,
    image::{Image, Topic},
    internal::{GROUPS_TOPIC, InternalHost},
    leaders::{Leader, LeaderTable},
    machine::MetaMachine,
    moving::Moves,
    notices,
    own_replica::OwnReplica,
    probe,
    reconcile::{self, Replicas},
    records,
    replica::LocalReplica,
    retention, stopping,
    store::{self, StoreError},
    validate,
};

/// Most replicas of one partition.
pub(crate) const MAX_REPLICATION_FACTOR: u32 = 7;

/// Producer ids that a node takes from the controller at once.
const PRODUCER_BLOCK: u32 = 1000;

/// How a node takes part in a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// This node; 1 or more, chosen by its operator.
    pub node_id: NodeId,
    /// Its failure domain; empty for none.
    pub rack: String,
    /// Replication addresses of the first nodes, the same on every node. A node recognises itself
    /// by `replication_addr`, letter by letter. The node that is named first founds the cluster.
    pub seeds: Vec<String>,
    /// Address of the native API as others reach it.
    pub grpc_addr: String,
    /// Address of the replication lane as others reach it.
    pub replication_addr: String,
    /// Address of the HTTP listener as others reach it.
    pub http_addr: String,
    /// How often all partitions are looked at for old records; default 30 s. Besides, a partition is
    /// looked at whenever it begins another file.
    pub retention_interval: Duration,
    /// Bytes of the metadata log before every node drops what its image makes superfluous; default
    /// 64 MiB, the same on every node.
    pub metadata_log_bytes: u64,
    /// How often this node looks for partitions that it leads although another replica is preferred,
    /// and hands them over; zero for never (the default).
    pub leader_balance_interval: Duration,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            node_id: NodeId::default(),
            rack: String::new(),
            seeds: Vec::new(),
            grpc_addr: String::new(),
            replication_addr: String::new(),
            http_addr: String::new(),
            retention_interval: Duration::from_secs(30),
            metadata_log_bytes: 64 << 20,
            leader_balance_interval: Duration::ZERO,
        }
    }
}

/// A topic to create.
#[derive(Debug, Clone, Default)]
pub struct CreateTopic {
    /// The name.
    pub name: String,
    /// Partitions; 0 for one.
    pub partitions: u32,
    /// Replicas of each partition; 0 for three, or the number of nodes if that is smaller.
    pub replication_factor: u32,
    /// Settings as text; the rest has its default.
    pub settings: BTreeMap<String, String>,
    /// Only check whether it could be created.
    pub validate_only: bool,
}

/// How far this node is.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Starting,
    /// Registered with the controller of its cluster.
    Ready,
    /// Cannot be part of the cluster.
    Failed(ClusterError),
}

/// The cluster as this node sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: ClusterOptions,
    pub(crate) storage: Storage,
    pub(crate) consensus: Consensus,
    pub(crate) lane: Lane,
    pub(crate) host: Arc<dyn InternalHost>,
    tasks: TaskGroup,
    /// Ends the tasks of this layer.
    stopping: CancellationToken,
    pub(crate) machine: Arc<MetaMachine>,
    pub(crate) incarnation: String,
    /// The metadata group, once this node runs its replica.
    pub(crate) control: OwnReplica,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) leaders: LeaderTable,
    pub(crate) replicas: Replicas,
    pub(crate) founding: probe::Founding,
    pub(crate) gossip: gossip::Receiver,
    pub(crate) moves: Moves,
    /// One topic is placed at a time, so that each sees the load of the one before.
    pub(crate) placing: tokio::sync::Mutex<()>,
    producer_ids: tokio::sync::Mutex<Range<u64>>,
}

impl Cluster {
    /// Starts the cluster layer of this node: it finds, founds or joins its cluster in the
    /// background ([`Cluster::ready`]) and runs the partitions that are its own, those of internal
    /// topics by way of `host`.
    ///
    /// Fails at once only where this node's own files or configuration are at fault.
    pub async fn start(
        options: ClusterOptions,
        storage: Storage,
        consensus: Consensus,
        lane: Lane,
        host: Arc<dyn InternalHost>,
        tasks: TaskGroup,
    ) -> Result<Self, ClusterError> {
        validate::options(&options)?;
        let files = storage.clone();
        let log_bytes = options.metadata_log_bytes;
        let (incarnation, machine) = task::blocking("load-image", move || {
            let incarnation = store::incarnation(files.meta())?;
            let machine = MetaMachine::load(&files, log_bytes).map_err(store_error)?;
            Ok::<_, ClusterError>((incarnation, machine))
        })
        .await?;
        let inner = Arc::new(Inner {
            leaders: LeaderTable::new(options.node_id),
            options,
            storage,
            consensus,
            lane,
            host,
            tasks,
            stopping: CancellationToken::new(),
            machine,
            incarnation,
            control: OwnReplica::default(),
            phase: watch::Sender::new(Phase::Starting),
            replicas: Replicas::default(),
            founding: probe::Founding::default(),
            gossip: gossip::Receiver::default(),
            moves: Moves::default(),
            placing: tokio::sync::Mutex::new(()),
            producer_ids: tokio::sync::Mutex::new(0..0),
        });
        probe::serve(&inner);
        control::serve(&inner);
        gossip::start(&inner);
        reconcile::start(&inner);
        retention::start(&inner);
        balance::start(&inner);
        notices::start(&inner);
        bootstrap::start(&inner);
        Ok(Self { inner })
    }

    /// Waits until this node is a registered part of its cluster; fails where it cannot be.
    pub async fn ready(&self) -> Result<(), ClusterError> {
        let mut phase = self.inner.phase.subscribe();
        let reached = phase
            .wait_for(|phase| !matches!(phase, Phase::Starting))
            .await;
        match reached.as_deref() {
            Ok(Phase::Ready) => Ok(()),
            Ok(Phase::Failed(error)) => Err(error.clone()),
            Ok(Phase::Starting) | Err(_) => Err(ClusterError::ShuttingDown),
        }
    }

    /// Whether [`ready`](Self::ready) has come true. Until then this node may know an older image than
    /// it once did, or none: what it lost with its power it hears of again before.
    pub fn is_ready(&self) -> bool {
        matches!(*self.inner.phase.borrow(), Phase::Ready)
    }

    /// Waits until this node finds that it cannot be part of the cluster, which may be never.
    /// The process is then to print the error and to exit.
    pub async fn failed(&self) -> ClusterError {
        let mut phase = self.inner.phase.subscribe();
        match phase
            .wait_for(|phase| matches!(phase, Phase::Failed(_)))
            .await
            .as_deref()
        {
            Ok(Phase::Failed(error)) => error.clone(),
            _ => ClusterError::ShuttingDown,
        }
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.inner.options.node_id
    }

    /// What the cluster consists of, as far as this node has heard.
    pub fn image(&self) -> Arc<Image> {
        self.inner.machine.image()
    }

    /// Follows the image.
    pub fn watch_image(&self) -> watch::Receiver<Arc<Image>> {
        self.inner.machine.watch()
    }

    /// The partition's replica on this node, while it is open.
    pub fn partition(&self, tp: &TopicPartition) -> Option<Partition> {
        self.inner.replicas.partition(tp)
    }

    /// Every replica that the image gives to this node, with its state.
    pub fn local_replicas(&self) -> Vec<LocalReplica> {
        self.inner.replicas.list()
    }

    /// Who leads a partition, as far as this node has heard.
    pub fn leader(&self, tp: &TopicPartition) -> Option<Leader> {
        let group = self.image().partition(tp)?.group;
        self.inner.leaders.leader(group)
    }

    /// The node that leads the metadata group, as far as this node has heard.
    pub fn controller(&self) -> Option<NodeId> {
        control::controller(&self.inner)
    }

    /// Creates a topic, placed on the registered nodes, and waits until this node's image has it.
    /// The same call may be repeated by this layer, never by its effect.
    pub async fn create_topic(
        &self,
        topic: CreateTopic,
        deadline: Instant,
    ) -> Result<Arc<Topic>, ClusterError> {
        topic_name::validate(&topic.name)?;
        validate::not_internal(&topic.name)?;
        validate::settings(&topic.settings)?;
        let most = u32::try_from(MAX_TOPIC_PARTITIONS).unwrap_or(u32::MAX);
        validate::range("the number of partitions", topic.partitions, most)?;
        validate::range(
            "the replication factor",
            topic.replication_factor,
            MAX_REPLICATION_FACTOR,
        )?;
        let intent = wire::CreateTopicIntent {
            name: topic.name.clone(),
            request_id: crate::new_id(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            settings: records::settings(&topic.settings),
            validate_only: topic.validate_only,
        };
        self.create(intent, deadline).await
    }

    /// The internal topic of consumer groups, created by the first call in the life of the cluster.
    /// Its partitions may not have leaders yet ([`Cluster::wait_for_leaders`]).
    pub async fn groups_topic(&self, deadline: Instant) -> Result<Arc<Topic>, ClusterError> {
        if let Some(topic) = self.image().topics.get(GROUPS_TOPIC) {
            return Ok(Arc::clone(topic));
        }
        let intent = wire::CreateTopicIntent {
            name: GROUPS_TOPIC.to_owned(),
            // The same for every node, so that those who ask at the same time get the same topic.
            request_id: GROUPS_TOPIC.to_owned(),
            partitions: self.inner.host.partitions(),
            ..Default::default()
        };
        self.create(intent, deadline).await
    }

    async fn create(
        &self,
        intent: wire::CreateTopicIntent,
        deadline: Instant,
    ) -> Result<Arc<Topic>, ClusterError> {
        let validate_only = intent.validate_only;
        let record = control::create_topic(&self.inner, intent, deadline).await?;
        if validate_only {
            return Ok(Arc::new(record));
        }
        let mut image = self.watch_image();
        let there = image.wait_for(|image| {
            let known = image.topics.get(&record.name);
            known.is_some_and(|known| known.id == record.id) || image.next_group > last(&record)
        });
        // The topic exists in any case; a slow image only means that this node hears of it later.
        if clock::timeout_at(deadline, there).await.is_err() {
            tracing::debug!(
                topic = record.name,
                "created, but not yet in this node's image"
            );
        }
        Ok(Arc::new(record))
    }

    /// Waits until every partition of the topic has a leader that this node knows. `false`: not
    /// before the deadline, or there is no such topic.
    pub async fn wait_for_leaders(&self, topic: &str, deadline: Instant) -> bool {
        let mut changes = self.inner.leaders.changes();
        loop {
            let Some(topic) = self.image().topics.get(topic).cloned() else {
                return false;
            };
            let led = |group| self.inner.leaders.leader(group).is_some();
            if topic
                .partitions
                .iter()
                .all(|partition| led(partition.group))
            {
                return true;
            }
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return false;
            }
            let look_again = left.min(Duration::from_millis(20));
            // Woken by leaders of this node; those of other nodes are looked for again.
            drop(clock::timeout(look_again, changes.changed()).await);
        }
    }

    /// Deletes a topic and all its records.
    pub async fn delete_topic(&self, name: &str, deadline: Instant) -> Result<(), ClusterError> {
        topic_name::validate(name)?;
        validate::not_internal(name)?;
        control::delete_topic(&self.inner, name, deadline).await
    }

    /// Changes a topic's settings; an empty value returns one to its default. Answers with the
    /// topic's settings, without its partitions.
    pub async fn alter_topic(
        &self,
        name: &str,
        settings: BTreeMap<String, String>,
        deadline: Instant,
    ) -> Result<TopicSettings, ClusterError> {
        topic_name::validate(name)?;
        validate::not_internal(name)?;
        validate::settings(&settings)?;
        let alter = wire::AlterTopic {
            name: name.to_owned(),
            settings: records::settings(&settings),
        };
        let reply = control::command(&self.inner, Command::AlterTopic(alter), deadline).await?;
        match reply {
            Reply::Topic(topic) => Ok(Topic::from(topic).settings),
            _ => Err(control::unexpected()),
        }
    }

    /// A producer id that no producer ever had.
    pub async fn allocate_producer_id(
        &self,
        deadline: Instant,
    ) -> Result<ProducerId, ClusterError> {
        let mut ids = self.inner.producer_ids.lock().await;
        if ids.is_empty() {
            let block = wire::AllocateProducerIds {
                count: PRODUCER_BLOCK,
            };
            let command = Command::AllocateProducerIds(block);
            match control::command(&self.inner, command, deadline).await? {
                Reply::ProducerIds(block) => {
                    *ids = block.first..block.first + u64::from(block.count);
                }
                _ => return Err(control::unexpected()),
            }
        }
        let id = ids.next().and_then(|id| i64::try_from(id).ok());
        id.map(ProducerId).ok_or_else(control::unexpected)
    }

    /// Prepares this node for its end: it asks for no more votes, tells the others so, and hands over
    /// what it leads, until it leads nothing that another replica could lead, or `deadline`. Says how
    /// many groups it still leads.
    pub async fn hand_over(&self, deadline: Instant) -> usize {
        stopping::hand_over(&self.inner, deadline).await
    }

    /// Whether [`Cluster::hand_over`] was called.
    pub fn is_stopping(&self) -> bool {
        self.inner.gossip.stops()
    }

    /// Stops the tasks of this layer and closes this node's partitions.
    pub async fn shutdown(&self) {
        self.inner.stopping.cancel();
        reconcile::shutdown(&self.inner).await;
        if self.inner.control.set(None).is_some() {
            self.inner
                .consensus
                .close(seriatim_proto::ids::GroupId::METADATA)
                .await;
        }
    }
}

impl Inner {
    pub(crate) fn me(&self) -> NodeId {
        self.options.node_id
    }

    /// Spawns a task that ends with this node.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) {
        let tasks = self.tasks.clone();
        let stopping = self.stopping.clone();
        drop(self.tasks.spawn(name, async move {
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                () = tasks.cancelled() => {}
                _ = future => {}
            }
        }));
    }

    pub(crate) fn fail(&self, error: ClusterError) {
        tracing::error!(%error, "this node cannot be part of the cluster");
        let _ = self.phase.send_replace(Phase::Failed(error));
    }
}

pub(crate) fn store_error(error: StoreError) -> ClusterError {
    match error {
        StoreError::Storage(error) => error.into(),
        record @ StoreError::Record { .. } => ClusterError::Configuration {
            what: format!("{record} cannot be read: this data_dir was written by another version"),
        },
    }
}

fn last(topic: &Topic) -> u64 {
    topic
        .partitions
        .iter()
        .map(|partition| partition.group.0)
        .max()
        .unwrap_or(u64::MAX)
}
