//! Runs this node's replicas of the shards for the cluster layer.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;
use seriatim_cluster::{GROUPS_PARTITIONS, GROUPS_TOPIC, Hosted, InternalHost};
use seriatim_consensus::{Consensus, ConsensusError, Group, GroupSpec};
use seriatim_proto::ids::TopicPartition;
use seriatim_runtime::task::{self, JoinHandle};
use seriatim_storage::{LogKey, LogOptions};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    coordinator::{Coordinator, EVENTS},
    groups::{Inner, Shard},
    machine::{Handle, ShardMachine},
    store::{self, Keys, StoreError},
};

/// The host as the cluster layer holds it: it does not keep the groups alive, which hold the cluster
/// layer themselves.
#[derive(Debug)]
pub(crate) struct Host(pub(crate) Weak<Inner>);

#[async_trait]
impl InternalHost for Host {
    fn partitions(&self) -> u32 {
        let inner = self.0.upgrade();
        inner.map_or(GROUPS_PARTITIONS, |inner| inner.options.shards)
    }

    async fn open(
        &self,
        consensus: &Consensus,
        tp: &TopicPartition,
        key: LogKey,
    ) -> Result<Box<dyn Hosted>, ConsensusError> {
        let number = u32::try_from(tp.partition.0).ok();
        let (Some(inner), Some(number)) = (self.0.upgrade(), number) else {
            return Err(ConsensusError::Stopped("the node stops".to_owned()));
        };
        if tp.topic != GROUPS_TOPIC {
            let why =
                format!("this version of seriatim does not know what {tp} is for; upgrade it");
            return Err(ConsensusError::Refused(why));
        }
        let (storage, name) = (inner.storage.clone(), tp.to_string());
        let log_bytes = inner.options.log_bytes;
        let load = move || ShardMachine::load(&storage, key, (name, log_bytes));
        let loaded = task::blocking("groups-load", load).await;
        let machine = loaded.map_err(unreadable)?;
        let spec = GroupSpec {
            key,
            log: LogOptions {
                // Only whole files are dropped.
                segment_bytes: log_bytes / 4,
                ..LogOptions::default()
            },
            name: tp.to_string(),
        };
        let group = consensus
            .open(spec, Arc::new(Handle(Arc::clone(&machine))))
            .await?;
        let (events, received) = mpsc::channel(EVENTS);
        let (serving, served) = watch::channel(None);
        let cancel = CancellationToken::new();
        let coordinator = Coordinator {
            shard: number,
            group: group.clone(),
            machine: Arc::clone(&machine),
            events: received,
            serving,
            inner: Arc::clone(&inner),
            cancel: cancel.clone(),
        };
        let task = task::spawn("coordinator", coordinator.run());
        let shard = Arc::new(Shard {
            number,
            group,
            machine,
            events,
            serving: served,
        });
        let _before = inner.shards.write().insert(number, Arc::clone(&shard));
        Ok(Box::new(Replica {
            inner: Arc::downgrade(&inner),
            consensus: consensus.clone(),
            shard,
            cancel,
            task: Mutex::new(Some(task)),
        }))
    }

    async fn remove(&self, key: LogKey) {
        let Some(inner) = self.0.upgrade() else {
            return;
        };
        let storage = inner.storage.clone();
        let remove = move || store::remove(storage.meta(), &Keys::new(key));
        if let Err(error) = task::blocking("groups-remove", remove).await {
            tracing::error!(%key, %error, "remove the groups of a replica");
        }
    }
}

fn unreadable(error: StoreError) -> ConsensusError {
    match error {
        StoreError::Storage(error) => ConsensusError::Storage(error),
        error @ (StoreError::Record { .. } | StoreError::Key(_)) => {
            ConsensusError::Refused(format!("{error} cannot be read"))
        }
    }
}

/// An open replica of a shard.
#[derive(Debug)]
struct Replica {
    inner: Weak<Inner>,
    consensus: Consensus,
    shard: Arc<Shard>,
    cancel: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[async_trait]
impl Hosted for Replica {
    fn group(&self) -> &Group {
        &self.shard.group
    }

    async fn close(&self) {
        self.cancel.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(shard = self.shard.number, %error, "a coordinator failed");
        }
        if let Some(inner) = self.inner.upgrade() {
            let mut shards = inner.shards.write();
            let current = shards.get(&self.shard.number);
            if current.is_some_and(|current| Arc::ptr_eq(current, &self.shard)) {
                let _closed = shards.remove(&self.shard.number);
            }
        }
        self.consensus.close(self.shard.group.key().group).await;
    }
}
