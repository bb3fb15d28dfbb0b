//! The entries of a history, as they stand in its JSON lines.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// Stands for one partition of one topic: what Jepsen calls `k`. [`Header::keys`] names it.
pub type Key = u32;

/// The value of a record: within its key no two sends have the same one.
pub type Value = i64;

/// The first line of a history: what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Always [`Header::FORMAT`].
    pub format: String,
    /// Always [`Header::VERSION`].
    pub version: u32,
    /// Where it was made: `sim`, `live`, or a name of one's own.
    pub world: String,
    /// Each key as `topic-partition`.
    pub keys: BTreeMap<Key, String>,
    /// Nodes at the beginning.
    pub nodes: u64,
    /// The seed that everything follows from, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The command that makes this run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<String>,
    /// Bound on recovery after the last fault, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_max_ms: Option<u64>,
    /// What ran. A check that such a workload should have fed and that found nothing to look at fails.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub workloads: BTreeSet<Workload>,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            format: Self::FORMAT.to_owned(),
            version: Self::VERSION,
            world: String::new(),
            keys: BTreeMap::new(),
            nodes: 0,
            seed: None,
            replay: None,
            recovery_max_ms: None,
            workloads: BTreeSet::new(),
        }
    }
}

/// Something that clients did in a run, named by what it leaves in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Sends.
    Append,
    /// Sends of producer sessions: those with [`Send::producer`].
    Idempotent,
    /// Sends on condition: those with [`Send::expected_end`].
    Conditional,
    /// Keys to which all sends are on condition.
    Ledger,
    /// Polls of keys by assignment, while others append.
    Consume,
    /// Polls of members of a group: those with [`Poll::group`].
    GroupConsume,
    /// Commits of members of a group, and questions for what is committed.
    Offsets,
    /// Trims.
    Trim,
    /// Registers.
    Register,
    /// Final polls of every key.
    Final,
    /// The committed logs of replicas, compared.
    Replicas,
    /// The question whether everything works again.
    Recover,
}

impl Header {
    /// What a history calls itself.
    pub const FORMAT: &str = "seriatim-history";
    /// The form described here.
    pub const VERSION: u32 = 1;

    /// The topic that a key belongs to. One that was created again is named with the number of its life
    /// behind a `#`, which is left out.
    pub fn topic(&self, key: Key) -> Option<&str> {
        let (topic, _partition) = self.keys.get(&key)?.rsplit_once('-')?;
        Some(topic.split_once('#').map_or(topic, |(topic, _life)| topic))
    }
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Process {
    /// A client; its number is used by nobody else.
    Client(u64),
    /// What breaks and mends. Its entries are all [`Kind::Info`].
    Nemesis(Nemesis),
}

/// The name of the nemesis in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nemesis {
    /// There is one.
    Nemesis,
}

impl Process {
    /// What breaks and mends.
    pub const NEMESIS: Self = Self::Nemesis(Nemesis::Nemesis);
}

/// Which part of an operation an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It took effect.
    Ok,
    /// It certainly did not, and never will.
    Fail,
    /// It may have taken effect, or may yet.
    Info,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Its place in the history, from 0.
    pub index: u64,
    /// When, in nanoseconds since the run began; never less than that of the entry before.
    pub time: u64,
    /// Who.
    pub process: Process,
    /// Which part of the operation.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What: `f` and `value`.
    #[serde(flatten)]
    pub action: Action,
    /// The node that was asked, or that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// Why it failed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is done. The same variant stands in the invocation and the completion; fields that only the
/// completion knows are empty in the invocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", content = "value", rename_all = "kebab-case")]
pub enum Action {
    /// Append one batch.
    Send(Send),
    /// Read.
    Poll(Poll),
    /// A consumer now reads these keys, from where it says in its next poll.
    Assign(Vec<Key>),
    /// A consumer now reads whatever its group gives it of these keys.
    Subscribe(Vec<Key>),
    /// The client is gone; another one takes over.
    Crash,
    /// Store an offset of a consumer group.
    Commit(Commit),
    /// Ask for the offsets of a consumer group.
    Committed(Committed),
    /// Remove old records.
    Trim(Trim),
    /// Use a register that is kept in a partition.
    Register(Register),
    /// Create a topic.
    CreateTopic(Topic),
    /// Delete a topic.
    DeleteTopic(Topic),
    /// Compare the committed log of one replica with others; after the faults.
    Replica(Replica),
    /// The cluster is asked for what stands only where nothing is broken any more: every key takes an
    /// append, every group a commit. Its time from invocation to completion is that of the recovery.
    Recover,
    /// Something is broken or mended.
    Fault(Fault),
    /// An answer or a state that only a bug explains, in words.
    Impossible(String),
}

/// Reads a map whose keys are [`Key`]s, which JSON writes as text.
fn by_key<'de, D, V>(deserializer: D) -> Result<BTreeMap<Key, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    let named = BTreeMap::<String, V>::deserialize(deserializer)?;
    let numbered = named.into_iter().map(|(name, value)| {
        let key = name.parse();
        let key = key
            .map_err(|_not_one| D::Error::custom(format!("{name:?} is not the number of a key")));
        Ok((key?, value))
    });
    numbered.collect()
}

/// Records of one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// Where to.
    pub key: Key,
    /// Their values, in order.
    pub values: Vec<Value>,
    /// The offset of the first, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// The log must end here, or the append fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_end: Option<i64>,
    /// Where the log ended instead, as the refusal said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_end: Option<i64>,
    /// The idempotent producer session, if it is one: the log keeps its sends to one key in the order
    /// of their invocations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<i64>,
}

/// A read of one or more keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// What came of it; empty in the invocation.
    #[serde(
        default,
        deserialize_with = "by_key",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub reads: BTreeMap<Key, Read>,
    /// The first offset asked for, by key, where the reader says.
    #[serde(
        default,
        deserialize_with = "by_key",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub from: BTreeMap<Key, i64>,
    /// The position was set anew before this poll (by an assignment, a seek, a reset), so that it need
    /// not go on where the last one ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sought: bool,
    /// A read of the whole log after the last fault: `reads` begins at the log start and ends at the
    /// high watermark.
    #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
    /// As a member of a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The member that reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// What one key gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Offsets and values, as served.
    pub records: Vec<(i64, Value)>,
    /// The high watermark that the answer named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_watermark: Option<i64>,
    /// The log start offset that the answer named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_start: Option<i64>,
    /// The generation in which the group gave the key to this member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<u64>,
}

/// An offset of a consumer group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The group.
    pub group: String,
    /// Who commits; empty for a commit from outside of the group.
    pub member: String,
    /// The generation in which the member was given each key.
    #[serde(
        default,
        deserialize_with = "by_key",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub granted: BTreeMap<Key, u64>,
    /// The next record to process, by key.
    #[serde(deserialize_with = "by_key")]
    pub offsets: BTreeMap<Key, i64>,
}

/// Where a consumer group is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The group.
    pub group: String,
    /// By key, once known; `null` for one that was never committed.
    #[serde(
        default,
        deserialize_with = "by_key",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub offsets: BTreeMap<Key, Option<i64>>,
}

/// Removal of what is old.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trim {
    /// Where.
    pub key: Key,
    /// Up to this offset.
    pub before: i64,
    /// Where the log begins then, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_start: Option<i64>,
}

/// A register in a partition: its value is that of the last write in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Where it is kept.
    pub key: Key,
    /// What is done with it.
    pub op: RegisterOp,
}

/// An operation of a register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegisterOp {
    /// Its value, once known; `null` before the first write.
    Read(Option<Value>),
    /// A new value.
    Write(Value),
    /// A new value if it has the first one.
    Cas(Option<Value>, Value),
}

/// A topic that is made or removed under load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
}

/// A part of the committed log of one replica.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Of what.
    pub key: Key,
    /// Where it lies.
    pub node: u64,
    /// First offset compared.
    pub start: i64,
    /// Offset after the last one compared.
    pub end: i64,
    /// Stands for the bytes, hexadecimal: equal only if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Something broken or mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Joins its begin and its end.
    pub id: u64,
    /// The kind: `kill`, `pause`, `partition`, `power-loss`, ...
    pub what: String,
    /// In words: which nodes, how.
    pub detail: String,
    /// Begin or end.
    pub phase: FaultPhase,
}

/// The two ends of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultPhase {
    /// Broken from now on.
    Begin,
    /// Mended.
    End,
    /// Over at once.
    Once,
}
