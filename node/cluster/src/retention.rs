//! Looks after old records: of all partitions of this node at intervals, and of those that have begun
//! another file at once.

use std::{collections::BTreeSet, sync::Arc};

use futures::StreamExt as _;
use seriatim_partition::{Partition, TrimError};
use seriatim_runtime::clock;
use seriatim_storage::LogKey;

use crate::{cluster::Inner, command::LOG_START_LEVEL, metrics};

/// Partitions that are looked after at the same time: each may wait for its majority.
const AT_ONCE: usize = 32;

/// Starts the passes.
pub(crate) fn start(inner: &Arc<Inner>) {
    let task = Arc::clone(inner);
    inner.spawn("retention", async move {
        let mut next = clock::now() + task.options.retention_interval;
        loop {
            let rolled = tokio::select! {
                biased;
                () = clock::sleep_until(next) => None,
                keys = task.storage.rolled() => Some(keys),
            };
            if rolled.is_none() {
                next = clock::now() + task.options.retention_interval;
            }
            // A replica of older software would stop at a command that it does not know.
            if task.machine.image().feature_level >= LOG_START_LEVEL {
                pass(&task, rolled.as_ref()).await;
            }
        }
    });
}

/// One look at these logs, or at all.
async fn pass(inner: &Inner, only: Option<&BTreeSet<LogKey>>) {
    let began = clock::now();
    let partitions = inner.replicas.partitions(only);
    futures::stream::iter(partitions)
        .for_each_concurrent(AT_ONCE, |partition| async move { look(&partition).await })
        .await;
    if only.is_none() {
        metrics::retention_pass(began.elapsed());
    }
}

async fn look(partition: &Partition) {
    match partition.retain(clock::wall_ms()).await {
        Ok(Some(start)) => {
            metrics::log_start_moved();
            tracing::debug!(partition = %partition.name(), %start, "old records are gone");
        }
        Ok(None) => {}
        // The next pass is the next attempt, here or on another node.
        Err(
            error @ (TrimError::NotLeader { .. }
            | TrimError::NotReady
            | TrimError::NoMajority
            | TrimError::Timeout),
        ) => {
            tracing::debug!(partition = %partition.name(), %error, "retention waits");
        }
        Err(error) => {
            tracing::warn!(partition = %partition.name(), %error, "retention failed");
        }
    }
}
