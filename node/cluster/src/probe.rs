//! Questions between nodes that know each other by address only: who are you, which cluster is
//! yours? Asked of the seeds until a node has found its cluster.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use prost::Message as _;
use seriatim_consensus::{LaneError, LaneService};
use seriatim_proto::{ids::NodeId, internal::v1 as wire};

use crate::{cluster::Inner, control};

/// Lane message kind of [`wire::ProbeRequest`].
const KIND: u16 = 0x0100;

/// Longest time that one question waits for its answer.
const TIMEOUT: Duration = Duration::from_millis(500);

/// What this node knows of its cluster before the image says so.
#[derive(Debug, Default)]
pub(crate) struct Founding(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    cluster_id: String,
    founders: Vec<wire::NodeRecord>,
    peers: BTreeMap<NodeId, String>,
}

impl Founding {
    pub(crate) fn cluster_id(&self) -> String {
        self.0.lock().cluster_id.clone()
    }

    pub(crate) fn set_cluster_id(&self, cluster_id: &str) {
        cluster_id.clone_into(&mut self.0.lock().cluster_id);
    }

    /// Tells those who ask who founds the cluster, and under which replica ids.
    pub(crate) fn set_founders(&self, founders: Vec<wire::NodeRecord>) {
        self.0.lock().founders = founders;
    }

    /// Nodes that answered.
    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.0.lock().peers.keys().copied().collect()
    }

    /// Remembers where a node lives; `true` if that is news.
    fn meet(&self, node: NodeId, address: &str) -> bool {
        let before = self.0.lock().peers.insert(node, address.to_owned());
        before.as_deref() != Some(address)
    }
}

/// What a seed answered.
#[derive(Debug)]
pub(crate) struct Probed {
    pub(crate) address: String,
    pub(crate) answer: Result<wire::ProbeReply, String>,
}

/// Asks every seed but this node itself, all at once. Nodes that answer become known to the lane.
pub(crate) async fn seeds(inner: &Inner) -> Vec<Probed> {
    let others = others(inner).into_iter().map(|address| async move {
        let answer = ask(inner, &address).await;
        if let Ok(reply) = &answer {
            meet(inner, reply);
        }
        Probed { address, answer }
    });
    join_all(others).await
}

/// The seeds that are not this node.
pub(crate) fn others(inner: &Inner) -> Vec<String> {
    let mine = &inner.options.replication_addr;
    inner
        .options
        .seeds
        .iter()
        .filter(|seed| *seed != mine)
        .cloned()
        .collect()
}

fn meet(inner: &Inner, reply: &wire::ProbeReply) {
    let itself = (reply.node_id, reply.replication_address.as_str());
    let others = reply
        .nodes
        .iter()
        .map(|n| (n.node_id, n.replication_address.as_str()));
    // What a node says of itself is newer than what others say of it: it comes last.
    for (node, address) in others.chain([itself]) {
        let node = NodeId(node);
        if node != inner.me() && !address.is_empty() && inner.founding.meet(node, address) {
            inner.lane.set_peer(node, Some(address.to_owned()));
        }
    }
}

async fn ask(inner: &Inner, address: &str) -> Result<wire::ProbeReply, String> {
    let ours = inner.founding.cluster_id();
    let request = wire::ProbeRequest {
        node_id: inner.me().0,
        cluster_id: ours.clone(),
    };
    let body = Bytes::from(request.encode_to_vec());
    match inner.lane.call_addr(address, KIND, body, TIMEOUT).await {
        Ok((_, bytes)) => wire::ProbeReply::decode(bytes).map_err(|error| error.to_string()),
        // A node of another cluster does not get as far as the question, but its refusal is answer
        // enough.
        Err(LaneError::Refused { cluster_id, .. })
            if !cluster_id.is_empty() && !ours.is_empty() && cluster_id != ours =>
        {
            Ok(wire::ProbeReply {
                cluster_id,
                ..wire::ProbeReply::default()
            })
        }
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Debug)]
struct Service(Weak<Inner>);

/// Starts to answer probes.
pub(crate) fn serve(inner: &Arc<Inner>) {
    inner
        .lane
        .register(KIND, Arc::new(Service(Arc::downgrade(inner))));
}

#[async_trait]
impl LaneService for Service {
    async fn call(&self, _from: NodeId, body: Bytes) -> Result<Bytes, String> {
        let inner = self.0.upgrade().ok_or("shutting down")?;
        let _ = wire::ProbeRequest::decode(body).map_err(|error| error.to_string())?;
        Ok(own(&inner).encode_to_vec().into())
    }
}

/// What this node answers.
pub(crate) fn own(inner: &Inner) -> wire::ProbeReply {
    let (cluster_id, founders) = {
        let state = inner.founding.0.lock();
        (state.cluster_id.clone(), state.founders.clone())
    };
    let image = inner.machine.image();
    wire::ProbeReply {
        node_id: inner.me().0,
        incarnation: inner.incarnation.clone(),
        replication_address: inner.options.replication_addr.clone(),
        cluster_id,
        running: inner.control.get().is_some(),
        founders,
        nodes: image.nodes.values().map(|node| (&**node).into()).collect(),
        controller: control::controller(inner).map_or(0, |node| node.0),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, sync::mpsc, thread};

    use seriatim_consensus::{Consensus, ConsensusOptions, Lane};
    use seriatim_runtime::{net::Net, task::TaskGroup};
    use seriatim_storage::{Storage, StorageOptions, disk::PosixDisk};

    use super::*;
    use crate::{Cluster, ClusterOptions, NoHost};

    /// A node that was asked while it opened its replica never answered again: the one who answered
    /// held a lock while it took it once more, and the one who opened stood between.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_answers_while_it_opens_its_replica() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let dir = tempfile::tempdir().unwrap();
        let storage =
            Storage::open(Arc::new(PosixDisk), dir.path(), StorageOptions::default()).unwrap();
        let tasks = TaskGroup::new();
        let me = NodeId(1);
        let lane = Lane::start(Net::tokio(), &address, me, || None, tasks.clone());
        let lane = lane.await.unwrap();
        let options = ConsensusOptions {
            node_id: me,
            ..ConsensusOptions::default()
        };
        let consensus = Consensus::new(options, storage.clone(), lane.clone());
        let options = ClusterOptions {
            node_id: me,
            seeds: vec![address.clone()],
            replication_addr: address,
            ..ClusterOptions::default()
        };
        let host = Arc::new(NoHost);
        let (of_cluster, of_consensus) = (storage.clone(), consensus.clone());
        let cluster = Cluster::start(options, of_cluster, of_consensus, lane, host, tasks.clone());
        let cluster = cluster.await.unwrap();
        cluster.ready().await.unwrap();

        let (ended, both_ended) = mpsc::channel();
        let group = cluster.inner.control.get();
        for opens in [true, false] {
            let (inner, group, ended) = (Arc::clone(&cluster.inner), group.clone(), ended.clone());
            let _detached = thread::spawn(move || {
                for _ in 0..50_000 {
                    if opens {
                        let _same = inner.control.set(group.clone());
                    } else {
                        assert!(own(&inner).running);
                    }
                }
                ended.send(()).unwrap();
            });
        }
        for _ in 0..2 {
            let in_time = both_ended.recv_timeout(Duration::from_secs(60));
            in_time.expect("neither waits for the other for ever");
        }

        cluster.shutdown().await;
        consensus.shutdown().await;
        assert!(tasks.shutdown(Duration::from_secs(10)).await);
        storage.shutdown().await;
    }
}
