//! The image as protobuf records: the form in which it is stored, sent as a snapshot and put into
//! commands.

use std::{collections::BTreeMap, sync::Arc};

use seriatim_proto::{
    ids::{GroupId, NodeId, ReplicaId},
    internal::v1 as wire,
};

use crate::image::{Image, NodeInfo, PartitionInfo, Replica, Topic, effective_settings};

/// Version of [`wire::ImageRecord`].
pub(crate) const IMAGE_VERSION: u32 = 1;

impl From<&Image> for wire::HeaderRecord {
    fn from(image: &Image) -> Self {
        Self {
            cluster_id: image.cluster_id.clone(),
            next_group: image.next_group,
            next_replica: image.next_replica,
            next_producer_id: image.next_producer_id,
            feature_level: image.feature_level,
            deleted_requests: image.deleted_requests.iter().cloned().collect(),
        }
    }
}

impl Image {
    pub(crate) fn set_header(&mut self, header: wire::HeaderRecord) {
        self.cluster_id = header.cluster_id;
        self.next_group = header.next_group;
        self.next_replica = header.next_replica;
        self.next_producer_id = header.next_producer_id;
        self.feature_level = header.feature_level;
        self.deleted_requests = header.deleted_requests.into();
    }

    pub(crate) fn to_record(&self) -> wire::ImageRecord {
        wire::ImageRecord {
            version: IMAGE_VERSION,
            header: Some(self.into()),
            nodes: self.nodes.values().map(|node| (&**node).into()).collect(),
            topics: self
                .topics
                .values()
                .map(|topic| (&**topic).into())
                .collect(),
        }
    }

    pub(crate) fn from_record(record: wire::ImageRecord) -> Self {
        let mut image = Self::default();
        image.set_header(record.header.unwrap_or_default());
        for node in record.nodes.into_iter().map(NodeInfo::from) {
            let _ = image.nodes.insert(node.id, Arc::new(node));
        }
        for topic in record.topics.into_iter().map(Topic::from) {
            let _ = image.topics.insert(topic.name.clone(), Arc::new(topic));
        }
        image
    }
}

impl From<&NodeInfo> for wire::NodeRecord {
    fn from(node: &NodeInfo) -> Self {
        Self {
            node_id: node.id.0,
            incarnation: node.incarnation.clone(),
            grpc_address: node.grpc_addr.clone(),
            replication_address: node.replication_addr.clone(),
            http_address: node.http_addr.clone(),
            rack: node.rack.clone(),
            feature_level: node.feature_level,
            controller_replica: node.controller_replica.0,
            voter: node.voter,
            software_version: node.software_version.clone(),
            leaving: node.leaving,
            data_lost_ms: node.data_lost_ms,
        }
    }
}

impl From<wire::NodeRecord> for NodeInfo {
    fn from(record: wire::NodeRecord) -> Self {
        Self {
            id: NodeId(record.node_id),
            incarnation: record.incarnation,
            grpc_addr: record.grpc_address,
            replication_addr: record.replication_address,
            http_addr: record.http_address,
            rack: record.rack,
            feature_level: record.feature_level,
            controller_replica: ReplicaId(record.controller_replica),
            voter: record.voter,
            software_version: record.software_version,
            leaving: record.leaving,
            data_lost_ms: record.data_lost_ms,
        }
    }
}

impl From<Replica> for wire::ReplicaRecord {
    fn from(replica: Replica) -> Self {
        Self {
            replica_id: replica.id.0,
            node_id: replica.node.0,
        }
    }
}

impl From<wire::ReplicaRecord> for Replica {
    fn from(record: wire::ReplicaRecord) -> Self {
        Self {
            id: ReplicaId(record.replica_id),
            node: NodeId(record.node_id),
        }
    }
}

impl From<&PartitionInfo> for wire::PartitionRecord {
    fn from(partition: &PartitionInfo) -> Self {
        let records = |replicas: &[Replica]| replicas.iter().map(|&r| r.into()).collect();
        Self {
            group_id: partition.group.0,
            replicas: records(&partition.replicas),
            founders: partition
                .founders
                .as_deref()
                .map(records)
                .unwrap_or_default(),
            target: partition.target.as_deref().map(records).unwrap_or_default(),
            returning: partition.returning,
            moves: partition.moves,
        }
    }
}

impl From<wire::PartitionRecord> for PartitionInfo {
    fn from(record: wire::PartitionRecord) -> Self {
        let replicas = |records: Vec<wire::ReplicaRecord>| -> Vec<Replica> {
            records.into_iter().map(Replica::from).collect()
        };
        Self {
            group: GroupId(record.group_id),
            replicas: replicas(record.replicas),
            founders: Some(replicas(record.founders)).filter(|founders| !founders.is_empty()),
            target: Some(replicas(record.target)).filter(|target| !target.is_empty()),
            returning: record.returning,
            moves: record.moves,
        }
    }
}

impl From<&Topic> for wire::TopicRecord {
    fn from(topic: &Topic) -> Self {
        Self {
            name: topic.name.clone(),
            topic_id: topic.id.clone(),
            replication_factor: topic.replication_factor,
            settings: settings(&topic.overrides),
            partitions: topic.partitions.iter().map(Into::into).collect(),
            request_id: topic.request_id.clone(),
        }
    }
}

impl From<wire::TopicRecord> for Topic {
    fn from(record: wire::TopicRecord) -> Self {
        let overrides: BTreeMap<String, String> = record
            .settings
            .into_iter()
            .map(|setting| (setting.name, setting.value))
            .collect();
        Self {
            name: record.name,
            id: record.topic_id,
            replication_factor: record.replication_factor,
            settings: effective_settings(&overrides),
            overrides,
            partitions: record.partitions.into_iter().map(Into::into).collect(),
            request_id: record.request_id,
        }
    }
}

/// Settings in the order of their names.
pub(crate) fn settings(map: &BTreeMap<String, String>) -> Vec<wire::Setting> {
    map.iter()
        .map(|(name, value)| wire::Setting {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}
