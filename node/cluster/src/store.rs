//! The image on disk, in the node's sled tree.
//!
//! ```text
//! cluster/applied        AppliedRecord: how far the image was applied, and the membership then
//! cluster/header         HeaderRecord
//! cluster/node/<id>      NodeRecord; the id in 16 hexadecimal digits
//! cluster/topic/<name>   TopicRecord with all its partitions
//! local/incarnation      identity of this data folder
//! local/controller       this node's replica of the metadata group; 8 bytes, big-endian
//! ```
//!
//! What a batch of entries changed and how far it got is one transaction. sled may lose its last
//! half second in a crash: then image and `applied` are older together, and the entries are
//! applied again from the Raft log.

use bytes::Bytes;
use prost::Message;
use seriatim_proto::{
    ids::{NodeId, ReplicaId},
    internal::v1 as wire,
};
use seriatim_storage::{MetaBatch, MetaStore, StorageError};

use crate::{apply::Touched, image::Image};

const APPLIED: &[u8] = b"cluster/applied";
const HEADER: &[u8] = b"cluster/header";
const NODES: &str = "cluster/node/";
const TOPICS: &str = "cluster/topic/";
const CLUSTER: &[u8] = b"cluster/";
const INCARNATION: &[u8] = b"local/incarnation";
const CONTROLLER: &[u8] = b"local/controller";

fn node_key(id: NodeId) -> Vec<u8> {
    format!("{NODES}{:016x}", id.0).into_bytes()
}

fn topic_key(name: &str) -> Vec<u8> {
    format!("{TOPICS}{name}").into_bytes()
}

/// Why the image on disk cannot be used.
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
}

fn decode<M: Message + Default>(key: &[u8], value: &[u8]) -> Result<M, StoreError> {
    M::decode(value).map_err(|source| StoreError::Record {
        key: String::from_utf8_lossy(key).into_owned(),
        source,
    })
}

/// The image on disk and how far it was applied; `None` where nothing was.
pub(crate) fn load(store: &MetaStore) -> Result<(Image, Option<wire::AppliedRecord>), StoreError> {
    let applied = match store.get(APPLIED)? {
        Some(value) => Some(decode::<wire::AppliedRecord>(APPLIED, &value)?),
        None => None,
    };
    let mut record = wire::ImageRecord::default();
    for (key, value) in store.scan(CLUSTER)? {
        if key == HEADER {
            record.header = Some(decode(&key, &value)?);
        } else if key.starts_with(NODES.as_bytes()) {
            record.nodes.push(decode(&key, &value)?);
        } else if key.starts_with(TOPICS.as_bytes()) {
            record.topics.push(decode(&key, &value)?);
        }
    }
    Ok((Image::from_record(record), applied))
}

/// Writes what was touched and how far it got, in one transaction.
pub(crate) fn save(
    store: &MetaStore,
    image: &Image,
    touched: &Touched,
    applied: &wire::AppliedRecord,
) -> Result<(), StorageError> {
    let mut batch = MetaBatch::default();
    for id in &touched.nodes {
        match image.nodes.get(id) {
            Some(node) => {
                batch.put(
                    node_key(*id),
                    wire::NodeRecord::from(&**node).encode_to_vec(),
                );
            }
            None => batch.delete(node_key(*id)),
        }
    }
    for name in &touched.topics {
        match image.topics.get(name) {
            Some(topic) => {
                batch.put(
                    topic_key(name),
                    wire::TopicRecord::from(&**topic).encode_to_vec(),
                );
            }
            None => batch.delete(topic_key(name)),
        }
    }
    batch.put(
        HEADER.to_vec(),
        wire::HeaderRecord::from(image).encode_to_vec(),
    );
    batch.put(APPLIED.to_vec(), applied.encode_to_vec());
    store.transact(batch)
}

/// Puts this image in place of the one on disk, in one transaction.
pub(crate) fn replace(
    store: &MetaStore,
    image: &Image,
    applied: Option<&wire::AppliedRecord>,
) -> Result<(), StorageError> {
    let mut batch = MetaBatch::default();
    for (key, _) in store.scan(CLUSTER)? {
        batch.delete(key.to_vec());
    }
    for (id, node) in &image.nodes {
        batch.put(
            node_key(*id),
            wire::NodeRecord::from(&**node).encode_to_vec(),
        );
    }
    for (name, topic) in &image.topics {
        batch.put(
            topic_key(name),
            wire::TopicRecord::from(&**topic).encode_to_vec(),
        );
    }
    batch.put(
        HEADER.to_vec(),
        wire::HeaderRecord::from(image).encode_to_vec(),
    );
    if let Some(applied) = applied {
        batch.put(APPLIED.to_vec(), applied.encode_to_vec());
    }
    store.transact(batch)
}

/// The identity of this data folder, made at its first use.
pub(crate) fn incarnation(store: &MetaStore) -> Result<String, StorageError> {
    if let Some(value) = store.get(INCARNATION)? {
        return Ok(String::from_utf8_lossy(&value).into_owned());
    }
    let incarnation = crate::new_id();
    let mut batch = MetaBatch::default();
    batch.put(INCARNATION.to_vec(), incarnation.clone().into_bytes());
    store.transact(batch)?;
    store.flush()?;
    Ok(incarnation)
}

/// This node's replica of the metadata group, where it has one.
pub(crate) fn controller_replica(store: &MetaStore) -> Result<Option<ReplicaId>, StorageError> {
    let value = store.get(CONTROLLER)?;
    let id = value.and_then(|value| <[u8; 8]>::try_from(&*value).ok());
    Ok(id.map(|id| ReplicaId(u64::from_be_bytes(id))))
}

/// Remembers this node's replica of the metadata group; durable on return.
pub(crate) fn set_controller_replica(
    store: &MetaStore,
    replica: ReplicaId,
) -> Result<(), StorageError> {
    let mut batch = MetaBatch::default();
    batch.put(CONTROLLER.to_vec(), replica.0.to_be_bytes().to_vec());
    store.transact(batch)?;
    store.flush()
}

/// Snapshot bytes of an image.
pub(crate) fn encode_snapshot(image: &Image) -> Bytes {
    image.to_record().encode_to_vec().into()
}

/// The image in snapshot bytes.
pub(crate) fn decode_snapshot(data: &[u8]) -> Result<Image, StoreError> {
    Ok(Image::from_record(decode(b"snapshot", data)?))
}
