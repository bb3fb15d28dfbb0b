//! What an operator does meanwhile: move replicas from node to node, and change their mind.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use seriatim_cluster::GROUPS_TOPIC;
use seriatim_proto::v1;
use seriatim_runtime::{clock, rng};

use super::{
    client::{Client, PATIENCE, TOPIC},
    rpc::{Answer, Call},
    workload::removed,
};
use crate::history::{Action, Key, Replica};

/// Replicas of each partition.
pub const REPLICAS: usize = 3;

/// How long nodes may take to agree on what there is, once nobody changes it.
const AGREE: Duration = Duration::from_secs(20);

/// Moves partitions to nodes drawn at random, and now and then turns a move round; those of the consumer
/// groups, too, if it is told how many there are.
pub async fn moves(client: Client, groups: Option<u32>) {
    while !client.stopping() {
        client.pause(Duration::from_secs(4)).await;
        let (topic, partitions) = match groups {
            Some(shards) if rng::below(2) == 0 => (GROUPS_TOPIC, shards.into()),
            _ => (TOPIC, u64::try_from(client.partitions).unwrap_or_default()),
        };
        let Some(partition) = any_of(partitions) else {
            return;
        };
        let cancel = rng::below(6) == 0;
        let request = v1::ReassignRequest {
            topic: topic.to_owned(),
            partition,
            nodes: if cancel {
                Vec::new()
            } else {
                some_nodes(&client)
            },
            cancel,
        };
        let node = client.any_node();
        // Refused while another move is under way, or lost: the next one is drawn anew.
        let _begun = client
            .rpc
            .call(node, Call::Reassign(request), PATIENCE)
            .await;
    }
}

fn any_of(partitions: u64) -> Option<i32> {
    let any = (partitions > 0).then(|| rng::below(partitions))?;
    i32::try_from(any).ok()
}

fn some_nodes(client: &Client) -> Vec<u64> {
    let mut nodes: Vec<u64> = (1..=client.nodes).collect();
    let mut chosen = Vec::new();
    while chosen.len() < REPLICAS && !nodes.is_empty() {
        let left = u64::try_from(nodes.len()).unwrap_or(1);
        let at = usize::try_from(rng::below(left)).unwrap_or_default();
        chosen.push(nodes.swap_remove(at));
    }
    chosen
}

/// Waits until no replica of the partition is on its way; tells where they are.
async fn settled(client: &Client, (topic, partition): (&str, i32)) -> BTreeSet<u64> {
    while !client.stopping() {
        let call = Call::Describe(v1::DescribeRequest {
            topics: vec![topic.to_owned()],
            ..v1::DescribeRequest::default()
        });
        let answer = client.rpc.call(client.any_node(), call, PATIENCE).await;
        if let Ok(Answer::Described(described)) = answer {
            let topics = described.topics.iter();
            let mut partitions = topics.flat_map(|topic| &topic.partitions);
            let found = partitions.find(|found| found.partition == partition);
            tracing::debug!(topic, partition, ?found, "is it settled?");
            if let Some(found) = found.filter(|found| found.target_replicas.is_empty()) {
                return found.replicas.iter().copied().collect();
            }
        }
        client.pause(Duration::from_millis(200)).await;
    }
    BTreeSet::new()
}

/// Asks every replica for the digest of a partition between two offsets until all have answered. If
/// retention takes records of that range away meanwhile, begins again with what is left.
pub async fn compare(
    client: Client,
    key: Key,
    (topic, partition): (String, i32),
    mut range: Range<i64>,
) {
    let place = (topic.as_str(), partition);
    let process = client.recorder.process();
    let mut digests = BTreeMap::new();
    let mut nodes = settled(&client, place).await;
    while nodes.iter().any(|node| !digests.contains_key(node)) && !client.stopping() {
        for &node in &nodes {
            if !digests.contains_key(&node)
                && let Some(digest) = digest(&client, node, place, &range).await
            {
                let _none = digests.insert(node, digest);
            }
        }
        if digests.len() < nodes.len() {
            tracing::debug!(
                topic,
                partition,
                ?range,
                ?nodes,
                ?digests,
                "not all replicas are there"
            );
            client.pause(Duration::from_millis(100)).await;
            if let Some(start) = log_start(&client, place, range.start).await {
                range.start = start.min(range.end);
                digests.clear();
            }
            // The node that was asked may have been behind.
            nodes = settled(&client, place).await;
            digests.retain(|node, _| nodes.contains(node));
        }
    }
    for (node, digest) in digests {
        let asked = Replica {
            key,
            node,
            start: range.start,
            end: range.end,
            digest: None,
        };
        let answered = Replica {
            digest: Some(format!("{digest:016x}")),
            ..asked.clone()
        };
        let recorder = &client.recorder;
        let pending = recorder.invoke(process, Some(node), Action::Replica(asked));
        recorder.ok(pending, Action::Replica(answered));
    }
}

/// Asks all nodes what they know of the cluster until all know the same. Nobody changes anything any more, so
/// one that keeps to something else has computed another state from the same log.
pub async fn compare_images(client: Client) {
    let deadline = clock::now() + AGREE;
    let mut known = BTreeMap::new();
    while !client.stopping() {
        known.clear();
        for node in 1..=client.nodes {
            let image = client.rpc.call(node, Call::Image, PATIENCE).await;
            if let Ok(Answer::Digest(Some(image))) = image {
                let _none = known.insert(node, image);
            }
        }
        let asked = u64::try_from(known.len()).unwrap_or_default();
        let different: BTreeSet<u64> = known.values().copied().collect();
        if asked == client.nodes && different.len() == 1 {
            return;
        }
        if clock::now() >= deadline {
            let what = format!("the nodes know different things of the cluster: {known:x?}");
            return client.note_impossible(what);
        }
        client.pause(Duration::from_millis(200)).await;
    }
}

/// Where a partition begins now, if that is above `position`.
async fn log_start(client: &Client, place: (&str, i32), position: i64) -> Option<i64> {
    let answer = client.fetch(client.any_node(), place, position).await;
    let error = answer.err().flatten()?;
    removed(&error, position)
}

async fn digest(
    client: &Client,
    node: u64,
    (topic, partition): (&str, i32),
    range: &Range<i64>,
) -> Option<u64> {
    let call = Call::Digest {
        topic: topic.to_owned(),
        partition,
        start: range.start,
        end: range.end,
    };
    match client.rpc.call(node, call, PATIENCE).await {
        Ok(Answer::Digest(digest)) => digest,
        Ok(_) | Err(_) => None,
    }
}
