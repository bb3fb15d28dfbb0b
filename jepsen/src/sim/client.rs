//! What every simulated client shares: the nodes, the history, and when to stop.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use seriatim_proto::{
    batch::{BatchHeader, RecordBatch},
    compression::Compression,
    record::{BatchBuilder, ProducerStamp, decode_records},
    v1,
};
use seriatim_runtime::{clock, rng};

use super::rpc::{Answer, Call, Lost, Switchboard};
use crate::{
    history::{Key, Recorder, Value},
    work::register::CELLS,
};

/// The topic of the workload.
pub const TOPIC: &str = "events";

/// An offset that no partition has; a leader that is asked for it tells where the partition ends.
pub const BEYOND: i64 = i64::MAX;

/// The key of the first partition of [`CELLS`]; that of [`TOPIC`]'s first is 0.
pub const CELLS_KEY: Key = 500;

/// What the history calls a partition.
pub fn key(topic: &str, partition: i32) -> Key {
    let first = if topic == CELLS { CELLS_KEY } else { 0 };
    first + Key::try_from(partition).unwrap_or_default()
}

/// The value of a producer's record, counted from 0 within a partition.
pub fn value(producer: u32, number: u32) -> Value {
    (i64::from(producer) << 32) | i64::from(number)
}

/// What clients tell each other besides the history.
#[derive(Debug, Default)]
pub struct Board {
    /// When the latest acknowledged commit of each partition was first sent.
    pub committed: BTreeMap<i32, Duration>,
    /// Nothing is broken any more, so clients break nothing either.
    pub calm: bool,
}

/// Longest wait for one answer.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How often one who rests looks whether to end.
const NAP: Duration = Duration::from_millis(500);

/// One client's view of the run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    /// Calls to nodes.
    pub rpc: Switchboard,
    /// What is judged at the end.
    pub recorder: Recorder,
    /// What clients tell each other.
    pub board: Arc<Mutex<Board>>,
    /// Set when clients shall finish what they do and end.
    pub stop: Arc<AtomicBool>,
    /// Nodes are 1 to this.
    pub nodes: u64,
    /// Partitions are 0 to below this.
    pub partitions: i32,
}

/// One attempt to append.
#[derive(Debug)]
pub enum Attempt {
    /// Done.
    Acknowledged(v1::PartitionProduceResult),
    /// Failed with an answer.
    Error(v1::Error),
    /// No answer.
    Lost(Lost),
}

impl Attempt {
    /// Whether the attempt may have had an effect although it failed.
    pub fn maybe_applied(&self) -> bool {
        match self {
            Self::Acknowledged(_) => true,
            Self::Error(error) => error.maybe_applied,
            Self::Lost(lost) => *lost == Lost::Unanswered,
        }
    }
}

impl Client {
    /// Whether to end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Any node.
    pub fn any_node(&self) -> u64 {
        1 + rng::below(self.nodes)
    }

    /// A short pause.
    pub async fn pause(&self, most: Duration) {
        clock::sleep(rng::duration_below(most)).await;
    }

    /// A long pause, which is over when clients shall end: the run waits for nobody who rests.
    pub async fn rest(&self, most: Duration) {
        let until = clock::now() + rng::duration_below(most);
        while clock::now() < until && !self.stopping() {
            clock::sleep_until(until.min(clock::now() + NAP)).await;
        }
    }

    /// A node whose answer to a failure names the leader, or any.
    pub fn after(&self, failed: &v1::Error) -> u64 {
        let hint = failed.leader.as_ref().map(|leader| leader.node_id);
        hint.filter(|&node| node != 0)
            .unwrap_or_else(|| self.any_node())
    }

    /// Sends one batch once.
    pub async fn append(&self, node: u64, batch: v1::PartitionBatch) -> Attempt {
        let request = v1::ProduceRequest {
            timeout_ms: 2000,
            batches: vec![batch],
            ..v1::ProduceRequest::default()
        };
        match self.rpc.call(node, Call::Produce(request), PATIENCE).await {
            Err(lost) => Attempt::Lost(lost),
            Ok(Answer::Failed(error)) => Attempt::Error(error),
            Ok(Answer::Produced(response)) => match response.results.into_iter().next() {
                Some(mut result) => match result.error.take() {
                    None => Attempt::Acknowledged(result),
                    Some(error) => Attempt::Error(error),
                },
                None => self.impossible("a produce response without a result"),
            },
            Ok(other) => self.impossible(&format!("an append was answered {other:?}")),
        }
    }

    fn impossible(&self, what: &str) -> Attempt {
        self.note_impossible(what.to_owned());
        Attempt::Lost(Lost::Unanswered)
    }

    /// Records what only a bug explains.
    pub fn note_impossible(&self, what: String) {
        self.recorder.impossible(what);
    }

    /// Reads one partition once; the records that begin at `offset` or later. All below `offset` was read
    /// or removed, unless it is [`BEYOND`].
    pub async fn fetch(
        &self,
        node: u64,
        (topic, partition): (&str, i32),
        offset: i64,
    ) -> Result<Fetched, Option<v1::Error>> {
        let request = v1::FetchRequest {
            partitions: vec![v1::FetchPartition {
                topic: topic.to_owned(),
                partition,
                offset,
                ..v1::FetchPartition::default()
            }],
            max_wait_ms: 100,
            ..v1::FetchRequest::default()
        };
        let answer = self.rpc.call(node, Call::Fetch(request), PATIENCE).await;
        let result = match answer {
            Ok(Answer::Fetched(response)) => response.results.into_iter().next(),
            Ok(Answer::Failed(error)) => return Err(Some(error)),
            Ok(_) | Err(_) => None,
        };
        let mut result = result.ok_or(None)?;
        if let Some(error) = result.error.take() {
            let end = error.log_end_offset.filter(|end| *end < offset);
            if let Some(end) = end.filter(|_| offset != BEYOND) {
                self.note_impossible(format!(
                    "node {node} said that {topic}-{partition} ends at {end}, of which there was all below \
                     {offset}"
                ));
            }
            return Err(Some(error));
        }
        match decode(result.record_batches, offset) {
            Ok(records) => Ok(Fetched {
                records,
                high_watermark: result.high_watermark,
                log_start: result.log_start_offset,
            }),
            Err(what) => {
                self.note_impossible(format!(
                    "node {node} served {topic}-{partition}@{offset} damaged: {what}"
                ));
                Err(None)
            }
        }
    }
}

/// What a fetch brought.
#[derive(Debug)]
pub struct Fetched {
    /// Offsets and values.
    pub records: Vec<(i64, Value)>,
    /// The partition's, as the node says.
    pub high_watermark: i64,
    /// The partition's, as the node says.
    pub log_start: i64,
}

/// The records of whole batches that stand back to back.
fn decode(mut bytes: Bytes, from: i64) -> Result<Vec<(i64, Value)>, String> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let header = BatchHeader::parse(&bytes).map_err(|e| e.to_string())?;
        let total = header.total_bytes();
        if total > bytes.len() {
            return Err(format!("{} bytes of a batch of {total}", bytes.len()));
        }
        let batch = RecordBatch::parse(bytes.split_to(total)).map_err(|e| e.to_string())?;
        for record in decode_records(&batch).map_err(|e| e.to_string())? {
            let value = record.value.as_deref().and_then(parse);
            let value = value.ok_or_else(|| format!("no value at {}", record.offset))?;
            if record.offset.0 >= from {
                out.push((record.offset.0, value));
            }
        }
    }
    Ok(out)
}

/// The value at the head of a record, as real clients write it too: their topics are read where a replica
/// is looked at.
fn parse(record: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(record).ok()?;
    text.split(' ').next()?.parse().ok()
}

/// A batch of values, padded to `record_bytes`.
pub fn encode(
    (topic, partition): (&str, i32),
    values: &[Value],
    record_bytes: usize,
    stamp: Option<ProducerStamp>,
    expected_end_offset: Option<i64>,
) -> v1::PartitionBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        let mut record = format!("{value} ").into_bytes();
        record.resize(record_bytes.max(record.len()), b'.');
        let _index = builder.push(clock::wall_ms(), None, Some(&record), &[]);
    }
    v1::PartitionBatch {
        topic: topic.to_owned(),
        partition,
        record_batch: builder.finish(stamp).unwrap_or_default(),
        expected_end_offset,
        ..v1::PartitionBatch::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_round_trip() {
        let batch = encode((TOPIC, 1), &[value(3, 17), -1], 40, None, None);
        let decoded = decode(batch.record_batch, 0);
        assert_eq!(decoded, Ok(vec![(0, (3 << 32) + 17), (1, -1)]));
        assert_eq!(parse(b"x"), None);
        assert_eq!(parse(b"v1:x y"), None);
    }
}
