//! A shard on disk, in the node's metadata store.
//!
//! ```text
//! groups/<replica>/a                              AppliedRecord: how far it was applied
//! groups/<replica>/g/<group>                      GroupRecord
//! groups/<replica>/m/<group> 0 <member>           MemberRecord
//! groups/<replica>/o/<group> 0 <topic> 0 <number> OffsetRecord; the number in 4 bytes, big-endian
//! ```
//!
//! `<replica>` is group and replica id in 16 hexadecimal digits each, with a dot between them; `0` a
//! zero byte, which no name contains. What a batch of entries changed and how far it got is one
//! transaction, so a crash, which may lose the last of them, leaves a state as of one entry: the
//! rest is applied again from the Raft log.

use prost::Message;
use seriatim_proto::internal::v1 as wire;
use seriatim_storage::{LogKey, MetaBatch, MetaStore, StorageError};

use crate::{
    records::{self, Builder},
    state::{Shard, Tp},
    touched::Touched,
};

/// Keys that are removed in one transaction where a whole shard goes.
const REMOVED_AT_ONCE: usize = 10_000;

/// Why a shard on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("record {key} of the metadata store")]
    Record {
        key: String,
        #[source]
        source: prost::DecodeError,
    },
    #[error("key {0} of the metadata store is none of this version")]
    Key(String),
}

/// The keys of one replica.
#[derive(Debug, Clone)]
pub(crate) struct Keys(String);

impl Keys {
    pub(crate) fn new(key: LogKey) -> Self {
        Self(format!(
            "groups/{:016x}.{:016x}/",
            key.group.0, key.replica.0
        ))
    }

    fn applied(&self) -> Vec<u8> {
        format!("{}a", self.0).into_bytes()
    }

    fn head(&self, group: &str) -> Vec<u8> {
        format!("{}g/{group}", self.0).into_bytes()
    }

    fn members(&self, group: &str) -> Vec<u8> {
        format!("{}m/{group}\0", self.0).into_bytes()
    }

    fn member(&self, group: &str, member: &str) -> Vec<u8> {
        format!("{}m/{group}\0{member}", self.0).into_bytes()
    }

    fn offsets(&self, group: &str) -> Vec<u8> {
        format!("{}o/{group}\0", self.0).into_bytes()
    }

    fn offset(&self, group: &str, tp: &Tp) -> Vec<u8> {
        let mut key = format!("{}o/{group}\0{}\0", self.0, tp.topic).into_bytes();
        key.extend(tp.partition.to_be_bytes());
        key
    }
}

fn decode<M: Message + Default>(key: &[u8], value: &[u8]) -> Result<M, StoreError> {
    M::decode(value).map_err(|source| StoreError::Record {
        key: String::from_utf8_lossy(key).into_owned(),
        source,
    })
}

/// The group in a key behind its kind.
fn group_of(rest: &[u8]) -> Option<&str> {
    std::str::from_utf8(rest.split(|byte| *byte == 0).next()?).ok()
}

/// The shard on disk and how far it was applied; `None` where nothing was.
pub(crate) fn load(
    store: &MetaStore,
    keys: &Keys,
) -> Result<(Shard, Option<wire::AppliedRecord>), StoreError> {
    let mut builder = Builder::default();
    let mut applied = None;
    for (key, value) in store.scan(keys.0.as_bytes())? {
        let unknown = || StoreError::Key(String::from_utf8_lossy(&key).into_owned());
        let name = key.get(keys.0.len()..).ok_or_else(unknown)?;
        match name {
            b"a" => applied = Some(decode(&key, &value)?),
            [b'g', b'/', ..] => builder.head(decode(&key, &value)?),
            [b'm', b'/', rest @ ..] => {
                let group = group_of(rest).ok_or_else(unknown)?;
                builder.member(group, decode(&key, &value)?);
            }
            [b'o', b'/', rest @ ..] => {
                let group = group_of(rest).ok_or_else(unknown)?;
                builder.offset(group, decode(&key, &value)?);
            }
            _ => return Err(unknown()),
        }
    }
    Ok((builder.finish(), applied))
}

/// What has to be written for what was touched, and how far it got.
pub(crate) fn changes(
    store: &MetaStore,
    keys: &Keys,
    (shard, touched): (&Shard, &Touched),
    applied: Option<&wire::AppliedRecord>,
) -> Result<MetaBatch, StorageError> {
    let mut batch = MetaBatch::default();
    for (id, change) in &touched.groups {
        if change.wiped {
            batch.delete(keys.head(id));
            for prefix in [keys.members(id), keys.offsets(id)] {
                for (key, _) in store.scan(&prefix)? {
                    batch.delete(key.to_vec());
                }
            }
        }
        let Some(group) = shard.groups.get(id) else {
            continue;
        };
        if change.head {
            batch.put(keys.head(id), records::head(id, group).encode_to_vec());
        }
        for member_id in &change.members {
            let key = keys.member(id, member_id);
            match group.members.get(member_id) {
                Some(member) => batch.put(key, wire::MemberRecord::from(member).encode_to_vec()),
                None => batch.delete(key),
            }
        }
        for tp in &change.offsets {
            let key = keys.offset(id, tp);
            match group.offsets.get(tp) {
                Some(at) => batch.put(key, records::offset(tp, at).encode_to_vec()),
                None => batch.delete(key),
            }
        }
    }
    if let Some(applied) = applied {
        batch.put(keys.applied(), applied.encode_to_vec());
    }
    Ok(batch)
}

/// Puts this shard in place of the one on disk, in one transaction.
pub(crate) fn replace(
    store: &MetaStore,
    keys: &Keys,
    shard: &Shard,
    applied: Option<&wire::AppliedRecord>,
) -> Result<(), StorageError> {
    let mut batch = MetaBatch::default();
    for (key, _) in store.scan(keys.0.as_bytes())? {
        batch.delete(key.to_vec());
    }
    for (id, group) in &shard.groups {
        batch.put(keys.head(id), records::head(id, group).encode_to_vec());
        for (member_id, member) in &group.members {
            let record = wire::MemberRecord::from(member);
            batch.put(keys.member(id, member_id), record.encode_to_vec());
        }
        for (tp, at) in &group.offsets {
            batch.put(keys.offset(id, tp), records::offset(tp, at).encode_to_vec());
        }
    }
    if let Some(applied) = applied {
        batch.put(keys.applied(), applied.encode_to_vec());
    }
    store.transact(batch)
}

/// Removes a replica's shard. How far it was applied goes first: what is left by a crash in between
/// belongs to a replica id that is never used again.
pub(crate) fn remove(store: &MetaStore, keys: &Keys) -> Result<(), StorageError> {
    let mut all = store.scan(keys.0.as_bytes())?.into_iter().peekable();
    while all.peek().is_some() {
        let mut batch = MetaBatch::default();
        for (key, _) in all.by_ref().take(REMOVED_AT_ONCE) {
            batch.delete(key.to_vec());
        }
        store.transact(batch)?;
    }
    Ok(())
}
