//! The end of a node that was asked to stop: what the binary does when it gets a signal.

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

/// Stops a node. Clients are served by `serving` until it has handed over what it led; that ends early
/// if it is asked to stop once more.
pub(super) async fn stop(
    running: Running,
    grpc: Option<JoinHandle<()>>,
    serving: impl Future<Output = ()>,
) {
    let cluster = running.broker.cluster();
    tokio::select! {
        biased;
        left = cluster.hand_over(clock::now() + HAND_OVER) => {
            tracing::info!(groups = left, "could not be handed over");
        }
        () = serving => {}
    }
    running.broker.stop();
    if let Some(grpc) = grpc {
        let ended = clock::timeout(LAST_CALLS, grpc).await.is_ok();
        tracing::info!(ended, "calls under way");
    }
    cluster.shutdown().await;
    running.consensus.shutdown().await;
    let _ended = running.tasks.shutdown(STOP).await;
    running.storage.shutdown().await;
}
