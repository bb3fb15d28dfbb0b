//! Groups as protobuf records: the form in which they are stored, sent as a snapshot and put into
//! commands.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use seriatim_proto::{internal::v1 as wire, v1::AssignmentStrategy};

use crate::state::{Committed, Group, Member, Shard, Tp};

/// Version of [`wire::ShardRecord`].
const SHARD_VERSION: u32 = 1;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("not a snapshot of consumer groups")]
    Unreadable(#[source] prost::DecodeError),
    #[error("a snapshot of consumer groups in version {0}, which this software does not know")]
    Version(u32),
}

/// Partitions by topic, in order.
pub(crate) fn by_topic<'a>(tps: impl IntoIterator<Item = &'a Tp>) -> Vec<wire::GroupPartitions> {
    let mut topics: Vec<wire::GroupPartitions> = Vec::new();
    for tp in tps {
        match topics.last_mut() {
            Some(last) if last.topic == *tp.topic => last.partitions.push(tp.partition),
            _ => topics.push(wire::GroupPartitions {
                topic: (*tp.topic).to_owned(),
                partitions: vec![tp.partition],
            }),
        }
    }
    topics
}

/// The partitions of a list by topic.
pub(crate) fn partitions(topics: Vec<wire::GroupPartitions>) -> impl Iterator<Item = Tp> {
    topics.into_iter().flat_map(|topic| {
        let name: Arc<str> = topic.topic.into();
        let tp = move |partition| Tp::new(Arc::clone(&name), partition);
        topic.partitions.into_iter().map(tp)
    })
}

/// The strategy of that number; sticky where this version does not know it.
pub(crate) fn strategy(number: i32) -> AssignmentStrategy {
    match AssignmentStrategy::try_from(number) {
        Ok(AssignmentStrategy::Unspecified) | Err(_) => AssignmentStrategy::Sticky,
        Ok(strategy) => strategy,
    }
}

impl From<&Member> for wire::MemberRecord {
    fn from(member: &Member) -> Self {
        let owned = |(tp, generation): (&Tp, &u64)| wire::OwnedPartition {
            topic: (*tp.topic).to_owned(),
            partition: tp.partition,
            generation: *generation,
        };
        Self {
            spec: Some(member.spec.clone()),
            owned: member.owned.iter().map(owned).collect(),
            target: by_topic(&member.target),
            replaced: member.replaced.clone(),
        }
    }
}

impl From<wire::MemberRecord> for Member {
    fn from(record: wire::MemberRecord) -> Self {
        let owned =
            |owned: wire::OwnedPartition| (Tp::new(owned.topic, owned.partition), owned.generation);
        Self {
            spec: record.spec.unwrap_or_default(),
            owned: record.owned.into_iter().map(owned).collect(),
            target: partitions(record.target).collect(),
            replaced: record.replaced,
        }
    }
}

/// A group without members and offsets.
pub(crate) fn head(id: &str, group: &Group) -> wire::GroupRecord {
    wire::GroupRecord {
        group: id.to_owned(),
        generation: group.generation,
        strategy: group.strategy.into(),
        touched_ms: group.touched_ms,
    }
}

/// Where a group is in a partition.
pub(crate) fn offset(tp: &Tp, committed: &Committed) -> wire::OffsetRecord {
    wire::OffsetRecord {
        topic: (*tp.topic).to_owned(),
        partition: tp.partition,
        offset: committed.offset,
        metadata: committed.metadata.clone().into(),
        committed_at_ms: committed.at_ms,
        origin: committed.origin,
    }
}

/// The stored groups, put together from their records.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    groups: BTreeMap<String, Group>,
    /// The last topic, so that offsets share its name.
    topic: Option<Arc<str>>,
}

impl Builder {
    pub(crate) fn head(&mut self, record: wire::GroupRecord) {
        let group = self.groups.entry(record.group).or_default();
        group.generation = record.generation;
        group.strategy =
            AssignmentStrategy::try_from(record.strategy).unwrap_or(AssignmentStrategy::Sticky);
        group.touched_ms = record.touched_ms;
    }

    pub(crate) fn member(&mut self, group: &str, record: wire::MemberRecord) {
        let member = Member::from(record);
        let group = self.groups.entry(group.to_owned()).or_default();
        group.member_bytes += member.bytes();
        let _none = group.members.insert(member.spec.member_id.clone(), member);
    }

    pub(crate) fn offset(&mut self, group: &str, record: wire::OffsetRecord) {
        let topic = match &self.topic {
            Some(topic) if **topic == *record.topic => Arc::clone(topic),
            _ => record.topic.into(),
        };
        self.topic = Some(Arc::clone(&topic));
        let committed = Committed {
            offset: record.offset,
            metadata: record.metadata.into(),
            at_ms: record.committed_at_ms,
            origin: record.origin,
        };
        if !self.groups.contains_key(group) {
            let _none = self.groups.insert(group.to_owned(), Group::default());
        }
        if let Some(group) = self.groups.get_mut(group) {
            let tp = Tp::new(topic, record.partition);
            group.set_offset(tp, Some(committed));
        }
    }

    pub(crate) fn finish(self) -> Shard {
        let bytes = self.groups.values().map(Group::bytes).sum();
        let shared = |(id, group)| (id, Arc::new(group));
        Shard {
            groups: self.groups.into_iter().map(shared).collect(),
            bytes,
        }
    }
}

/// Snapshot bytes of a shard.
pub(crate) fn encode_snapshot(shard: &Shard) -> Bytes {
    let whole = |(id, group): (&String, &Arc<Group>)| wire::WholeGroup {
        group: Some(head(id, group)),
        members: group.members.values().map(Into::into).collect(),
        offsets: group
            .offsets
            .iter()
            .map(|(tp, at)| offset(tp, at))
            .collect(),
    };
    let record = wire::ShardRecord {
        version: SHARD_VERSION,
        groups: shard.groups.iter().map(whole).collect(),
    };
    record.encode_to_vec().into()
}

/// The shard in snapshot bytes.
pub(crate) fn decode_snapshot(data: &[u8]) -> Result<Shard, SnapshotError> {
    let record = wire::ShardRecord::decode(data).map_err(SnapshotError::Unreadable)?;
    if record.version > SHARD_VERSION {
        return Err(SnapshotError::Version(record.version));
    }
    let mut builder = Builder::default();
    for whole in record.groups {
        let group = whole.group.unwrap_or_default();
        let id = group.group.clone();
        builder.head(group);
        for member in whole.members {
            builder.member(&id, member);
        }
        for offset in whole.offsets {
            builder.offset(&id, offset);
        }
    }
    Ok(builder.finish())
}
