//! openraft's types as this project fills them.

use std::{fmt, io};

use openraft::{EntryPayload, errors::Unreachable, vote::RaftLeaderId};
use seriatim_proto::{
    batch::RecordBatch,
    ids::{NodeId, ReplicaId},
};
use seriatim_storage::{Frame, FrameHead, LogId, Vote};

use bytes::Bytes;

use crate::{Reply, refusals::Responder};

/// One configuration serves every group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Data;
    type R = Reply;
    type NodeId = u64;
    type Node = Peer;
    type Term = u64;
    // One leader per term, so that the term can serve as the leader epoch.
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = Payload;
    type Entry = openraft::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Payload>;
    type AsyncRuntime = crate::seam::Seam;
    type Responder<T>
        = Responder<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type Raft = openraft::Raft<Types, crate::machine::Machine>;
pub(crate) type RaftLogId = openraft::alias::LogIdOf<Types>;
pub(crate) type RaftVote = openraft::alias::VoteOf<Types>;
pub(crate) type RaftEntry = openraft::alias::EntryOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, Peer>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type Payload = EntryPayload<Data, u64, Peer>;

/// Where a replica lives; the address is looked up by node id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
}

/// What an entry carries, from proposal to apply; no step copies a record.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// Proposed here: the log stamps it, unless more proposals were refused than it says.
    Batch {
        batch: RecordBatch,
        after: Option<u64>,
    },
    /// Read from the log or received from a leader: stamped.
    Framed(Frame),
    /// Read from the log to be applied: without the records.
    Head(Box<FrameHead>),
    /// A command.
    Command(Bytes),
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch { batch, .. } => write!(f, "batch of {}", batch.header.record_count),
            Self::Framed(frame) => write!(f, "batch at {}", frame.base_offset()),
            Self::Head(head) => write!(f, "batch at {}", head.header.base_offset),
            Self::Command(bytes) => write!(f, "command of {} bytes", bytes.len()),
        }
    }
}

pub(crate) fn to_raft(id: LogId) -> RaftLogId {
    RaftLogId::new(id.term.into(), id.index)
}

pub(crate) fn from_raft(id: &RaftLogId) -> LogId {
    LogId {
        term: id.leader_id.term,
        index: id.index,
    }
}

pub(crate) fn vote_to_raft(vote: Vote) -> RaftVote {
    let node = vote.voted_for.unwrap_or_default().0;
    if vote.committed {
        RaftVote::new_committed(vote.term, node)
    } else {
        RaftVote::new(vote.term, node)
    }
}

pub(crate) fn vote_from_raft(vote: &RaftVote) -> Vote {
    Vote {
        term: vote.leader_id.term(),
        voted_for: Some(ReplicaId(*vote.leader_id.node_id())),
        committed: vote.committed,
    }
}

pub(crate) fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

pub(crate) fn unreachable(why: &(impl std::error::Error + 'static)) -> Unreachable<Types> {
    Unreachable::new(why)
}
