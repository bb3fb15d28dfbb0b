//! Tells the other nodes which groups this node leads.
//!
//! Each peer has one task here that sends what changed since its last message, everything when the
//! peer is new, was unreachable or asks for it, and everything every [`FULL_EVERY`] in any case. A
//! node that starts asks for the full list of each peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use seriatim_consensus::LaneService;
use seriatim_proto::{
    ids::{GroupId, NodeId},
    internal::v1 as wire,
};
use seriatim_runtime::{clock, rng};

use crate::cluster::Inner;

/// Lane message kind of [`wire::LeaderGossip`].
const KIND: u16 = 0x0102;

/// Changes of this long travel together.
const GATHER: Duration = Duration::from_millis(3);

/// How often everything is told, in case something was missed.
const FULL_EVERY: Duration = Duration::from_secs(10);

/// Pause after a peer did not answer.
const AGAIN: Duration = Duration::from_millis(500);

const TIMEOUT: Duration = Duration::from_secs(2);

/// What was heard from whom.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    /// The start of each peer whose full list is here.
    boots: Mutex<BTreeMap<NodeId, u64>>,
    /// Peers that want this node's full list.
    wanting: Mutex<BTreeSet<NodeId>>,
    /// Peers that are about to stop and want to lead nothing.
    stopping: Mutex<BTreeSet<NodeId>>,
    /// This node is about to stop.
    stops: AtomicBool,
}

impl Receiver {
    /// Nodes that want to lead nothing.
    pub(crate) fn stopping(&self) -> BTreeSet<NodeId> {
        self.stopping.lock().clone()
    }

    /// Whether this node is about to stop.
    pub(crate) fn stops(&self) -> bool {
        self.stops.load(Ordering::Acquire)
    }

    /// This node is about to stop: the others are told with the next message.
    pub(crate) fn stop(&self) {
        self.stops.store(true, Ordering::Release);
    }
}

/// Starts to tell and to listen.
pub(crate) fn start(inner: &Arc<Inner>) {
    inner
        .lane
        .register(KIND, Arc::new(Service(Arc::downgrade(inner))));
    let task = Arc::clone(inner);
    inner.spawn("gossip", async move { follow_nodes(&task).await });
}

/// Makes every node of the image known to the lane and starts a task for each.
async fn follow_nodes(inner: &Arc<Inner>) {
    let boot = rng::u64();
    let mut image = inner.machine.watch();
    let mut known: BTreeMap<NodeId, String> = BTreeMap::new();
    loop {
        let now = Arc::clone(&image.borrow_and_update());
        // Their tasks end by themselves.
        known.retain(|node, _| {
            let stays = now.nodes.contains_key(node);
            if !stays {
                inner.lane.set_peer(*node, None);
            }
            stays
        });
        for node in now.nodes.values().filter(|node| node.id != inner.me()) {
            if node.replication_addr.is_empty()
                || known.get(&node.id) == Some(&node.replication_addr)
            {
                continue;
            }
            inner
                .lane
                .set_peer(node.id, Some(node.replication_addr.clone()));
            if known
                .insert(node.id, node.replication_addr.clone())
                .is_none()
            {
                let (task, peer) = (Arc::clone(inner), node.id);
                inner.spawn("gossip-peer", async move { tell(&task, peer, boot).await });
            }
        }
        if image.changed().await.is_err() {
            return;
        }
    }
}

async fn tell(inner: &Inner, peer: NodeId, boot: u64) {
    let mut changes = inner.leaders.changes();
    let mut told = 0;
    let mut full = true;
    let mut wants_full = true;
    let mut told_stop = false;
    while inner.machine.image().nodes.contains_key(&peer) {
        let _ = changes.borrow_and_update();
        full |= inner.gossip.wanting.lock().remove(&peer);
        let (groups, sequence) = inner.leaders.led_since(if full { 0 } else { told });
        let stops = inner.gossip.stops();
        if full || !groups.is_empty() || stops != told_stop {
            let mut message = message(boot, full, wants_full, groups);
            message.stopping = stops;
            let body = Bytes::from(message.encode_to_vec());
            let reply = inner.lane.call(peer, KIND, body, TIMEOUT).await.ok();
            let Some(reply) = reply.and_then(|b| wire::LeaderGossipReply::decode(b).ok()) else {
                full = true;
                clock::sleep(AGAIN).await;
                continue;
            };
            told = sequence;
            told_stop = stops;
            wants_full = false;
            full = reply.wants_full;
            if full {
                continue;
            }
        }
        match clock::timeout(FULL_EVERY, changes.changed()).await {
            Ok(Ok(())) => clock::sleep(GATHER).await,
            Ok(Err(_closed)) => return,
            Err(_elapsed) => full = true,
        }
    }
}

fn message(
    boot: u64,
    full: bool,
    wants_full: bool,
    groups: Vec<(GroupId, u64)>,
) -> wire::LeaderGossip {
    let groups = groups.into_iter().map(|(group, term)| wire::LedGroup {
        group_id: group.0,
        term,
    });
    wire::LeaderGossip {
        boot,
        full,
        wants_full,
        groups: groups.collect(),
        stopping: false,
    }
}

#[derive(Debug)]
struct Service(Weak<Inner>);

#[async_trait]
impl LaneService for Service {
    async fn call(&self, from: NodeId, body: Bytes) -> Result<Bytes, String> {
        let inner = self.0.upgrade().ok_or("shutting down")?;
        let gossip = wire::LeaderGossip::decode(body).map_err(|error| error.to_string())?;
        let groups = gossip
            .groups
            .iter()
            .map(|led| (GroupId(led.group_id), led.term));
        inner.leaders.told(from, groups);
        {
            let mut stopping = inner.gossip.stopping.lock();
            if gossip.stopping {
                let _ = stopping.insert(from);
            } else {
                let _ = stopping.remove(&from);
            }
        }
        let wants_full = {
            let mut boots = inner.gossip.boots.lock();
            if gossip.full {
                let _ = boots.insert(from, gossip.boot);
            }
            boots.get(&from) != Some(&gossip.boot)
        };
        if gossip.wants_full {
            let _ = inner.gossip.wanting.lock().insert(from);
            inner.leaders.wake();
        }
        let reply = wire::LeaderGossipReply { wants_full };
        Ok(reply.encode_to_vec().into())
    }
}
