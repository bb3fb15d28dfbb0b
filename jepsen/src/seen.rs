//! What clients saw, in the order in which it happened: the only thing that the checkers judge.

use std::{collections::BTreeMap, fmt, time::Duration};

/// One record of the workload: who wrote it, and which of theirs it is. Never written twice by the
/// workload, except as a retry of the same append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The producer, unique in a run.
    pub producer: u32,
    /// Counts up from 0 within one producer and partition.
    pub number: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}:{}", self.producer, self.number)
    }
}

impl Mark {
    /// The mark at the head of a record's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let text = text.split(' ').next()?.strip_prefix('p')?;
        let (producer, number) = text.split_once(':')?;
        Some(Self {
            producer: producer.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

/// How an append ended, after all its retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged at this offset.
    Acknowledged {
        /// Offset of the first record.
        base_offset: i64,
        /// The offset that the log had to end at, where one was demanded.
        expected_end: Option<i64>,
    },
    /// Certainly not applied: no attempt can have had an effect.
    Refused,
    /// May or may not have been applied.
    Unknown,
}

/// One append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The partition.
    pub partition: i32,
    /// Its records, in order.
    pub records: Vec<Mark>,
    /// Its end.
    pub outcome: Outcome,
    /// When it ended.
    pub at: Duration,
}

/// One answer to a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Who read.
    pub reader: u32,
    /// Which node answered.
    pub node: u64,
    /// The partition.
    pub partition: i32,
    /// The records, as served.
    pub records: Vec<(i64, Mark)>,
    /// The high watermark that the answer named.
    pub high_watermark: i64,
    /// The log start offset that the answer named.
    pub log_start: i64,
    /// When it was answered.
    pub at: Duration,
}

/// One commit of a member of the consumer group, after its last retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The member; never the same for two.
    pub member: u64,
    /// The generation in which the member was told that it owns the partition.
    pub granted: u64,
    /// The partition.
    pub partition: i32,
    /// The next record to process.
    pub offset: i64,
    /// Its end.
    pub outcome: CommitOutcome,
    /// When it was first sent.
    pub from: Duration,
    /// When it ended.
    pub at: Duration,
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Stored.
    Acknowledged,
    /// Certainly not stored.
    Refused,
    /// May or may not have been stored.
    Unknown,
}

/// One answer to the question where the group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The partition.
    pub partition: i32,
    /// The committed offset, if there is one.
    pub offset: Option<i64>,
    /// When it was asked.
    pub from: Duration,
    /// When it was answered.
    pub at: Duration,
}

/// Everything that a run leaves to judge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Appends in the order in which they ended.
    pub appends: Vec<Append>,
    /// Fetches in the order in which they were answered.
    pub reads: Vec<Read>,
    /// After the last fault was healed: each partition read from its start to its end.
    pub finals: BTreeMap<i32, Vec<(i64, Mark)>>,
    /// Where each partition's final log begins, where retention moved that from 0: what is below was
    /// removed on purpose.
    pub starts: BTreeMap<i32, i64>,
    /// After that, per partition and node: the committed log as bytes (or a digest of them).
    pub replicas: BTreeMap<i32, BTreeMap<u64, u64>>,
    /// Commits in the order in which they ended.
    pub commits: Vec<Commit>,
    /// What the group was seen to have committed, in the order of the answers.
    pub committed: Vec<Committed>,
    /// From the last healing until every partition took an append again; `None` if one never did.
    pub recovered_after: Option<Duration>,
    /// What the nemesis did, for people.
    pub faults: Vec<(Duration, String)>,
    /// Answers or states that can only come from a bug, whatever the faults.
    pub impossible: Vec<String>,
}

impl History {
    /// Records acknowledged.
    pub fn acknowledged(&self) -> usize {
        let acked = |a: &&Append| matches!(a.outcome, Outcome::Acknowledged { .. });
        self.appends
            .iter()
            .filter(acked)
            .map(|a| a.records.len())
            .sum()
    }

    /// Where a partition's final log begins.
    pub fn start(&self, partition: i32) -> i64 {
        self.starts.get(&partition).copied().unwrap_or(0)
    }

    /// Commits of the consumer group that were acknowledged.
    pub fn committed(&self) -> usize {
        let stored = |commit: &&Commit| commit.outcome == CommitOutcome::Acknowledged;
        self.commits.iter().filter(stored).count()
    }

    /// A number that two equal histories share.
    pub fn digest(&self) -> u64 {
        // FNV-1a over the debug form: stable within one build, which is what a replay compares.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in format!("{self:?}").bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash
    }
}
