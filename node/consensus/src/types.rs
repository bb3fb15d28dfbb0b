//! What the layers above see of a Raft group.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use seriatim_proto::{
    batch::{BatchHeader, RecordBatch},
    ids::{NodeId, Offset, ReplicaId},
};
use seriatim_storage::{LogId, LogKey, LogOptions, StorageError};

/// Settings of all groups of a node.
#[derive(Debug, Clone)]
pub struct ConsensusOptions {
    /// This node.
    pub node_id: NodeId,
    /// How often a leader reassures its followers; default 250 ms.
    pub heartbeat_interval: Duration,
    /// Silence of the leader after which a follower may ask for votes; default 800 ms. Up to half
    /// of it is added at random.
    pub election_timeout: Duration,
    /// Most bytes of entries in one message to a follower (one entry may exceed it); default 4 MiB.
    pub max_append_bytes: usize,
    /// Bytes per second by which followers that are behind come nearer, over all groups; 0 for no
    /// limit; default 64 MiB. A follower without which there is no majority is not slowed down.
    pub catch_up_bytes_per_s: u64,
}

impl Default for ConsensusOptions {
    fn default() -> Self {
        Self {
            node_id: NodeId(0),
            heartbeat_interval: Duration::from_millis(250),
            election_timeout: Duration::from_millis(800),
            max_append_bytes: 4 << 20,
            catch_up_bytes_per_s: 64 << 20,
        }
    }
}

/// Which group to open.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// The group and this node's replica of it.
    pub key: LogKey,
    /// Settings of its log.
    pub log: LogOptions,
    /// For log lines.
    pub name: String,
}

/// Something to be replicated.
#[derive(Debug, Clone)]
pub enum Proposal {
    /// A record batch; the leader's log stamps its base offset.
    Batch {
        /// The batch.
        batch: RecordBatch,
        /// Refuse it if more proposals were refused than this many, which the proposer knew of when it
        /// decided that the batch may follow those before it ([`Group::refusals`](crate::Group::refusals)).
        after: Option<u64>,
    },
    /// A command on the state machine.
    Command(Bytes),
}

/// What the state machine answered to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a batch.
    Batch {
        /// Offset of the batch's first record.
        base_offset: Offset,
    },
    /// To a command.
    Command(Bytes),
    /// To Raft's own entries, and to a batch in whose place there is one because a proposal before it was
    /// refused.
    None,
}

/// A committed and applied proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Where it stands in the log.
    pub log_id: LogId,
    /// What the state machine answered.
    pub reply: Reply,
}

/// Why a proposal failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead, or not in the term asked for.
    #[error("this replica is not the leader")]
    NotLeader {
        /// Who leads, where known.
        leader: Option<NodeId>,
        /// The proposal may have been replicated before leadership was lost.
        maybe_applied: bool,
    },
    /// The leader has not heard from a majority for a while; it may again in a moment. Nothing was
    /// appended.
    #[error("the leader has lost touch with the majority for the moment")]
    LeaseExpired,
    /// The group stopped.
    #[error("the group stopped: {0}")]
    Stopped(String),
}

/// Part that a replica plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Accepts proposals.
    Leader,
    /// Follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote, or does not know its group yet.
    Learner,
}

/// What changes with elections; not with every entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    /// This replica's part.
    pub role: Role,
    /// The current term.
    pub term: u64,
    /// Who leads in this term, where known.
    pub leader: Option<(ReplicaId, NodeId)>,
    /// Why the group stopped on this node, if it did.
    pub failed: Option<String>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// Whether it votes.
    pub voter: bool,
    /// On the leader: the last index known to be on the member's disk.
    pub matched: Option<u64>,
    /// On the leader: the member has answered within the last few heartbeats. The leader itself
    /// always has.
    pub answers: bool,
}

/// A group at one moment.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// Election state.
    pub state: GroupState,
    /// Members by replica id; empty before the group is initialized.
    pub membership: Vec<Member>,
    /// The entry that the members are from.
    pub membership_id: Option<LogId>,
    /// A change of voters is half done: both the old and the new ones must agree to everything.
    pub joint: bool,
    /// Last entry in the log.
    pub last_index: u64,
    /// Last entry applied here.
    pub applied: Option<LogId>,
}

/// Why a group operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// Checksums found damage in the log: this replica must be rebuilt under a new id.
    #[error("the replica's log is damaged")]
    Damaged(#[source] StorageError),
    /// The log could not be opened.
    #[error("the replica's log cannot be opened")]
    Storage(#[source] StorageError),
    /// Not the leader, or a change that Raft refuses now.
    #[error("{0}")]
    Refused(String),
    /// Leadership was not handed over.
    #[error("leadership was not handed over: {0}")]
    NotHandedOver(&'static str),
    /// The group stopped.
    #[error("the group stopped: {0}")]
    Stopped(String),
    /// The group is open already.
    #[error("group {0} is open already")]
    Open(LogKey),
}

/// What a state machine has applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppliedState {
    /// Last applied entry.
    pub log_id: Option<LogId>,
    /// The last membership applied, exactly as [`AppliedPayload::Membership`] gave it.
    pub membership: Option<Bytes>,
}

/// A state machine at one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The entry and the membership as of it.
    pub state: AppliedState,
    /// Offset of the first record after it.
    pub next_offset: Offset,
    /// The state, opaque here.
    pub data: Bytes,
}

/// One committed entry.
#[derive(Debug, Clone)]
pub struct AppliedEntry {
    /// Where it stands in the log.
    pub log_id: LogId,
    /// Offset of its first record, or the offset that the next record gets.
    pub base_offset: Offset,
    /// What it says.
    pub payload: AppliedPayload,
}

/// What a committed entry says.
#[derive(Debug, Clone)]
pub enum AppliedPayload {
    /// A leader began its term.
    Blank,
    /// The members changed; opaque, to be kept for [`AppliedState`].
    Membership(Bytes),
    /// A batch; its records stay in the log.
    Batch(BatchHeader),
    /// A command.
    Command(Bytes),
}

/// The state machine failed; its group stops.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SmError(String);

impl SmError {
    /// Says why.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// What a group's committed entries act on.
#[async_trait]
pub trait StateMachine: Send + Sync + 'static {
    /// Where to resume after a restart. MUST be durable, or older than what is durable.
    fn applied_state(&self) -> Result<AppliedState, SmError>;

    /// Whether what was applied may still be there after a crash. Then entries are applied only once they
    /// are durable in this replica's own log. MUST always be the same.
    fn keeps_state(&self) -> bool {
        self.compact_after_bytes().is_some()
    }

    /// Applies committed entries, in log order, each exactly once between two calls of
    /// [`StateMachine::applied_state`] or [`StateMachine::install`]. MUST return one reply per entry.
    async fn apply(&self, entries: Vec<AppliedEntry>) -> Result<Vec<Reply>, SmError>;

    /// Bytes of log after which every replica takes a snapshot by itself and drops the entries before
    /// it; `None` where the log is what matters and the machine decides itself how long it is. MUST
    /// always be the same. A snapshot larger than 256 MiB cannot be sent to other replicas.
    fn compact_after_bytes(&self) -> Option<u64> {
        None
    }

    /// The state as of an applied entry: the last, unless the machine knows why not. Runs beside
    /// `apply` and `install`; MUST be a state that was, and not older than an earlier snapshot.
    async fn snapshot(&self) -> Result<Snapshot, SmError>;

    /// Replaces the state by a snapshot of another replica.
    async fn install(&self, snapshot: Snapshot) -> Result<(), SmError>;
}
