//! The clients: idempotent producers that retry until they are answered, producers that append on
//! condition and never retry, consumers that ask any node.

use std::time::Duration;

use seriatim_proto::{ids::ProducerId, record::ProducerStamp, v1};
use seriatim_runtime::rng;

use super::{
    client::{Attempt, Client, PATIENCE, TOPIC, encode},
    rpc::{Answer, Call},
};
use crate::seen::{Append, Mark, Outcome, Read};

/// Most records of one batch.
const BATCH_RECORDS: u64 = 5;

/// Most bytes of one record.
const RECORD_BYTES: u64 = 2000;

/// A new producer session, from any node that answers. `None` if the run ends first.
async fn session(client: &Client) -> Option<v1::InitProducerResponse> {
    while !client.stopping() {
        let node = client.any_node();
        let answer = client.rpc.call(node, Call::InitProducer, PATIENCE).await;
        if let Ok(Answer::Producer(session)) = answer {
            return Some(session);
        }
        client.pause(Duration::from_millis(200)).await;
    }
    None
}

fn record_bytes() -> usize {
    usize::try_from(rng::below(RECORD_BYTES)).unwrap_or_default()
}

/// The next marks of a producer.
fn marks(producer: u32, next: &mut u64) -> Vec<Mark> {
    let count = 1 + rng::below(BATCH_RECORDS);
    let first = *next;
    *next += count;
    let numbers = first..*next;
    numbers.map(|number| Mark { producer, number }).collect()
}

/// Appends to one partition with a producer session: one batch at a time, each sent again until it
/// is acknowledged or the run ends.
pub async fn idempotent(client: Client, producer: u32, partition: i32, pause: Duration) {
    let Some(session) = session(&client).await else {
        return;
    };
    let (mut next, mut node) = (0, client.any_node());
    while !client.stopping() {
        let sequence = i32::try_from(next).unwrap_or(i32::MAX);
        let records = marks(producer, &mut next);
        let stamp = ProducerStamp {
            id: ProducerId(session.producer_id),
            epoch: i16::try_from(session.producer_epoch).unwrap_or_default(),
            base_sequence: sequence,
        };
        let batch = encode(partition, &records, record_bytes(), Some(stamp), None);
        let outcome = retried(&client, &mut node, &batch).await;
        let known = matches!(outcome, Outcome::Acknowledged { .. });
        finish(&client, partition, records, outcome);
        if !known {
            // Without an answer the next sequence number is not known: this session is over.
            return;
        }
        client.pause(pause).await;
    }
}

async fn retried(client: &Client, node: &mut u64, batch: &v1::PartitionBatch) -> Outcome {
    let mut tainted = false;
    loop {
        let attempt = client.append(*node, batch.clone()).await;
        tainted |= attempt.maybe_applied();
        match attempt {
            Attempt::Acknowledged(result) => {
                return Outcome::Acknowledged {
                    base_offset: result.base_offset,
                    expected_end: None,
                };
            }
            Attempt::Error(error) => {
                // One batch at a time was sent, in order: each of these means that the log forgot
                // one that it had acknowledged.
                let forgotten = matches!(
                    error.code(),
                    v1::ErrorCode::OutOfOrderSequence
                        | v1::ErrorCode::ProducerFenced
                        | v1::ErrorCode::UnknownProducer
                );
                if forgotten {
                    client.note_impossible(format!("node {node}: {error:?}"));
                    return Outcome::Unknown;
                }
                *node = client.after(&error);
            }
            Attempt::Lost(_) => *node = client.any_node(),
        }
        if client.stopping() {
            return if tainted {
                Outcome::Unknown
            } else {
                Outcome::Refused
            };
        }
        client.pause(Duration::from_millis(100)).await;
    }
}

/// Appends on condition that the log ends where it was last seen to end; never sends twice.
pub async fn conditional(client: Client, producer: u32, partition: i32, pause: Duration) {
    let (mut next, mut node, mut end) = (0, client.any_node(), 0_i64);
    while !client.stopping() {
        let records = marks(producer, &mut next);
        let count = i64::try_from(records.len()).unwrap_or_default();
        let batch = encode(partition, &records, record_bytes(), None, Some(end));
        let attempt = client.append(node, batch).await;
        let refused = !attempt.maybe_applied();
        let outcome = match attempt {
            Attempt::Acknowledged(result) => {
                let expected_end = Some(end);
                end = result.base_offset + count;
                Outcome::Acknowledged {
                    base_offset: result.base_offset,
                    expected_end,
                }
            }
            Attempt::Error(error) => {
                if error.code() == v1::ErrorCode::WrongEndOffset {
                    end = error.log_end_offset.unwrap_or(end);
                } else {
                    node = client.after(&error);
                }
                unanswered(refused)
            }
            Attempt::Lost(_) => {
                node = client.any_node();
                unanswered(refused)
            }
        };
        finish(&client, partition, records, outcome);
        client.pause(pause).await;
    }
}

fn unanswered(refused: bool) -> Outcome {
    if refused {
        Outcome::Refused
    } else {
        Outcome::Unknown
    }
}

fn finish(client: &Client, partition: i32, records: Vec<Mark>, outcome: Outcome) {
    client.history.lock().appends.push(Append {
        partition,
        records,
        outcome,
        at: client.now(),
    });
}

/// Removes old records of a partition now and then, up to anywhere; whoever reads there must be told.
pub async fn trim(client: Client, partition: i32, pause: Duration) {
    let mut node = client.any_node();
    let mut end = 0;
    while !client.stopping() {
        let request = v1::TrimPartitionRequest {
            topic: TOPIC.to_owned(),
            partition,
            before: i64::try_from(rng::below(end + 1)).unwrap_or_default(),
            timeout_ms: 2000,
        };
        let before = request.before;
        let answer = client.rpc.call(node, Call::Trim(request), PATIENCE).await;
        match answer {
            Ok(Answer::Trimmed(answer)) => match answer.error {
                Some(error) => node = client.after(&error),
                None if answer.log_start_offset < before => client.note_impossible(format!(
                    "partition {partition} begins at {} after a trim before {before}",
                    answer.log_start_offset
                )),
                // Most of what was there then stays.
                None => end = known_end(&client, node, partition).await.unwrap_or(end) / 2,
            },
            Ok(_) | Err(_) => node = client.any_node(),
        }
        client.pause(pause).await;
    }
}

/// The end of a partition, as a node says that leads it.
async fn known_end(client: &Client, node: u64, partition: i32) -> Option<u64> {
    match client.fetch(node, partition, i64::MAX).await {
        Err(Some(error)) => u64::try_from(error.log_end_offset?).ok(),
        Ok(_) | Err(None) => None,
    }
}

/// Where to go on, if the log now begins after `position`.
fn removed(error: &v1::Error, position: i64) -> Option<i64> {
    let start = error.log_start_offset.filter(|start| *start > position);
    start.filter(|_| error.code() == v1::ErrorCode::OffsetOutOfRange)
}

/// Reads every partition over and over, from whichever node answers.
pub async fn consume(client: Client, reader: u32, pause: Duration) {
    let mut positions = vec![0_i64; usize::try_from(client.partitions).unwrap_or_default()];
    let mut node = client.any_node();
    while !client.stopping() {
        for (partition, position) in (0..).zip(&mut positions) {
            match client.fetch(node, partition, *position).await {
                Ok(fetched) => {
                    *position = fetched.records.last().map_or(*position, |r| r.0 + 1);
                    client.history.lock().reads.push(Read {
                        reader,
                        node,
                        partition,
                        records: fetched.records,
                        high_watermark: fetched.high_watermark,
                        log_start: fetched.log_start,
                        at: client.now(),
                    });
                }
                Err(Some(error)) if removed(&error, *position).is_some() => {
                    *position = removed(&error, *position).unwrap_or_default();
                }
                Err(Some(error)) => node = client.after(&error),
                Err(None) => node = client.any_node(),
            }
        }
        // Now and then from the start, so that old records are read again from the disk, and from
        // another node, so that one that only believes it leads is asked too.
        if rng::below(20) == 0 {
            positions.fill(0);
            node = client.any_node();
        }
        client.pause(pause).await;
    }
}

/// Appends one record to a partition, whatever it takes.
pub async fn probe(client: Client, producer: u32, partition: i32) {
    let mut node = client.any_node();
    let records = vec![Mark {
        producer,
        number: 0,
    }];
    let Some(session) = session(&client).await else {
        return;
    };
    let stamp = ProducerStamp {
        id: ProducerId(session.producer_id),
        epoch: i16::try_from(session.producer_epoch).unwrap_or_default(),
        base_sequence: 0,
    };
    let batch = encode(partition, &records, 10, Some(stamp), None);
    let outcome = retried(&client, &mut node, &batch).await;
    finish(&client, partition, records, outcome);
}

/// Reads a partition from its start to its high watermark into the history's final log.
pub async fn read_all(client: Client, partition: i32) {
    let (mut node, mut log) = (client.any_node(), Vec::new());
    let (mut start, mut from) = (0, 0);
    while !client.stopping() {
        match client.fetch(node, partition, from).await {
            Ok(fetched) => {
                from = fetched.records.last().map_or(from, |r| r.0 + 1);
                log.extend(fetched.records);
                if from >= fetched.high_watermark {
                    let mut history = client.history.lock();
                    let _none = history.finals.insert(partition, log);
                    let _none = history.starts.insert(partition, start);
                    return;
                }
            }
            Err(Some(error)) if removed(&error, from).is_some() => {
                start = removed(&error, from).unwrap_or_default();
                from = start;
                log.clear();
            }
            Err(Some(error)) => node = client.after(&error),
            Err(None) => node = client.any_node(),
        }
        client.pause(Duration::from_millis(20)).await;
    }
}
