//! The reconciler: opens and closes this node's partitions until they are what the image says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::join_all};
use parking_lot::{Mutex, RwLock};
use seriatim_partition::Partition;
use seriatim_proto::ids::{GroupId, NodeId, TopicPartition};
use seriatim_runtime::{
    clock, hit,
    task::{self, JoinHandle},
};
use seriatim_storage::LogKey;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Inner,
    image::Image,
    moving::Goal,
    opened::Opened,
    replica::{LocalReplica, LocalState, ReplicaTask, Target},
};

/// Replicas that are opened at the same time.
const OPENING: usize = 32;

/// How long a stopping node waits for its partitions to close.
const CLOSE: Duration = Duration::from_secs(10);

/// This node's replicas.
#[derive(Debug)]
pub(crate) struct Replicas {
    table: RwLock<BTreeMap<TopicPartition, Entry>>,
    opening: Semaphore,
    /// Logs found on disk at the start that the image has not yet explained.
    found: Mutex<BTreeSet<LogKey>>,
}

#[derive(Debug)]
struct Entry {
    key: LogKey,
    state: LocalState,
    opened: Option<Opened>,
    target: watch::Sender<Target>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Default for Replicas {
    fn default() -> Self {
        Self {
            table: RwLock::default(),
            opening: Semaphore::new(OPENING),
            found: Mutex::default(),
        }
    }
}

impl Replicas {
    pub(crate) fn partition(&self, tp: &TopicPartition) -> Option<Partition> {
        let table = self.table.read();
        table.get(tp)?.opened.as_ref()?.log().cloned()
    }

    /// The open event logs with these keys, or all.
    pub(crate) fn partitions(&self, only: Option<&BTreeSet<LogKey>>) -> Vec<Partition> {
        let table = self.table.read();
        let wanted = table
            .values()
            .filter(|entry| only.is_none_or(|keys| keys.contains(&entry.key)));
        wanted
            .filter_map(|entry| entry.opened.as_ref()?.log().cloned())
            .collect()
    }

    pub(crate) fn list(&self) -> Vec<LocalReplica> {
        let table = self.table.read();
        let replicas = table.iter().map(|(tp, entry)| LocalReplica {
            tp: tp.clone(),
            key: entry.key,
            state: entry.state.clone(),
            group: entry.opened.as_ref().map(|open| open.group().clone()),
            partition: entry.opened.as_ref().and_then(|open| open.log().cloned()),
        });
        replicas.collect()
    }

    /// Records a replica's state; ignored where another replica has taken its place.
    pub(crate) fn set(
        &self,
        tp: &TopicPartition,
        key: LogKey,
        state: LocalState,
        opened: Option<Opened>,
    ) {
        if let Some(entry) = self.table.write().get_mut(tp)
            && entry.key == key
        {
            entry.state = state;
            entry.opened = opened;
        }
    }

    /// Waits for the turn to open a replica; `None` where the node stops.
    pub(crate) async fn may_open(&self) -> Option<SemaphorePermit<'_>> {
        self.opening.acquire().await.ok()
    }
}

/// What the image gives to a node.
fn assigned(image: &Image, node: NodeId) -> BTreeMap<TopicPartition, (LogKey, Target)> {
    let mine = image.partitions().filter_map(|(topic, number, partition)| {
        let key = LogKey {
            group: partition.group,
            replica: partition.replica_on(node)?.id,
        };
        let target = Target {
            goal: Goal::of(partition),
            founders: partition.founders().to_vec(),
            settings: topic.settings.clone(),
        };
        Some((
            TopicPartition::new(topic.name.clone(), number),
            (key, target),
        ))
    });
    mine.collect()
}

/// Logs on disk that the image certainly gives to nobody any more. A log whose ids the image has
/// not given out yet belongs to a newer image: it is kept until that arrives.
fn discarded(
    image: &Image,
    found: &BTreeSet<LogKey>,
    assigned: &BTreeMap<TopicPartition, (LogKey, Target)>,
) -> Vec<LogKey> {
    let wanted: BTreeSet<LogKey> = assigned.values().map(|(key, _)| *key).collect();
    let known = |key: &LogKey| key.group.0 < image.next_group && key.replica.0 < image.next_replica;
    let mut gone: Vec<LogKey> = found.difference(&wanted).copied().collect();
    gone.retain(|key| key.group != GroupId::METADATA && known(key));
    gone
}

/// Starts to follow the image.
pub(crate) fn start(inner: &Arc<Inner>) {
    inner.replicas.found.lock().extend(inner.storage.logs());
    let task = Arc::clone(inner);
    inner.spawn("reconcile", async move {
        let mut image = task.machine.watch();
        loop {
            let now = Arc::clone(&image.borrow_and_update());
            reconcile(&task, &now);
            if image.changed().await.is_err() {
                return;
            }
        }
    });
}

fn reconcile(inner: &Arc<Inner>, image: &Image) {
    if image.cluster_id.is_empty()
        || inner.replicas.opening.is_closed()
        || !is_of(image, inner.me(), &inner.incarnation)
    {
        return;
    }
    let assigned = assigned(image, inner.me());
    let discarded = discarded(image, &inner.replicas.found.lock(), &assigned);
    let groups = image_groups(image);
    // Groups of a newer image are heard of before it arrives.
    inner
        .leaders
        .retain(|group| group.0 >= image.next_group || groups.contains(&group));
    let leaving = leaving(inner, &assigned);
    if !(discarded.is_empty() && leaving.is_empty()) {
        inner
            .replicas
            .found
            .lock()
            .retain(|key| !discarded.contains(key));
        let task = Arc::clone(inner);
        inner.spawn("remove-replicas", async move {
            discard(&task, discarded, leaving).await;
        });
    }
    let mut table = inner.replicas.table.write();
    for (tp, (key, target)) in assigned {
        let _ = inner.replicas.found.lock().remove(&key);
        if let Some(entry) = table.get(&tp) {
            let _ = entry.target.send_if_modified(|old| {
                let changed = *old != target;
                *old = target;
                changed
            });
        } else {
            let entry = enter(inner, &tp, key, target);
            let _ = table.insert(tp, entry);
        }
    }
}

/// Whether the image knows this node with this data folder. One that has lost its data first hears of
/// images that give it the replicas that it had: opened with empty logs, they would vote and accept
/// entries under ids that have voted before.
fn is_of(image: &Image, node: NodeId, incarnation: &str) -> bool {
    let known = image.nodes.get(&node);
    known.is_some_and(|known| known.incarnation == incarnation)
}

fn image_groups(image: &Image) -> BTreeSet<GroupId> {
    image
        .partitions()
        .map(|(_, _, partition)| partition.group)
        .collect()
}

/// Takes the replicas out of the table that are no longer this node's.
fn leaving(
    inner: &Inner,
    assigned: &BTreeMap<TopicPartition, (LogKey, Target)>,
) -> Vec<(TopicPartition, Entry)> {
    let mut table = inner.replicas.table.write();
    let gone: Vec<TopicPartition> = table
        .iter()
        .filter(|(tp, entry)| assigned.get(tp).is_none_or(|(key, _)| *key != entry.key))
        .map(|(tp, _)| tp.clone())
        .collect();
    gone.into_iter()
        .filter_map(|tp| table.remove_entry(&tp))
        .collect()
}

/// Starts a replica.
fn enter(inner: &Arc<Inner>, tp: &TopicPartition, key: LogKey, target: Target) -> Entry {
    let (target, wanted) = watch::channel(target);
    let cancel = CancellationToken::new();
    let replica = ReplicaTask {
        inner: Arc::clone(inner),
        tp: tp.clone(),
        key,
        target: wanted,
        cancel: cancel.clone(),
    };
    Entry {
        key,
        state: LocalState::Opening,
        opened: None,
        target,
        cancel,
        // Not a task of the group: it ends by closing the partition, in `leave` or `shutdown`.
        task: task::spawn("replica", replica.run()),
    }
}

/// Closes and removes what is no longer this node's.
///
/// First the image goes to disk. Otherwise a crash could bring an older image back, and with it a
/// replica whose log is gone: it would run with an empty log under an id that has voted.
async fn discard(inner: &Inner, logs: Vec<LogKey>, leaving: Vec<(TopicPartition, Entry)>) {
    let storage = inner.storage.clone();
    if let Err(error) = task::blocking("flush-image", move || storage.meta().flush()).await {
        tracing::error!(%error, "the image cannot be written: logs stay until the next start");
        for (_, entry) in &leaving {
            entry.cancel.cancel();
        }
        return;
    }
    if !logs.is_empty() {
        hit!("cluster.log.discarded");
    }
    let logs = logs.into_iter().map(|key| remove(inner, key).boxed());
    let leaving = leaving
        .into_iter()
        .map(|(tp, entry)| leave(inner, tp, entry).boxed());
    futures::stream::iter(logs.chain(leaving))
        .for_each_concurrent(OPENING, |gone| gone)
        .await;
}

/// Closes a replica that is no longer this node's, and removes its log. A damaged log is kept aside.
async fn leave(inner: &Inner, tp: TopicPartition, entry: Entry) {
    entry.cancel.cancel();
    if let Err(error) = entry.task.await {
        tracing::error!(partition = %tp, %error, "close a replica");
    }
    if let LocalState::Damaged(why) = entry.state {
        inner.host.remove(entry.key).await;
        match inner.storage.set_aside_log(entry.key, &why).await {
            Ok(path) => {
                tracing::warn!(partition = %tp, path = %path.display(), "damaged log kept aside");
            }
            Err(error) => tracing::error!(partition = %tp, %error, "set a damaged log aside"),
        }
    } else {
        tracing::info!(partition = %tp, "removing a replica that is no longer on this node");
        remove(inner, entry.key).await;
    }
}

async fn remove(inner: &Inner, key: LogKey) {
    inner.host.remove(key).await;
    if let Err(error) = inner.storage.remove_log(key).await {
        tracing::error!(group = %key.group, replica = %key.replica, %error, "remove a log");
    }
}

/// Closes every partition.
pub(crate) async fn shutdown(inner: &Inner) {
    inner.replicas.opening.close();
    let entries: Vec<Entry> = {
        let mut table = inner.replicas.table.write();
        std::mem::take(&mut *table).into_values().collect()
    };
    let closing = entries.into_iter().map(|entry| async move {
        entry.cancel.cancel();
        entry.task.await.is_ok()
    });
    if clock::timeout(CLOSE, join_all(closing)).await.is_err() {
        tracing::warn!("some partitions did not close in time");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use seriatim_proto::ids::ReplicaId;

    use super::*;
    use crate::image::{NodeInfo, PartitionInfo, Replica, Topic};

    fn image(partitions: u64, next: u64) -> Image {
        let partitions = (1..=partitions)
            .map(|group| PartitionInfo {
                group: GroupId(group),
                replicas: vec![Replica {
                    id: ReplicaId(group + 10),
                    node: NodeId(1 + group % 2),
                }],
                ..PartitionInfo::default()
            })
            .collect();
        let topic = Topic {
            name: "t".into(),
            partitions,
            ..Topic::default()
        };
        Image {
            topics: BTreeMap::from([("t".to_owned(), Arc::new(topic))]),
            next_group: next,
            next_replica: next + 10,
            ..Image::default()
        }
    }

    #[test]
    fn an_image_from_before_the_data_was_lost_is_not_followed() {
        let mut image = image(1, 2);
        assert!(!is_of(&image, NodeId(1), "new"), "it has not registered");
        for (registered, follows) in [("", false), ("old", false), ("new", true)] {
            let info = NodeInfo {
                id: NodeId(1),
                incarnation: registered.to_owned(),
                ..NodeInfo::default()
            };
            let _before = image.nodes.insert(NodeId(1), Arc::new(info));
            assert_eq!(is_of(&image, NodeId(1), "new"), follows, "{registered}");
        }
    }

    proptest! {
        #[test]
        fn never_discards_what_may_be_wanted(
            partitions in 0_u64..5,
            unknown in 0_u64..3,
            groups in proptest::collection::btree_set((0_u64..12, 1_u64..25), 0..12),
        ) {
            let image = image(partitions, partitions + 1 + unknown);
            let assigned = assigned(&image, NodeId(1));
            let found: BTreeSet<LogKey> = groups
                .into_iter()
                .map(|(group, replica)| LogKey { group: GroupId(group), replica: ReplicaId(replica) })
                .collect();
            let gone = discarded(&image, &found, &assigned);
            for key in &found {
                let wanted = assigned.values().any(|(wanted, _)| wanted == key);
                let future = key.group.0 >= image.next_group
                    || key.replica.0 >= image.next_replica;
                let kept = wanted || future || key.group == GroupId::METADATA;
                prop_assert_eq!(gone.contains(key), !kept);
            }
        }
    }
}
