//! Who leads what.

use seriatim_cluster::{NodeInfo, Topic, is_internal};
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
        let mut unknown_topics = Vec::new();
        let mut topics = Vec::new();
        if !request.nodes_only {
            if request.topics.is_empty() {
                topics = image
                    .topics
                    .values()
                    .filter(|topic| request.include_internal || !is_internal(&topic.name))
                    .map(|topic| self.topic(topic))
                    .collect();
            }
            for name in &request.topics {
                match image.topics.get(name) {
                    Some(topic) => topics.push(self.topic(topic)),
                    None if ready => unknown_topics.push(name.clone()),
                    // This node has just started and may not have heard of it yet (simulator seed 9674).
                    None => {}
                }
            }
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
