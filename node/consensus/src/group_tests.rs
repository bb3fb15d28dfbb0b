//! Three replicas in one process: order, limits, boundaries, and failures that stay where they are.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use seriatim_proto::ids::{GroupId, NodeId, Offset, ReplicaId};
use seriatim_runtime::{
    clock,
    net::{BoxFuture, Net},
    task::TaskGroup,
};
use seriatim_storage::{
    Frame, LogId, LogKey, LogOptions, Storage, StorageOptions, disk::sim::SimDisk,
};
use tokio::sync::watch;

use crate::{
    AppliedEntry, AppliedPayload, AppliedState, Consensus, ConsensusOptions, Group, GroupSpec,
    Lane, Proposal, Reply, Role, SmError, Snapshot, StateMachine, lane::Handler, receive::kind,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const MAX_APPEND_BYTES: usize = 20_000;

/// Remembers every command.
#[derive(Default)]
pub(crate) struct Recorder {
    state: Mutex<(AppliedState, Vec<Bytes>)>,
    pub(crate) installed: AtomicUsize,
    compact_after: Option<u64>,
}

#[async_trait]
impl StateMachine for Recorder {
    fn applied_state(&self) -> Result<AppliedState, SmError> {
        Ok(self.state.lock().0.clone())
    }

    async fn apply(&self, entries: Vec<AppliedEntry>) -> Result<Vec<Reply>, SmError> {
        let mut state = self.state.lock();
        let mut replies = Vec::new();
        for entry in entries {
            assert!(state.0.log_id < Some(entry.log_id), "applied out of order");
            state.0.log_id = Some(entry.log_id);
            match entry.payload {
                AppliedPayload::Membership(membership) => state.0.membership = Some(membership),
                AppliedPayload::Command(bytes) => state.1.push(bytes),
                AppliedPayload::Batch(header) => {
                    let base_offset = header.base_offset;
                    replies.push(Reply::Batch { base_offset });
                    continue;
                }
                AppliedPayload::Blank => {}
            }
            replies.push(Reply::None);
        }
        Ok(replies)
    }

    fn compact_after_bytes(&self) -> Option<u64> {
        self.compact_after
    }

    async fn snapshot(&self) -> Result<Snapshot, SmError> {
        let state = self.state.lock();
        let mut data = Vec::new();
        for value in &state.1 {
            data.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            data.extend_from_slice(value);
        }
        Ok(Snapshot {
            state: state.0.clone(),
            next_offset: Offset(0),
            data: data.into(),
        })
    }

    async fn install(&self, snapshot: Snapshot) -> Result<(), SmError> {
        let mut data = snapshot.data;
        let mut values = Vec::new();
        while !data.is_empty() {
            let length = u32::from_be_bytes(data.split_to(4)[..].try_into().unwrap());
            values.push(data.split_to(length as usize));
        }
        *self.state.lock() = (snapshot.state, values);
        let _before = self.installed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Recorder {
    pub(crate) fn values(&self) -> Vec<u64> {
        let number = |bytes: &Bytes| u64::from_be_bytes(bytes[..8].try_into().unwrap());
        self.state.lock().1.iter().map(number).collect()
    }
}

/// What does not come through of what others ask of a node.
#[derive(Debug, Default, Clone)]
pub(crate) struct Jam {
    /// Those who ask.
    pub(crate) from: Vec<NodeId>,
    /// Their requests are lost.
    pub(crate) requests: bool,
    /// The answers to them wait.
    pub(crate) answers: bool,
}

impl Jam {
    fn loses(&self, from: NodeId) -> bool {
        self.requests && self.from.contains(&from)
    }

    fn holds(&self, from: NodeId) -> bool {
        self.answers && self.from.contains(&from)
    }
}

/// Watches the size of append messages, and holds up what is to be held up.
struct Spy {
    inner: Arc<dyn Handler>,
    largest: Arc<AtomicUsize>,
    jam: watch::Receiver<Jam>,
    lost: Arc<AtomicUsize>,
}

impl Handler for Spy {
    fn handle(
        self: Arc<Self>,
        from: NodeId,
        message: u16,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        if message == kind::APPEND {
            let _before = self.largest.fetch_max(body.len(), Ordering::Relaxed);
        }
        let mut jam = self.jam.clone();
        if jam.borrow().loses(from) {
            let _before = self.lost.fetch_add(1, Ordering::Relaxed);
            return Box::pin(std::future::pending());
        }
        let answer = Arc::clone(&self.inner).handle(from, message, body);
        Box::pin(async move {
            let answer = answer.await;
            let _through = jam.wait_for(|jam| !jam.holds(from)).await;
            answer
        })
    }
}

pub(crate) struct Node {
    pub(crate) disk: SimDisk,
    storage: Storage,
    lane: Lane,
    consensus: Consensus,
    groups: Vec<(Group, Arc<Recorder>)>,
    largest_append: Arc<AtomicUsize>,
    jam: watch::Sender<Jam>,
    /// Requests that were lost in the jam.
    lost: Arc<AtomicUsize>,
}

/// Three nodes with some groups of three replicas each.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    tasks: TaskGroup,
}

impl Node {
    /// Opens a replica with a machine that knows nothing yet.
    async fn open(&mut self, at: usize, group: u64, compact_after: Option<u64>) {
        let machine = Arc::new(Recorder {
            compact_after,
            ..Recorder::default()
        });
        let spec = GroupSpec {
            key: LogKey {
                group: GroupId(group),
                replica: ReplicaId(node_id(at).0),
            },
            log: LogOptions {
                segment_bytes: 50_000,
                ..LogOptions::default()
            },
            name: format!("group {group}"),
        };
        let opened = self.consensus.open(spec, machine.clone()).await.unwrap();
        self.groups.push((opened, machine));
    }
}

pub(crate) fn node_id(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

impl Cluster {
    pub(crate) async fn start(groups: u64) -> Self {
        Self::start_with(groups, None, 0).await
    }

    /// The same with machines that hold everything, if their logs are to be compacted, and with a limit
    /// for followers that are behind.
    pub(crate) async fn start_with(
        groups: u64,
        compact_after: Option<u64>,
        catch_up_bytes_per_s: u64,
    ) -> Self {
        let tasks = TaskGroup::new();
        let mut nodes = Vec::new();
        for at in 0..3 {
            nodes.push(Self::node(at, catch_up_bytes_per_s, &tasks).await);
        }
        let cluster = Self { nodes, tasks };
        cluster.heal();
        let mut cluster = cluster;
        for group in 1..=groups {
            for at in 0..3 {
                cluster.nodes[at].open(at, group, compact_after).await;
            }
            let members = (0..3).map(|at| (ReplicaId(node_id(at).0), node_id(at)));
            let first = &cluster.nodes[0].groups.last().unwrap().0;
            first.initialize(members.collect()).await.unwrap();
        }
        cluster
    }

    async fn node(at: usize, catch_up_bytes_per_s: u64, tasks: &TaskGroup) -> Node {
        let disk = SimDisk::new(at as u64);
        let options = StorageOptions {
            cache_bytes: 10_000,
            ..StorageOptions::default()
        };
        let storage = Storage::open(Arc::new(disk.clone()), Path::new("/data"), options).unwrap();
        let id = || Some("test".to_owned());
        let lane = Lane::start(Net::tokio(), "127.0.0.1:0", node_id(at), id, tasks.clone());
        let lane = lane.await.unwrap();
        let options = ConsensusOptions {
            node_id: node_id(at),
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(400),
            max_append_bytes: MAX_APPEND_BYTES,
            catch_up_bytes_per_s,
        };
        let consensus = Consensus::new(options, storage.clone(), lane.clone());
        let largest_append = Arc::new(AtomicUsize::new(0));
        let lost = Arc::new(AtomicUsize::new(0));
        let jam = watch::Sender::new(Jam::default());
        lane.set_handler(Arc::new(Spy {
            inner: lane.handler().unwrap(),
            largest: largest_append.clone(),
            jam: jam.subscribe(),
            lost: lost.clone(),
        }));
        Node {
            disk,
            storage,
            lane,
            consensus,
            groups: Vec::new(),
            largest_append,
            jam,
            lost,
        }
    }

    /// From now on this does not come through to a node.
    pub(crate) fn jam(&self, at: usize, jam: Jam) {
        let _before = self.nodes[at].jam.send_replace(jam);
    }

    /// Requests to a node that were lost in a jam.
    pub(crate) fn lost(&self, at: usize) -> usize {
        self.nodes[at].lost.load(Ordering::Relaxed)
    }

    /// Lets nobody talk to a node, nor it to anybody.
    pub(crate) fn cut_off(&self, at: usize) {
        for other in (0..3).filter(|other| *other != at) {
            self.nodes[other].lane.set_peer(node_id(at), None);
            self.nodes[at].lane.set_peer(node_id(other), None);
        }
    }

    /// Lets two nodes talk to each other.
    pub(crate) fn reconnect(&self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let address = self.nodes[to].lane.local_addr().to_owned();
            self.nodes[from].lane.set_peer(node_id(to), Some(address));
        }
    }

    pub(crate) fn heal(&self) {
        for node in &self.nodes {
            for (at, other) in self.nodes.iter().enumerate() {
                let address = other.lane.local_addr().to_owned();
                node.lane.set_peer(node_id(at), Some(address));
            }
        }
    }

    pub(crate) fn group(&self, at: usize, group: usize) -> &Group {
        &self.nodes[at].groups[group].0
    }

    pub(crate) fn machine(&self, at: usize, group: usize) -> &Recorder {
        &self.nodes[at].groups[group].1
    }

    /// The node that leads a group, of those that may, and has its majority behind it; and its term.
    pub(crate) async fn leader(&self, group: usize, among: &[usize]) -> (usize, u64) {
        let deadline = clock::now() + PATIENCE;
        loop {
            let states = among.iter().map(|&at| {
                let state = self.group(at, group).state().borrow().clone();
                (at, state)
            });
            let leaders = states.filter(|(_, state)| state.role == Role::Leader);
            if let Some((at, state)) = leaders.max_by_key(|(_, state)| state.term)
                && self.group(at, group).read_barrier().await.is_ok()
            {
                return (at, state.term);
            }
            assert!(clock::now() < deadline, "no leader in time");
            clock::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the machines hold the same and the logs the same bytes.
    pub(crate) async fn converged(&self, group: usize, among: &[usize]) -> Vec<u64> {
        eventually("the replicas agree", || {
            let states: Vec<_> = among
                .iter()
                .map(|&at| {
                    (
                        self.machine(at, group).values(),
                        self.group(at, group).log().last_log_id(),
                    )
                })
                .collect();
            states.windows(2).all(|two| two[0] == two[1])
        })
        .await;
        let first = among
            .iter()
            .map(|&at| self.group(at, group).log().first_index())
            .max()
            .unwrap();
        let mut logs = Vec::new();
        for &at in among {
            let log = self.group(at, group).log();
            let end = log.last_log_id().unwrap().index + 1;
            let frames = log.read(first..end, usize::MAX / 2).await.unwrap();
            logs.push(
                frames
                    .iter()
                    .flat_map(Frame::parts)
                    .collect::<Vec<_>>()
                    .concat(),
            );
        }
        assert!(
            logs.windows(2).all(|two| two[0] == two[1]),
            "the logs differ"
        );
        self.machine(among[0], group).values()
    }

    /// Closes all groups and opens them again; the machines have forgotten everything.
    pub(crate) async fn reopen(&mut self, compact_after: Option<u64>) {
        for at in 0..3 {
            let node = &mut self.nodes[at];
            let groups = u64::try_from(node.groups.len()).unwrap();
            node.groups.clear();
            for group in 1..=groups {
                node.consensus.close(GroupId(group)).await;
                node.open(at, group, compact_after).await;
            }
        }
    }

    pub(crate) async fn stop(self) {
        for node in &self.nodes {
            node.consensus.shutdown().await;
        }
        let _ended = self.tasks.shutdown(PATIENCE).await;
        for node in &self.nodes {
            node.storage.shutdown().await;
        }
    }
}

pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "not in time: {what}");
        clock::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn command(number: u64, bytes: usize) -> Proposal {
    let mut out = number.to_be_bytes().to_vec();
    out.resize(bytes.max(8), 1);
    Proposal::Command(out.into())
}

/// Proposes numbers without waiting in between; returns those that were acknowledged, by index.
pub(crate) async fn propose(
    group: &Group,
    term: u64,
    numbers: std::ops::Range<u64>,
    bytes: usize,
) -> BTreeMap<LogId, u64> {
    let mut pending = Vec::new();
    for number in numbers {
        let submitted = group.submit(command(number, bytes), term).await;
        pending.push((number, submitted.unwrap()));
    }
    let mut acked = BTreeMap::new();
    for (number, pending) in pending {
        let waited = clock::timeout(PATIENCE, pending).await.expect("an answer");
        if let Ok(applied) = waited {
            let _none = acked.insert(applied.log_id, number);
        }
    }
    acked
}

#[tokio::test]
async fn proposals_keep_their_order_through_changes_of_leader() {
    let cluster = Cluster::start(1).await;
    let all = [0, 1, 2];
    let mut acked = BTreeMap::new();
    for round in 0..6u64 {
        let (leader, term) = cluster.leader(0, &all).await;
        let numbers = round * 1000..round * 1000 + 150;
        let proposing = propose(cluster.group(leader, 0), term, numbers, 300);
        let moving = async {
            tokio::task::yield_now().await;
            let to = ReplicaId(node_id((leader + 1) % 3).0);
            // It may have lost its place meanwhile.
            let _sent = cluster.group(leader, 0).hand_over(to).await;
        };
        let (mut some, ()) = tokio::join!(proposing, moving);
        acked.append(&mut some);
    }
    let applied = cluster.converged(0, &all).await;
    // In the order of the log, which is the order of the proposals of each round.
    assert!(acked.values().is_sorted());
    let mut rest = applied.iter();
    for number in acked.values() {
        assert!(
            rest.any(|other| other == number),
            "{number} was lost or moved"
        );
    }
    let mut once = applied.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), applied.len(), "applied twice");
    assert!(applied.is_sorted());
    assert!(acked.len() > 100, "{}", acked.len());
    cluster.stop().await;
}

#[tokio::test]
async fn what_a_cut_off_leader_could_not_commit_is_replaced() {
    let cluster = Cluster::start(1).await;
    let (old, term) = cluster.leader(0, &[0, 1, 2]).await;
    let group = cluster.group(old, 0);
    assert_eq!(propose(group, term, 0..20, 300).await.len(), 20);
    cluster.cut_off(old);
    let mut lost = Vec::new();
    for number in 100..140 {
        lost.push(group.submit(command(number, 2_000), term).await.unwrap());
    }
    let others: Vec<usize> = (0..3).filter(|at| *at != old).collect();
    let (new, new_term) = cluster.leader(0, &others).await;
    assert!(new_term > term);
    assert_eq!(
        propose(cluster.group(new, 0), new_term, 200..230, 700)
            .await
            .len(),
        30
    );
    cluster.heal();
    let applied = cluster.converged(0, &[0, 1, 2]).await;
    let expected: Vec<u64> = (0..20).chain(200..230).collect();
    assert_eq!(applied, expected);
    for pending in lost {
        let waited = clock::timeout(PATIENCE, pending).await.expect("an answer");
        assert!(waited.is_err(), "{waited:?}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn append_messages_keep_their_limit_while_a_follower_catches_up() {
    let cluster = Cluster::start(1).await;
    let (leader, term) = cluster.leader(0, &[0, 1, 2]).await;
    let behind = (leader + 1) % 3;
    cluster.cut_off(behind);
    let group = cluster.group(leader, 0);
    assert_eq!(propose(group, term, 0..200, 3_000).await.len(), 200);
    // One that is larger than the limit travels alone.
    assert_eq!(propose(group, term, 200..201, 50_000).await.len(), 1);
    assert_eq!(propose(group, term, 201..300, 1_000).await.len(), 99);
    cluster.heal();
    assert_eq!(cluster.converged(0, &[0, 1, 2]).await.len(), 300);
    let largest = cluster.nodes[behind].largest_append.load(Ordering::Relaxed);
    // The head of a message and of its frames come on top.
    assert!((50_000..51_000).contains(&largest), "{largest}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_follower_behind_a_purge_goes_on_from_the_boundary() {
    let cluster = Cluster::start(1).await;
    let (leader, term) = cluster.leader(0, &[0, 1, 2]).await;
    let behind = (leader + 1) % 3;
    let group = cluster.group(leader, 0);
    assert_eq!(propose(group, term, 0..10, 8).await.len(), 10);
    let _same = cluster.converged(0, &[0, 1, 2]).await;
    cluster.cut_off(behind);
    assert_eq!(propose(group, term, 10..200, 8).await.len(), 190);
    let boundary = group.status().applied.unwrap();
    group.raft().trigger().snapshot().await.unwrap();
    eventually("a boundary", || group.log().boundary_id().is_some()).await;
    assert_eq!(group.log().boundary_id(), Some(boundary));
    group
        .raft()
        .trigger()
        .purge_log(boundary.index)
        .await
        .unwrap();
    eventually("a purge", || group.log().purged_log_id() == Some(boundary)).await;
    assert_eq!(propose(group, term, 200..250, 8).await.len(), 50);
    cluster.heal();
    let applied = cluster.converged(0, &[0, 1, 2]).await;
    assert_eq!(applied, (0..250).collect::<Vec<_>>());
    let follower = cluster.group(behind, 0);
    assert_eq!(
        cluster.machine(behind, 0).installed.load(Ordering::Relaxed),
        1
    );
    assert_eq!(follower.log().boundary_id(), Some(boundary));
    assert_eq!(follower.log().first_index(), boundary.index + 1);
    // Like any other: it can be cut off again and catch up.
    cluster.cut_off(behind);
    let (leader, term) = cluster.leader(0, &[leader, (leader + 2) % 3]).await;
    assert_eq!(
        propose(cluster.group(leader, 0), term, 250..260, 8)
            .await
            .len(),
        10
    );
    cluster.heal();
    assert_eq!(cluster.converged(0, &[0, 1, 2]).await.len(), 260);
    cluster.stop().await;
}

#[tokio::test]
async fn a_group_whose_log_fails_stops_alone() {
    let cluster = Cluster::start(2).await;
    let (leader, term) = cluster.leader(0, &[0, 1, 2]).await;
    let broken = (leader + 1) % 3;
    assert_eq!(
        propose(cluster.group(leader, 0), term, 0..5, 8).await.len(),
        5
    );
    let _same = cluster.converged(0, &[0, 1, 2]).await;
    let (other_leader, other_term) = cluster.leader(1, &[0, 1, 2]).await;
    assert_eq!(
        propose(cluster.group(other_leader, 1), other_term, 0..5, 8)
            .await
            .len(),
        5
    );
    let _same = cluster.converged(1, &[0, 1, 2]).await;
    cluster.nodes[broken].disk.fail_writes(1);
    // The majority goes on without it.
    assert_eq!(
        propose(cluster.group(leader, 0), term, 5..50, 8)
            .await
            .len(),
        45
    );
    let state = cluster.group(broken, 0).state();
    eventually("the replica says that it failed", || {
        state.borrow().failed.is_some()
    })
    .await;
    assert!(cluster.group(broken, 0).log().poisoned().is_some());
    assert_eq!(state.borrow().role, Role::Learner);
    assert!(cluster.group(broken, 1).state().borrow().failed.is_none());
    let (other_leader, other_term) = cluster.leader(1, &[0, 1, 2]).await;
    assert_eq!(
        propose(cluster.group(other_leader, 1), other_term, 5..50, 8)
            .await
            .len(),
        45
    );
    assert_eq!(cluster.converged(1, &[0, 1, 2]).await.len(), 50);
    let healthy: Vec<usize> = (0..3).filter(|at| *at != broken).collect();
    assert_eq!(cluster.converged(0, &healthy).await.len(), 50);
    cluster.stop().await;
}

#[tokio::test]
async fn damage_found_in_an_idle_log_stops_its_replica() {
    let cluster = Cluster::start(1).await;
    let (leader, term) = cluster.leader(0, &[0, 1, 2]).await;
    assert_eq!(
        propose(cluster.group(leader, 0), term, 0..50, 3_000)
            .await
            .len(),
        50
    );
    let _same = cluster.converged(0, &[0, 1, 2]).await;
    let damaged = (leader + 1) % 3;
    let segment = |path: &Path, _used: usize| path.extension().is_some_and(|e| e == "seg");
    let place = cluster.nodes[damaged].disk.rot(segment);
    assert!(place.is_some());
    let group = cluster.group(damaged, 0);
    let error = group.log().verify().await.unwrap_err();
    assert!(error.is_damage(), "{error}");
    let state = group.state();
    eventually("the replica says that it failed", || {
        state.borrow().failed.is_some()
    })
    .await;
    let why = state.borrow().failed.clone().unwrap();
    assert!(why.contains("damaged at byte"), "{why}");
    assert_eq!(
        propose(cluster.group(leader, 0), term, 50..60, 8)
            .await
            .len(),
        10
    );
    cluster.stop().await;
}
