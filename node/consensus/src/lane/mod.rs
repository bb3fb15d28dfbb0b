//! The replication lane: messages between nodes over one TCP connection per peer and class.
//!
//! Requests of many groups share a connection, are pipelined and matched to answers by id. A class
//! of its own keeps votes and heartbeats from waiting behind megabytes of entries. Payloads are
//! attached behind the message header and written with `writev`; a received message is one buffer
//! of which entries are slices, so no payload byte is copied in user space.

mod connection;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use seriatim_proto::ids::NodeId;
use seriatim_runtime::{
    clock,
    net::{BoxFuture, Net},
    task::TaskGroup,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use connection::Outgoing;

/// Requests that wait for one connection at most.
const QUEUE: usize = 1024;

/// Most bytes of entries under way to one node, over all groups (one request may exceed it): what a
/// follower that catches up costs in memory, here and there.
const APPEND_BYTES: usize = 32 << 20;

/// Bytes of requests that wait for one connection at most; a single one may exceed it. A peer that does
/// not read would otherwise hold the queue times the largest message in memory.
const QUEUE_BYTES: usize = 64 << 20;

/// Bytes of requests of one connection that are read and not yet answered.
const RECEIVE_BYTES: usize = wire::MAX_MESSAGE;

/// Kinds below this are the crate's own.
const FIRST_SERVICE_KIND: u16 = 100;

/// Which connection to a peer a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// Votes, heartbeats, the cluster layer's calls.
    Control = 0,
    /// Entries.
    Append = 1,
    /// Snapshots.
    Snapshot = 2,
}

/// Why a call over the lane failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// The node's address is not known.
    #[error("the address of node {0} is not known")]
    UnknownNode(NodeId),
    /// No connection, or it broke; the request may have been handled.
    #[error("{address}: {why}")]
    Unreachable {
        /// The peer.
        address: String,
        /// What failed.
        why: String,
    },
    /// The peer refused the connection for good, for instance because it is in another cluster.
    #[error("{address} refused the connection: {why}")]
    Refused {
        /// The peer.
        address: String,
        /// What it said.
        why: String,
        /// The cluster that the peer belongs to; empty if it belongs to none.
        cluster_id: String,
    },
    /// No answer in time; the request may have been handled.
    #[error("{address} did not answer within {} ms", after.as_millis())]
    Timeout {
        /// The peer.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// The peer's handler said no.
    #[error("{0}")]
    Failed(String),
    /// Too many requests wait for this connection.
    #[error("too many requests wait for {0}")]
    Overloaded(String),
    /// The lane was shut down.
    #[error("the replication lane is shut down")]
    Closed,
}

/// Answers calls of one kind from other nodes.
#[async_trait]
pub trait LaneService: Send + Sync + 'static {
    /// The answer, or why there is none, which the caller sees as [`LaneError::Failed`].
    async fn call(&self, from: NodeId, body: Bytes) -> Result<Bytes, String>;
}

/// Answers the crate's own kinds. The future is polled once, in the order of arrival, before the
/// next request of the connection is looked at: what it enqueues in that first poll keeps order.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(
        self: Arc<Self>,
        from: NodeId,
        kind: u16,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// The queue of one connection.
struct Link {
    sender: mpsc::Sender<Outgoing>,
    /// Bytes that wait in it or are being written.
    queued: Arc<AtomicUsize>,
}

/// Bytes that count as queued until this is dropped.
#[derive(Debug)]
struct Charge {
    queued: Arc<AtomicUsize>,
    bytes: usize,
}

impl Charge {
    /// Takes room in the queue, if there is some.
    fn take(queued: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let before = queued.fetch_add(bytes, Ordering::Relaxed);
        let charge = Self {
            queued: Arc::clone(queued),
            bytes,
        };
        (before == 0 || before.saturating_add(bytes) <= QUEUE_BYTES).then_some(charge)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let _before = self.queued.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The queue of each connection, by address and class.
type Links = HashMap<(String, Class), Link>;

type ClusterId = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// This node's end of the lane. Cloning is cheap.
#[derive(Clone)]
pub struct Lane(Arc<Inner>);

pub(crate) struct Inner {
    net: Net,
    me: NodeId,
    local_addr: String,
    cluster_id: ClusterId,
    tasks: TaskGroup,
    peers: RwLock<HashMap<NodeId, String>>,
    links: Mutex<Links>,
    /// Room for entries under way, by node.
    rooms: Mutex<HashMap<NodeId, Arc<Semaphore>>>,
    services: RwLock<HashMap<u16, Arc<dyn LaneService>>>,
    handler: RwLock<Option<Arc<dyn Handler>>>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("me", &self.0.me)
            .finish_non_exhaustive()
    }
}

impl Lane {
    /// Binds `listen` and accepts connections until `tasks` are cancelled. `cluster_id` says which
    /// cluster this node belongs to, if it does yet; a peer of another one is refused.
    pub async fn start(
        net: Net,
        listen: &str,
        me: NodeId,
        cluster_id: impl Fn() -> Option<String> + Send + Sync + 'static,
        tasks: TaskGroup,
    ) -> io::Result<Self> {
        let listener = net.listen(listen).await?;
        let inner = Arc::new(Inner {
            net,
            me,
            local_addr: listener.local_addr()?,
            cluster_id: Box::new(cluster_id),
            tasks: tasks.clone(),
            peers: RwLock::default(),
            links: Mutex::default(),
            rooms: Mutex::default(),
            services: RwLock::default(),
            handler: RwLock::default(),
        });
        let _running = tasks.spawn("lane-accept", connection::accept(inner.clone(), listener));
        Ok(Self(inner))
    }

    /// The address that connections are accepted at.
    pub fn local_addr(&self) -> &str {
        &self.0.local_addr
    }

    /// Sets or forgets a node's replication address.
    pub fn set_peer(&self, node: NodeId, address: Option<String>) {
        let mut peers = self.0.peers.write();
        let _old = match address {
            Some(address) => peers.insert(node, address),
            None => peers.remove(&node),
        };
    }

    /// Registers the answers to `kind`, which is 100 or more.
    pub fn register(&self, kind: u16, service: Arc<dyn LaneService>) {
        debug_assert!(
            kind >= FIRST_SERVICE_KIND,
            "kinds below 100 are the lane's own"
        );
        let _old = self.0.services.write().insert(kind, service);
    }

    /// The handler, for tests that watch it.
    #[cfg(test)]
    pub(crate) fn handler(&self) -> Option<Arc<dyn Handler>> {
        self.0.handler.read().clone()
    }

    pub(crate) fn set_handler(&self, handler: Arc<dyn Handler>) {
        *self.0.handler.write() = Some(handler);
    }

    /// Asks a node of which the address was set.
    pub async fn call(
        &self,
        to: NodeId,
        kind: u16,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, LaneError> {
        let pending = self.send(to, Class::Control, kind, vec![body])?;
        pending.answer(timeout).await.map(|(_node, bytes)| bytes)
    }

    /// Asks whoever listens at `address`, and says which node that is.
    pub async fn call_addr(
        &self,
        address: &str,
        kind: u16,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(NodeId, Bytes), LaneError> {
        let pending = self.send_to(address.to_owned(), Class::Control, kind, vec![body])?;
        pending.answer(timeout).await
    }

    /// Requests that wait for their connection, and bytes of entries under way.
    pub(crate) fn load(&self) -> (usize, usize) {
        let links = self.0.links.lock();
        let queued = links
            .values()
            .map(|link| link.sender.max_capacity() - link.sender.capacity());
        let queued = queued.sum();
        drop(links);
        let rooms = self.0.rooms.lock();
        let in_flight = rooms
            .values()
            .map(|room| APPEND_BYTES.saturating_sub(room.available_permits()));
        (queued, in_flight.sum())
    }

    /// Waits for room for `bytes` of entries among those under way to a node.
    pub(crate) async fn room(&self, to: NodeId, bytes: usize) -> Room {
        let room = Arc::clone(
            self.0
                .rooms
                .lock()
                .entry(to)
                .or_insert_with(|| Arc::new(Semaphore::new(APPEND_BYTES))),
        );
        let wanted = u32::try_from(bytes.min(APPEND_BYTES)).unwrap_or(u32::MAX);
        // It is never closed.
        Room(room.acquire_many_owned(wanted).await.ok())
    }

    /// Enqueues a request; requests of one class to one node are sent in the order of these calls.
    pub(crate) fn send(
        &self,
        to: NodeId,
        class: Class,
        kind: u16,
        parts: Vec<Bytes>,
    ) -> Result<PendingAnswer, LaneError> {
        let address = self.0.peers.read().get(&to).cloned();
        let address = address.ok_or(LaneError::UnknownNode(to))?;
        self.send_to(address, class, kind, parts)
    }

    fn send_to(
        &self,
        address: String,
        class: Class,
        kind: u16,
        parts: Vec<Bytes>,
    ) -> Result<PendingAnswer, LaneError> {
        if self.0.tasks.is_cancelled() {
            return Err(LaneError::Closed);
        }
        let (reply, answer) = oneshot::channel();
        let bytes = parts.iter().map(Bytes::len).sum();
        let mut links = self.0.links.lock();
        let link = links.entry((address.clone(), class)).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let link = connection::link(self.0.clone(), address.clone(), class, receiver);
            let _running = self.0.tasks.spawn("lane-link", link);
            Link {
                sender,
                queued: Arc::default(),
            }
        });
        let Some(charge) = Charge::take(&link.queued, bytes) else {
            return Err(LaneError::Overloaded(address));
        };
        let outgoing = Outgoing {
            kind,
            parts,
            reply,
            charge,
        };
        match link.sender.try_send(outgoing) {
            Ok(()) => Ok(PendingAnswer { address, answer }),
            Err(mpsc::error::TrySendError::Full(_)) => Err(LaneError::Overloaded(address)),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(LaneError::Closed),
        }
    }
}

/// Room for a request under way, given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Room(
    #[expect(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>,
);

/// A request under way.
#[derive(Debug)]
pub(crate) struct PendingAnswer {
    address: String,
    answer: oneshot::Receiver<Result<(NodeId, Bytes), LaneError>>,
}

impl PendingAnswer {
    pub(crate) async fn answer(self, limit: Duration) -> Result<(NodeId, Bytes), LaneError> {
        match clock::timeout(limit, self.answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_dropped)) => Err(LaneError::Closed),
            Err(_elapsed) => Err(LaneError::Timeout {
                address: self.address,
                after: limit,
            }),
        }
    }
}
