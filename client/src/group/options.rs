//! How a member takes part in its group.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use seriatim_proto::{ids::TopicPartition, v1};

use super::handle::GroupHandle;
use crate::consumer::ResetPolicy;

/// How partitions are shared among the members of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strategy {
    /// Balanced to within one partition, and as little moves as that allows. The default.
    #[default]
    Sticky,
    /// Of each topic, consecutive partitions to each member: partitions of the same number of
    /// several topics meet at one member.
    Range,
    /// All partitions of all topics in turn.
    RoundRobin,
}

impl Strategy {
    pub(super) const fn to_wire(self) -> v1::AssignmentStrategy {
        match self {
            Self::Sticky => v1::AssignmentStrategy::Sticky,
            Self::Range => v1::AssignmentStrategy::Range,
            Self::RoundRobin => v1::AssignmentStrategy::RoundRobin,
        }
    }

    pub(super) const fn from_wire(strategy: v1::AssignmentStrategy) -> Self {
        match strategy {
            v1::AssignmentStrategy::Range => Self::Range,
            v1::AssignmentStrategy::RoundRobin => Self::RoundRobin,
            v1::AssignmentStrategy::Sticky | v1::AssignmentStrategy::Unspecified => Self::Sticky,
        }
    }
}

/// What changed in what a member owns. No partition is in two of these at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebalance {
    /// The member got these; their records come after the callback has returned. It may
    /// [seek](GroupHandle::seek).
    Assigned(Vec<TopicPartition>),
    /// The member is to let go of these. Everything handed on of them came back and, with automatic
    /// commit, is committed; nothing more of them comes. It may [commit](GroupHandle::commit). Other
    /// members get them after the callback has returned.
    Revoked(Vec<TopicPartition>),
    /// These were taken away: the session ran out, or they were not let go of in time. They may be
    /// with other members already, so there is nothing to commit; drop what was kept for them.
    Lost(Vec<TopicPartition>),
}

/// Called with each change, one at a time, in a task of its own.
pub(super) type Listener =
    Arc<dyn Fn(Rebalance, GroupHandle) -> BoxFuture<'static, ()> + Send + Sync>;

/// What the application chose.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) topics: Vec<String>,
    pub(super) instance_id: String,
    pub(super) client_id: String,
    pub(super) strategy: Strategy,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) reset: ResetPolicy,
    /// Without one, only the application commits.
    pub(super) auto_commit: Option<Duration>,
    pub(super) prefetch_bytes: usize,
    pub(super) listener: Option<Listener>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("topics", &self.topics)
            .field("instance_id", &self.instance_id)
            .field("strategy", &self.strategy)
            .field("session_timeout", &self.session_timeout)
            .field("reset", &self.reset)
            .field("auto_commit", &self.auto_commit)
            .finish_non_exhaustive()
    }
}
