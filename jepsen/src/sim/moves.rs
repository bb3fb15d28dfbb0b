//! An operator who moves partitions to and fro, and changes his mind.

use std::time::Duration;

use seriatim_proto::v1;
use seriatim_runtime::rng;

use super::{
    client::{Client, PATIENCE, TOPIC},
    rpc::{Answer, Call},
};

/// Replicas of each partition, before and after a move.
const REPLICAS: usize = 3;

/// Most time between two orders.
const PAUSE: Duration = Duration::from_secs(2);

/// One order in so many takes back a move that is under way.
const CANCELS: u64 = 4;

/// Moves one partition after the other to any nodes until the run ends.
pub async fn operator(client: Client) {
    while !client.stopping() {
        client.pause(PAUSE).await;
        let partitions = u64::try_from(client.partitions).unwrap_or(1);
        let partition = i32::try_from(rng::below(partitions)).unwrap_or_default();
        let cancel = rng::below(CANCELS) == 0;
        let request = v1::ReassignRequest {
            topic: TOPIC.to_owned(),
            partition,
            nodes: if cancel {
                Vec::new()
            } else {
                some_nodes(client.nodes)
            },
            cancel,
        };
        let node = client.any_node();
        let answer = client.rpc.call(node, Call::Reassign(request), PATIENCE);
        // An order that is refused, because the partition is moving, was none.
        if let Ok(Answer::Reassigned(moved)) = answer.await {
            let begun = u64::try_from(moved.moves.len()).unwrap_or_default();
            client.history.lock().moves += begun;
        }
    }
}

/// Any nodes in any order.
fn some_nodes(all: u64) -> Vec<u64> {
    let mut nodes: Vec<u64> = (1..=all).collect();
    let mut chosen = Vec::new();
    while chosen.len() < REPLICAS && !nodes.is_empty() {
        let at = usize::try_from(rng::below(u64::try_from(nodes.len()).unwrap_or(1)));
        chosen.push(nodes.swap_remove(at.unwrap_or_default()));
    }
    chosen
}
