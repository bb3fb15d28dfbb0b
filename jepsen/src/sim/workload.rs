//! The clients: idempotent producers that retry until they are answered, producers that append on
//! condition and never retry, consumers that ask any node.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use seriatim_proto::{ids::ProducerId, record::ProducerStamp, v1};
use seriatim_runtime::rng;

use super::{
    client::{Attempt, BEYOND, Client, PATIENCE, TOPIC, encode, key, value},
    rpc::{Answer, Call},
};
use crate::history::{Action, Kind, Pending, Poll, Process, Read, Send, Trim, Value};

/// Most records of one batch.
const BATCH_RECORDS: u64 = 5;

/// Most bytes of one record: few are large.
const RECORD_BYTES: (u64, u64) = (200, 12_000);

/// How many batches of a producer follow each other, on average.
const BURST: u64 = 15;

/// Longest rest between two bursts.
const REST: Duration = Duration::from_secs(4);

/// Bytes of a record whose batch is damaged: enough for some padding.
const DAMAGED_BYTES: usize = 100;

/// How an append ended, after all its retries.
#[derive(Debug)]
pub(super) struct Outcome {
    kind: Kind,
    /// The node that spoke last.
    node: u64,
    base_offset: Option<i64>,
    /// Where the log ended, if that was the reason to refuse.
    found_end: Option<i64>,
    error: String,
}

impl Outcome {
    /// How it ended and why.
    pub(super) fn told(self) -> (Kind, String) {
        (self.kind, self.error)
    }

    /// What one attempt came to, at which it stays.
    pub(super) fn of(node: u64, attempt: Attempt) -> Self {
        let kind = match &attempt {
            Attempt::Acknowledged(_) => Kind::Ok,
            failed if failed.maybe_applied() => Kind::Info,
            Attempt::Error(_) | Attempt::Lost(_) => Kind::Fail,
        };
        let mut outcome = Self {
            kind,
            node,
            base_offset: None,
            found_end: None,
            error: String::new(),
        };
        match attempt {
            Attempt::Acknowledged(result) => outcome.base_offset = Some(result.base_offset),
            Attempt::Error(error) => {
                if error.code() == v1::ErrorCode::WrongEndOffset {
                    outcome.found_end = error.log_end_offset;
                }
                outcome.error = error.message;
            }
            Attempt::Lost(lost) => outcome.error = format!("{lost:?}").to_lowercase(),
        }
        outcome
    }

    /// Writes the completion; returns the process to go on as.
    pub(super) fn record(self, client: &Client, pending: Pending, mut send: Send) -> Process {
        let process = pending.process();
        let pending = pending.at(self.node);
        send.offset = self.base_offset;
        send.found_end = self.found_end;
        let action = Action::Send(send);
        match self.kind {
            Kind::Info => return client.recorder.info(pending, action, self.error),
            Kind::Fail => client.recorder.fail(pending, action, self.error),
            Kind::Ok | Kind::Invoke => client.recorder.ok(pending, action),
        }
        process
    }
}

/// A new producer session, from any node that answers. `None` if the run ends first.
pub(super) async fn session(client: &Client) -> Option<v1::InitProducerResponse> {
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

pub(super) fn record_bytes() -> usize {
    let (small, large) = RECORD_BYTES;
    let most = if rng::below(8) == 0 { large } else { small };
    usize::try_from(rng::below(most)).unwrap_or_default()
}

/// The next values of a producer.
pub(super) fn values(producer: u32, next: &mut u32) -> Vec<Value> {
    let count = u32::try_from(1 + rng::below(BATCH_RECORDS)).unwrap_or(1);
    let first = *next;
    *next += count;
    let numbers = first..*next;
    numbers.map(|number| value(producer, number)).collect()
}

/// Appends to one partition with a producer session: one batch at a time, each sent again until it
/// is acknowledged or the run ends.
pub async fn idempotent(client: Client, producer: u32, partition: i32, pause: Duration) {
    let Some(session) = session(&client).await else {
        return;
    };
    let process = client.recorder.process();
    let (mut next, mut node) = (0, client.any_node());
    while !client.stopping() {
        let sequence = i32::try_from(next).unwrap_or(i32::MAX);
        let values = values(producer, &mut next);
        let sent = Batch {
            session: &session,
            sequence,
            partition,
            values,
            record_bytes: record_bytes(),
        };
        if !sent.deliver(&client, process, &mut node, &|| false).await {
            // Without an answer the next sequence number is not known: this session is over.
            return;
        }
        // Bursts: most batches stand close to others, yet a run has time for many faults.
        let rests = rng::below(BURST) == 0;
        client.rest(if rests { REST } else { pause }).await;
    }
}

/// A batch of a producer session.
pub(super) struct Batch<'a> {
    pub(super) session: &'a v1::InitProducerResponse,
    pub(super) sequence: i32,
    pub(super) partition: i32,
    pub(super) values: Vec<Value>,
    pub(super) record_bytes: usize,
}

impl Batch<'_> {
    /// Sends it until there is an answer; whether it was acknowledged. `follows` says whether one that
    /// was sent before it has no answer.
    pub(super) async fn deliver(
        self,
        client: &Client,
        process: Process,
        node: &mut u64,
        follows: &(dyn Fn() -> bool + std::marker::Send + Sync),
    ) -> bool {
        let stamp = ProducerStamp {
            id: ProducerId(self.session.producer_id),
            epoch: i16::try_from(self.session.producer_epoch).unwrap_or_default(),
            base_sequence: self.sequence,
        };
        let (place, bytes) = ((TOPIC, self.partition), self.record_bytes);
        let batch = encode(place, &self.values, bytes, Some(stamp), None);
        let send = Send {
            key: key(TOPIC, self.partition),
            values: self.values,
            producer: Some(self.session.producer_id),
            ..Send::default()
        };
        let invoked = Action::Send(send.clone());
        let pending = client.recorder.invoke(process, Some(*node), invoked);
        let outcome = retried(client, node, &batch, follows).await;
        let known = outcome.kind == Kind::Ok;
        let _over = outcome.record(client, pending, send);
        known
    }
}

async fn retried(
    client: &Client,
    node: &mut u64,
    batch: &v1::PartitionBatch,
    follows: &(dyn Fn() -> bool + std::marker::Send + Sync),
) -> Outcome {
    let mut tainted = false;
    loop {
        let (asked, leaves_gap) = (*node, follows());
        let attempt = client.append(asked, batch.clone()).await;
        tainted |= attempt.maybe_applied();
        match &attempt {
            Attempt::Acknowledged(_) => return Outcome::of(asked, attempt),
            Attempt::Error(error) => {
                // Unless another is still to come before it, each of these means that the log
                // forgot a batch that it had acknowledged.
                let forgotten = match error.code() {
                    v1::ErrorCode::OutOfOrderSequence | v1::ErrorCode::UnknownProducer => {
                        !leaves_gap
                    }
                    v1::ErrorCode::ProducerFenced => true,
                    _ => false,
                };
                *node = client.after(error);
                if forgotten {
                    client.note_impossible(format!("node {asked}: {error:?}"));
                    return Outcome {
                        kind: Kind::Info,
                        ..Outcome::of(asked, attempt)
                    };
                }
            }
            Attempt::Lost(_) => *node = client.any_node(),
        }
        if client.stopping() {
            return Outcome {
                kind: if tainted { Kind::Info } else { Kind::Fail },
                ..Outcome::of(asked, attempt)
            };
        }
        client.pause(Duration::from_millis(100)).await;
    }
}

/// Appends on condition that the log ends where it was last seen to end; never sends twice.
pub async fn conditional(
    client: Client,
    producer: u32,
    place: (&'static str, i32),
    pause: Duration,
) {
    let mut process = client.recorder.process();
    let (mut next, mut node, mut end) = (0, client.any_node(), 0_i64);
    while !client.stopping() {
        let values = values(producer, &mut next);
        let count = i64::try_from(values.len()).unwrap_or_default();
        let batch = encode(place, &values, record_bytes(), None, Some(end));
        let send = Send {
            key: key(place.0, place.1),
            values,
            expected_end: Some(end),
            ..Send::default()
        };
        let invoked = Action::Send(send.clone());
        let pending = client.recorder.invoke(process, Some(node), invoked);
        let attempt = client.append(node, batch).await;
        let asked = node;
        match &attempt {
            Attempt::Error(error) if error.code() != v1::ErrorCode::WrongEndOffset => {
                node = client.after(error);
            }
            Attempt::Lost(_) => node = client.any_node(),
            Attempt::Acknowledged(_) | Attempt::Error(_) => {}
        }
        let outcome = Outcome::of(asked, attempt);
        let landed = outcome.base_offset.map(|base| base + count);
        end = landed.or(outcome.found_end).unwrap_or(end);
        process = outcome.record(&client, pending, send);
        client.pause(pause).await;
    }
}

/// Appends batches of which a bit flipped on the way: they must be refused.
pub async fn damaged(client: Client, producer: u32, partition: i32, pause: Duration) {
    let mut process = client.recorder.process();
    let (mut next, mut node) = (0, client.any_node());
    while !client.stopping() {
        client.pause(pause).await;
        let values = values(producer, &mut next);
        let mut batch = encode((TOPIC, partition), &values, DAMAGED_BYTES, None, None);
        batch.record_batch = flipped(&batch.record_batch);
        let send = Send {
            key: key(TOPIC, partition),
            values,
            ..Send::default()
        };
        let invoked = Action::Send(send.clone());
        let pending = client.recorder.invoke(process, Some(node), invoked);
        let (asked, attempt) = (node, client.append(node, batch).await);
        match &attempt {
            Attempt::Acknowledged(_) => {
                client.note_impossible(format!("node {asked} acknowledged a damaged batch"));
            }
            Attempt::Error(error) => node = client.after(error),
            Attempt::Lost(_) => node = client.any_node(),
        }
        let outcome = Outcome::of(asked, attempt);
        process = outcome.record(&client, pending, send);
    }
}

/// The batch with another padding in its last record.
fn flipped(batch: &Bytes) -> Bytes {
    let mut bytes = batch.to_vec();
    // The last byte counts the record's headers.
    if let Some(byte) = bytes.iter_mut().nth_back(1) {
        *byte ^= 1;
    }
    bytes.into()
}

/// Removes old records of a partition now and then, up to anywhere; whoever reads there must be told.
pub async fn trim(client: Client, partition: i32, pause: Duration) {
    let mut process = client.recorder.process();
    let mut node = client.any_node();
    let (mut start, mut known, mut end) = (0_u64, 0_u64, 0);
    while !client.stopping() {
        // A little of what is left, or up to anywhere, also where nothing is any more.
        let before = if rng::below(4) == 0 {
            start + rng::below(known.saturating_sub(start) / 8 + 1)
        } else {
            rng::below(end + 1)
        };
        let before = i64::try_from(before).unwrap_or_default();
        let request = v1::TrimPartitionRequest {
            topic: TOPIC.to_owned(),
            partition,
            before,
            timeout_ms: 2000,
        };
        let mut trim = Trim {
            key: key(TOPIC, partition),
            before,
            log_start: None,
        };
        let asked = Action::Trim(trim.clone());
        let pending = client.recorder.invoke(process, Some(node), asked.clone());
        let answer = client.rpc.call(node, Call::Trim(request), PATIENCE).await;
        let why = match answer {
            Ok(Answer::Trimmed(answer)) => match answer.error {
                Some(error) => {
                    node = client.after(&error);
                    Some(error.message)
                }
                None => {
                    trim.log_start = Some(answer.log_start_offset);
                    start = u64::try_from(answer.log_start_offset).unwrap_or_default();
                    None
                }
            },
            Ok(_) | Err(_) => {
                node = client.any_node();
                Some("no answer".to_owned())
            }
        };
        match why {
            // Every log start that is named later may be its work.
            Some(why) => process = client.recorder.info(pending, asked, why),
            None => {
                client.recorder.ok(pending, Action::Trim(trim));
                known = known_end(&client, node, partition).await.unwrap_or(known);
                // Most of what was there then stays, most of the time.
                end = if rng::below(4) == 0 { known } else { known / 2 };
            }
        }
        client.pause(pause).await;
    }
}

/// The end of a partition, as a node says that leads it.
async fn known_end(client: &Client, node: u64, partition: i32) -> Option<u64> {
    match client.fetch(node, (TOPIC, partition), BEYOND).await {
        Err(Some(error)) => u64::try_from(error.log_end_offset?).ok(),
        Ok(_) | Err(None) => None,
    }
}

/// Where to go on, if the log now begins after `position`.
pub(super) fn removed(error: &v1::Error, position: i64) -> Option<i64> {
    let start = error.log_start_offset.filter(|start| *start > position);
    start.filter(|_| error.code() == v1::ErrorCode::OffsetOutOfRange)
}

/// Reads every partition over and over, from whichever node answers.
pub async fn consume(client: Client, pause: Duration) {
    let process = client.recorder.process();
    let mut positions = vec![0_i64; usize::try_from(client.partitions).unwrap_or_default()];
    let all = || (0..client.partitions).map(|partition| key(TOPIC, partition));
    let assign = Action::Assign(all().collect());
    let pending = client.recorder.invoke(process, None, assign.clone());
    client.recorder.ok(pending, assign);
    // Keys whose position is another than where their last poll ended.
    let mut sought: BTreeSet<_> = all().collect();
    // Where each partition was found last: they are led by different nodes.
    let mut nodes: Vec<u64> = positions.iter().map(|_| client.any_node()).collect();
    while !client.stopping() {
        for ((partition, position), node) in (0..).zip(&mut positions).zip(&mut nodes) {
            let sought = &mut sought;
            match poll(&client, process, (*node, partition), position, sought).await {
                Ok(()) => {}
                Err(Some(error)) => *node = client.after(&error),
                Err(None) => *node = client.any_node(),
            }
            // Now and then from another node, so that one that only believes it leads is asked too.
            if rng::below(40) == 0 {
                *node = client.any_node();
            }
            // And somewhere among the old records, so that they are read again, from the disk: a few of
            // them, and seldom all.
            if rng::below(15) == 0 {
                let end = u64::try_from(*position).unwrap_or_default();
                let mut old = i64::try_from(rng::below(end + 1)).unwrap_or_default();
                let _new = sought.insert(key(TOPIC, partition));
                let _answer = poll(&client, process, (*node, partition), &mut old, sought).await;
                let _new = sought.insert(key(TOPIC, partition));
            } else if rng::below(200) == 0 {
                *position = 0;
                let _new = sought.insert(key(TOPIC, partition));
            }
        }
        client.pause(pause).await;
    }
}

/// One fetch of one partition.
async fn poll(
    client: &Client,
    process: Process,
    (node, partition): (u64, i32),
    position: &mut i64,
    sought: &mut BTreeSet<crate::history::Key>,
) -> Result<(), Option<v1::Error>> {
    let key = key(TOPIC, partition);
    let mut poll = Poll {
        from: [(key, *position)].into(),
        sought: sought.contains(&key),
        ..Poll::default()
    };
    let invoked = Action::Poll(poll.clone());
    let pending = client.recorder.invoke(process, Some(node), invoked);
    match client.fetch(node, (TOPIC, partition), *position).await {
        Ok(fetched) => {
            if let Some((last, _)) = fetched.records.last() {
                *position = last + 1;
                let _was = sought.remove(&key);
            }
            let read = Read {
                records: fetched.records,
                high_watermark: Some(fetched.high_watermark),
                log_start: Some(fetched.log_start),
                granted: None,
            };
            let _none = poll.reads.insert(key, read);
            client.recorder.ok(pending, Action::Poll(poll));
            Ok(())
        }
        Err(error) => {
            let start = error.as_ref().and_then(|error| removed(error, *position));
            if let Some(start) = start {
                *position = start;
                let _new = sought.insert(key);
                let read = Read {
                    log_start: Some(start),
                    ..Read::default()
                };
                let _none = poll.reads.insert(key, read);
            }
            let why = error.as_ref().map_or("no answer", |error| &error.message);
            client.recorder.fail(pending, Action::Poll(poll), why);
            if start.is_some() { Ok(()) } else { Err(error) }
        }
    }
}

/// Appends one record to a partition, whatever it takes.
pub async fn probe(client: Client, producer: u32, partition: i32) {
    let Some(session) = session(&client).await else {
        return;
    };
    let process = client.recorder.process();
    let mut node = client.any_node();
    let batch = Batch {
        session: &session,
        sequence: 0,
        partition,
        values: vec![value(producer, 0)],
        record_bytes: 10,
    };
    let _acknowledged = batch.deliver(&client, process, &mut node, &|| false).await;
}

/// Reads a partition from its start to its high watermark, as its final log.
pub async fn read_all(client: Client, place: (&'static str, i32)) {
    let process = client.recorder.process();
    let key = key(place.0, place.1);
    let (mut node, mut log) = (client.any_node(), Vec::new());
    let (mut start, mut from) = (0, 0);
    let mut poll = Poll {
        is_final: true,
        sought: true,
        ..Poll::default()
    };
    let invoked = Action::Poll(poll.clone());
    let pending = client.recorder.invoke(process, None, invoked);
    while !client.stopping() {
        match client.fetch(node, place, from).await {
            Ok(fetched) => {
                from = fetched.records.last().map_or(from, |r| r.0 + 1);
                log.extend(fetched.records);
                if from >= fetched.high_watermark {
                    let read = Read {
                        records: log,
                        high_watermark: Some(fetched.high_watermark),
                        log_start: Some(start),
                        granted: None,
                    };
                    let _none = poll.reads.insert(key, read);
                    client.recorder.ok(pending.at(node), Action::Poll(poll));
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
