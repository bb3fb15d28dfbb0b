//! The handle: what the layers above may ask of the groups on this node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use seriatim_cluster::{Cluster, GROUPS_PARTITIONS, GROUPS_TOPIC, Image, InternalHost};
use seriatim_consensus::Group;
use seriatim_proto::v1;
use seriatim_runtime::clock::Instant;
use seriatim_storage::Storage;
use tokio::sync::{mpsc, watch};

use crate::{
    coordinator::{Event, led},
    errors,
    host::Host,
    limits::MAX_COORDINATORS,
    machine::ShardMachine,
    metrics::Metrics,
    names::{check_group, shard_of},
    topics::Topics,
};

/// Settings of the consumer groups of a node; the same on every node.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// How long a group without members keeps its offsets; default 7 days.
    pub retention: Duration,
    /// Bytes of log after which a replica of a shard takes a snapshot and drops the entries before
    /// it; default 64 MiB.
    pub log_bytes: u64,
    /// Shards, over which the groups of the cluster are spread; default 8. Fixed for the life of a
    /// cluster, so no node offers it as a setting; a test may want fewer.
    pub shards: u32,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(7 * 24),
            log_bytes: 64 << 20,
            shards: GROUPS_PARTITIONS,
        }
    }
}

/// The consumer groups of this node: its replicas of the shards, and the coordinators of those that
/// it leads. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Groups(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) storage: Storage,
    pub(crate) options: GroupOptions,
    pub(crate) metrics: Metrics,
    cluster: watch::Sender<Option<Cluster>>,
    pub(crate) shards: RwLock<BTreeMap<u32, Arc<Shard>>>,
    /// The topics of the last image that was asked for.
    topics: Mutex<Option<OfImage>>,
}

/// An image and its topics.
type OfImage = (Arc<Image>, Arc<Topics>);

/// One shard's replica on this node.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) number: u32,
    pub(crate) group: Group,
    pub(crate) machine: Arc<ShardMachine>,
    pub(crate) events: mpsc::Sender<Event>,
    /// The term in which its coordinator serves.
    pub(crate) serving: watch::Receiver<Option<u64>>,
}

impl Groups {
    /// Groups in this storage. The cluster layer runs their replicas by way of [`Groups::host`];
    /// they are coordinated once the cluster is [attached](Groups::attach).
    pub fn new(storage: Storage, options: GroupOptions) -> Self {
        Self(Arc::new(Inner {
            storage,
            options,
            metrics: Metrics::new(),
            cluster: watch::Sender::new(None),
            shards: RwLock::default(),
            topics: Mutex::default(),
        }))
    }

    /// Runs the replicas of the shards for the cluster layer. These groups must outlive it.
    pub fn host(&self) -> Arc<dyn InternalHost> {
        Arc::new(Host(Arc::downgrade(&self.0)))
    }

    /// Gives the coordinators the cluster that they work in.
    pub fn attach(&self, cluster: &Cluster) {
        let _none = self.0.cluster.send_replace(Some(cluster.clone()));
    }

    /// Who coordinates these groups, one answer for each. Makes the partitions of groups at the
    /// first call ever, and waits for their leaders until the deadline.
    pub async fn coordinators(
        &self,
        groups: &[String],
        deadline: Instant,
    ) -> Result<Vec<v1::Coordinator>, v1::Error> {
        if groups.is_empty() || groups.len() > MAX_COORDINATORS {
            return Err(v1::Error::new(
                v1::ErrorCode::InvalidRequest,
                format!(
                    "ask for the coordinators of 1 to {MAX_COORDINATORS} groups, not of {}",
                    groups.len()
                ),
            ));
        }
        for group in groups {
            check_group(group)?;
        }
        let cluster = self.0.cluster_now().ok_or_else(errors::starting)?;
        let known = cluster.image().topics.contains_key(GROUPS_TOPIC);
        let made = cluster.groups_topic(deadline).await;
        let _topic = made.map_err(|error| error.to_error())?;
        if !known && !cluster.wait_for_leaders(GROUPS_TOPIC, deadline).await {
            tracing::debug!("not every partition of groups has a leader in time");
        }
        let shards = self.0.options.shards;
        let coordinator =
            |group: &String| errors::coordinator(&cluster, group, shard_of(group, shards));
        Ok(groups.iter().map(coordinator).collect())
    }

    /// The shard of a group, its leader's term and the cluster, if this node leads it.
    pub(crate) fn coordinated(&self, group: &str) -> Result<(Arc<Shard>, u64, Cluster), v1::Error> {
        check_group(group)?;
        let cluster = self.0.cluster_now().ok_or_else(errors::starting)?;
        let number = shard_of(group, self.0.options.shards);
        let shard = self.0.shards.read().get(&number).cloned();
        let leading = shard.and_then(|shard| {
            let term = led(&shard.group.state().borrow())?;
            Some((shard, term))
        });
        match leading {
            Some((shard, term)) => Ok((shard, term, cluster)),
            None => Err(errors::not_coordinator(&cluster, number)),
        }
    }

    /// Shards whose coordinator serves on this node.
    pub(crate) fn served(&self) -> Vec<Arc<Shard>> {
        let shards = self.0.shards.read();
        let served = shards
            .values()
            .filter(|shard| shard.serving.borrow().is_some());
        served.cloned().collect()
    }
}

impl Inner {
    /// The cluster, once it is attached.
    pub(crate) async fn cluster(&self) -> Option<Cluster> {
        let mut cluster = self.cluster.subscribe();
        let attached = cluster.wait_for(Option::is_some).await;
        attached.ok().and_then(|cluster| cluster.clone())
    }

    pub(crate) fn cluster_now(&self) -> Option<Cluster> {
        self.cluster.borrow().clone()
    }

    /// The topics of an image.
    pub(crate) fn topics(&self, image: &Arc<Image>) -> Arc<Topics> {
        let mut last = self.topics.lock();
        if let Some((of, topics)) = &*last
            && Arc::ptr_eq(of, image)
        {
            return Arc::clone(topics);
        }
        let topics = Arc::new(Topics::of(image));
        *last = Some((Arc::clone(image), Arc::clone(&topics)));
        topics
    }
}
