//! Says in the log what an operator should hear of: nodes that join, leave, are gone, or have come
//! back without their data.

use std::sync::Arc;

use seriatim_proto::ids::NodeId;

use crate::{cluster::Inner, image::Image};

/// Starts to follow the image.
pub(crate) fn start(inner: &Arc<Inner>) {
    let task = Arc::clone(inner);
    inner.spawn("notices", async move {
        let mut image = task.machine.watch();
        let mut before = Arc::clone(&image.borrow_and_update());
        while image.changed().await.is_ok() {
            let now = Arc::clone(&image.borrow_and_update());
            // What was known when this node started is no news.
            if !before.cluster_id.is_empty() {
                tell(&before, &now);
            }
            before = now;
        }
    });
}

fn tell(before: &Image, now: &Image) {
    for (node, info) in &now.nodes {
        let Some(old) = before.nodes.get(node) else {
            tracing::info!(%node, address = info.replication_addr, "a node has joined the cluster");
            continue;
        };
        if Arc::ptr_eq(old, info) {
            continue;
        }
        if old.data_lost_ms != info.data_lost_ms {
            let replicas = held(now, *node);
            tracing::warn!(
                %node,
                replicas,
                "a node came back without its data: its replicas are rebuilt from the others"
            );
        }
        match (old.leaving, info.leaving) {
            (false, true) => {
                let replicas = held(now, *node);
                tracing::info!(%node, replicas, "a node is being decommissioned");
            }
            (true, false) => tracing::info!(%node, "a node stays after all"),
            _ => {}
        }
    }
    for node in before
        .nodes
        .keys()
        .filter(|node| !now.nodes.contains_key(node))
    {
        tracing::info!(%node, "a node was removed from the cluster");
    }
}

fn held(image: &Image, node: NodeId) -> usize {
    let all = image.partitions();
    all.filter(|(_, _, partition)| partition.replica_on(node).is_some())
        .count()
}
