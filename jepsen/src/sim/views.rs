//! What each node believes, for whoever wants to hit the one that leads.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use seriatim_broker::Broker;
use seriatim_cluster::GROUPS_TOPIC;
use seriatim_groups::shard_of;
use seriatim_proto::ids::TopicPartition;

use super::{client::TOPIC, fault::Who, members::GROUP};

/// The nodes as they see themselves. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Views {
    nodes: Arc<Mutex<BTreeMap<u64, View>>>,
}

#[derive(Debug)]
enum View {
    /// It could not start, and why.
    Down(String),
    Up(Broker),
}

impl Views {
    /// A node has started.
    pub fn up(&self, node: u64, broker: Broker) {
        let _before = self.nodes.lock().insert(node, View::Up(broker));
    }

    /// A node could not start.
    pub fn down(&self, node: u64, why: String) {
        let _before = self.nodes.lock().insert(node, View::Down(why));
    }

    /// A node is gone. Its executor must still be there: it holds what the view lets go.
    pub fn forget(&self, node: u64) {
        let before = self.nodes.lock().remove(&node);
        drop(before);
    }

    /// All nodes are gone, or about to be.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.nodes.lock());
        drop(all);
    }

    /// Why a node cannot start.
    pub fn why_down(&self, node: u64) -> Option<String> {
        match self.nodes.lock().get(&node) {
            Some(View::Down(why)) => Some(why.clone()),
            Some(View::Up(_)) | None => None,
        }
    }

    /// Whether a node has started.
    pub fn is_up(&self, node: u64) -> bool {
        matches!(self.nodes.lock().get(&node), Some(View::Up(_)))
    }

    /// The node that leads, as the one says that knows of the newest term.
    pub fn leader(&self, who: Who) -> Option<u64> {
        let nodes = self.nodes.lock();
        let brokers = nodes.values().filter_map(|view| match view {
            View::Up(broker) => Some(broker.cluster()),
            View::Down(_) => None,
        });
        let leader = |tp: TopicPartition| {
            let known = brokers.clone().filter_map(|cluster| cluster.leader(&tp));
            let newest = known.max_by_key(|leader| leader.epoch)?;
            Some(newest.node.0)
        };
        match who {
            Who::Node(node) => Some(node),
            Who::All => None,
            Who::Leader(partition) => leader(TopicPartition::new(TOPIC, partition)),
            Who::Coordinator => {
                let mut shards = brokers.clone().filter_map(|cluster| {
                    let image = cluster.image();
                    let topic = image.topics.get(GROUPS_TOPIC)?;
                    u32::try_from(topic.partitions.len()).ok()
                });
                let shard = i32::try_from(shard_of(GROUP, shards.next()?)).ok()?;
                leader(TopicPartition::new(GROUPS_TOPIC, shard))
            }
            Who::Controller => {
                let told = brokers.clone().filter_map(|cluster| cluster.controller());
                // Most nodes are right; which of several is asked makes no difference to a fault.
                told.map(|node| node.0).next()
            }
        }
    }
}
