//! Groups as values: what the replicas of a shard have agreed on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use prost::Message as _;
use seriatim_proto::{internal::v1 as wire, v1::AssignmentStrategy};

use crate::limits::MAX_SHARD_BYTES;

/// A partition of a topic. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tp {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
}

impl Tp {
    pub(crate) fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for Tp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Every group of one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shard {
    /// By id; shared with snapshots that are being written.
    pub(crate) groups: BTreeMap<String, Arc<Group>>,
    /// Bytes of all of them, about as many as in a snapshot. Invariant: the sum of theirs.
    pub(crate) bytes: usize,
}

impl Shard {
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= MAX_SHARD_BYTES
    }
}

/// One consumer group. One without members and offsets does not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// Grows with every change of members or targets; never goes back while the group exists.
    pub(crate) generation: u64,
    pub(crate) strategy: AssignmentStrategy,
    /// By member id.
    pub(crate) members: BTreeMap<String, Member>,
    pub(crate) offsets: BTreeMap<Tp, Committed>,
    /// Invariant: the sum of [`Committed::bytes`] over `offsets`.
    pub(crate) offset_bytes: usize,
    /// Invariant: the sum of [`Member::bytes`] over `members`.
    pub(crate) member_bytes: usize,
    /// When its members last changed or, without members, an offset was stored. Counts for the
    /// expiry of a group without members.
    pub(crate) touched_ms: i64,
}

/// A member of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) spec: wire::MemberSpec,
    /// What it may process and commit, with the generation in which it was granted. Invariant: no
    /// partition is owned by two members.
    pub(crate) owned: BTreeMap<Tp, u64>,
    /// What it is to own. Invariant: no partition is the target of two members; a partition of the
    /// target that is not owned is owned by another member.
    pub(crate) target: BTreeSet<Tp>,
    /// Member ids that had this place before under the same instance id.
    pub(crate) replaced: Vec<String>,
}

/// Where a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) metadata: Box<str>,
    pub(crate) at_ms: i64,
    /// Which topic of that name: the Raft group of its first partition.
    pub(crate) origin: u64,
}

/// Bytes of a record besides its names and texts, generously.
const RECORD: usize = 32;

impl Committed {
    fn bytes(&self, tp: &Tp) -> usize {
        tp.topic.len() + self.metadata.len() + RECORD
    }
}

impl Member {
    /// About as many as it takes in a snapshot: each partition may be target and owned.
    pub(crate) fn bytes(&self) -> usize {
        let targets = self.target.iter().map(|tp| tp.topic.len() + RECORD);
        self.spec.encoded_len() + RECORD + 2 * targets.sum::<usize>()
    }

    /// What it owns and keeps, with the generation in which it was granted.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&Tp, u64)> {
        let kept = self.owned.iter();
        let kept = kept.filter(|(tp, _)| self.target.contains(*tp));
        kept.map(|(tp, generation)| (tp, *generation))
    }

    /// What it owns and is to let go of.
    pub(crate) fn revoking(&self) -> impl Iterator<Item = &Tp> {
        self.owned.keys().filter(|tp| !self.target.contains(*tp))
    }

    /// What it gets when others have let go of it.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Tp> {
        self.target
            .iter()
            .filter(|tp| !self.owned.contains_key(*tp))
    }

    fn is_settled(&self) -> bool {
        self.owned.len() == self.target.len() && self.revoking().next().is_none()
    }
}

impl Group {
    pub(crate) fn bytes(&self) -> usize {
        self.offset_bytes + self.member_bytes + RECORD
    }

    /// Every partition is with the member that is to have it.
    pub(crate) fn is_settled(&self) -> bool {
        self.members.values().all(Member::is_settled)
    }

    /// Whether another member took this one's place.
    pub(crate) fn is_fenced(&self, member_id: &str) -> bool {
        let mut members = self.members.values();
        members.any(|member| member.replaced.iter().any(|id| id == member_id))
    }

    /// Stores or, with `None`, forgets an offset.
    pub(crate) fn set_offset(&mut self, tp: Tp, committed: Option<Committed>) {
        if let Some(before) = self.offsets.get(&tp) {
            self.offset_bytes -= before.bytes(&tp);
        }
        let _before = match committed {
            Some(committed) => {
                self.offset_bytes += committed.bytes(&tp);
                self.offsets.insert(tp, committed)
            }
            None => self.offsets.remove(&tp),
        };
    }

    /// Asserts what must hold of every group.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut owners = BTreeSet::new();
        let mut targets = BTreeSet::new();
        for member in self.members.values() {
            for (tp, generation) in &member.owned {
                assert!(owners.insert(tp.clone()), "{tp} has two owners");
                assert!(*generation <= self.generation);
            }
            for tp in &member.target {
                assert!(targets.insert(tp.clone()), "{tp} is the target of two");
            }
        }
        for member in self.members.values() {
            for tp in member.pending() {
                assert!(owners.contains(tp), "{tp} is free and was not granted");
            }
        }
        assert!(!self.members.is_empty() || !self.offsets.is_empty());
        let offsets = self.offsets.iter().map(|(tp, at)| at.bytes(tp));
        assert_eq!(self.offset_bytes, offsets.sum::<usize>());
        let members = self.members.values().map(Member::bytes);
        assert_eq!(self.member_bytes, members.sum::<usize>());
    }
}
