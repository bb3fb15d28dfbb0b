//! The end of a node that was asked to stop, or cannot go on: what the binary does then.

use std::time::Duration;

use seriatim_broker::Broker;
use seriatim_consensus::Consensus;
use seriatim_runtime::{
    clock,
    task::{JoinHandle, TaskGroup},
};
use seriatim_storage::Storage;

/// How long a node may take to hand over what it leads.
const HAND_OVER: Duration = Duration::from_secs(4);

/// How long calls under way may take to end after that.
const LAST_CALLS: Duration = Duration::from_millis(1500);

/// How long its tasks may take to stop.
const STOP: Duration = Duration::from_secs(3);

/// A node that serves.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) broker: Broker,
    pub(super) consensus: Consensus,
    pub(super) storage: Storage,
    pub(super) tasks: TaskGroup,
}

/// Has a node hand over what it leads. Clients are served by `serving` meanwhile; that ends early if it
/// is asked to stop once more.
pub(super) async fn hand_over(broker: &Broker, serving: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        left = broker.cluster().hand_over(clock::now() + HAND_OVER) => {
            tracing::info!(groups = left, "could not be handed over");
        }
        () = serving => {}
    }
}

/// Ends a node.
pub(super) async fn close(running: Running, grpc: Option<JoinHandle<()>>) {
    running.broker.stop();
    if let Some(grpc) = grpc {
        let ended = clock::timeout(LAST_CALLS, grpc).await.is_ok();
        tracing::info!(ended, "calls under way");
    }
    running.broker.cluster().shutdown().await;
    running.consensus.shutdown().await;
    let _ended = running.tasks.shutdown(STOP).await;
    running.storage.shutdown().await;
}
