//! Who leads what.

use seriatim_cluster::{Image, NodeInfo, Topic, is_internal};
use seriatim_proto::{
    ids::{PartitionId, TopicPartition},
    v1,
};

use crate::Broker;

impl Broker {
    /// Nodes, topics and leaders as this node knows them.
    pub fn describe(&self, request: &v1::DescribeRequest) -> v1::DescribeResponse {
        // Looked at before the image is: that of a ready node is complete.
        let ready = self.cluster.is_ready();
        let image = self.cluster.image();
        let mut topics = Vec::new();
        let mut unknown_topics = Vec::new();
        if !request.nodes_only {
            if request.topics.is_empty() {
                topics = image
                    .topics
                    .values()
                    .filter(|topic| request.include_internal || !is_internal(&topic.name))
                    .map(|topic| self.topic(topic))
                    .collect();
            }
            let asked = request.topics.iter();
            let known = asked.filter_map(|name| image.topics.get(name));
            topics.extend(known.map(|topic| self.topic(topic)));
            unknown_topics = unknown(&request.topics, &image, ready);
        }
        // A founder is in the image before it has registered with its addresses.
        let nodes = image.nodes.values();
        let registered = nodes.filter(|info| !info.grpc_addr.is_empty());
        v1::DescribeResponse {
            cluster_id: image.cluster_id.clone(),
            nodes: registered.map(|info| node(info)).collect(),
            topics,
            unknown_topics,
            controller: self.cluster.controller().map_or(0, |node| node.0),
        }
    }

    fn topic(&self, topic: &Topic) -> v1::Topic {
        let numbered = (0..).map(PartitionId).zip(&topic.partitions);
        let partitions = numbered.map(|(number, info)| {
            let leader = self
                .cluster
                .leader(&TopicPartition::new(topic.name.clone(), number));
            v1::Partition {
                partition: number.0,
                leader: leader.map_or(0, |leader| leader.node.0),
                leader_epoch: leader.map_or(-1, |leader| leader.epoch.0),
                replicas: info.replicas.iter().map(|replica| replica.node.0).collect(),
                target_replicas: info.target.iter().flatten().map(|r| r.node.0).collect(),
                log_id: info.group.0,
            }
        });
        v1::Topic {
            name: topic.name.clone(),
            topic_id: topic.id.clone(),
            replication_factor: topic.replication_factor,
            settings: topic.settings.to_map().into_iter().collect(),
            partitions: partitions.collect(),
            internal: is_internal(&topic.name),
        }
    }
}

/// Those of the topics asked for that there are not. A node that has just started, whose image is not
/// complete, denies none: it may not have heard of them yet.
fn unknown(asked: &[String], image: &Image, complete: bool) -> Vec<String> {
    let asked = asked.iter();
    let unknown = asked.filter(|name| complete && !image.topics.contains_key(*name));
    unknown.cloned().collect()
}

fn node(info: &NodeInfo) -> v1::Node {
    v1::Node {
        node_id: info.id.0,
        grpc_address: info.grpc_addr.clone(),
        replication_address: info.replication_addr.clone(),
        http_address: info.http_addr.clone(),
        rack: info.rack.clone(),
        leaving: info.leaving,
        controller_voter: info.voter,
        data_lost_ms: info.data_lost_ms,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;

    /// After a power loss of all nodes, one of them denied topics that it had not heard of again, and
    /// clients gave them up (simulator seed 9674).
    #[test]
    fn a_node_that_has_just_started_denies_no_topic() {
        let image = Image {
            topics: BTreeMap::from([("known".to_owned(), Arc::new(Topic::default()))]),
            ..Image::default()
        };
        let asked = ["known".to_owned(), "other".to_owned()];
        assert!(unknown(&asked, &image, false).is_empty());
        assert_eq!(unknown(&asked, &image, true), ["other"]);
    }
}
