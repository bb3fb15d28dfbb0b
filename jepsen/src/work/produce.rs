//! Producers: several records on their way at a time, of one producer after the other.

use std::time::Duration;

use futures::{StreamExt as _, stream::FuturesUnordered};
use seriatim_client::{
    Client, ClientError, Compression, Delivered, Delivery, ErrorCode, Producer, ProducerRecord,
    partition_for_key,
};
use seriatim_runtime::{clock, rng};

use super::{Target, Work, actor::Actor, any, one_in, record};
use crate::history::{Action, Pending, Send};

/// Records of one producer that are on their way.
const UNDER_WAY: usize = 8;

/// How long a record may take.
pub(super) const DELIVERY: Duration = Duration::from_secs(10);

/// A producer lives for this many records, more or less.
const LIFE: u64 = 150;

/// Different keys of records.
const KEYS: u64 = 12;

/// A record on its way.
struct Sent {
    actor: Actor,
    pending: Pending,
    send: Send,
    partition: i32,
    outcome: Result<Delivered, ClientError>,
}

/// One producer after the other.
pub(super) async fn run(work: Work, targets: Vec<Target>, pause: Duration) {
    let mut idle = Vec::new();
    while let Some(client) = work.client().await {
        while !work.stopping() {
            let label = work.label();
            match build(&client).await {
                Ok((producer, idempotent)) => {
                    let life = Life {
                        work: &work,
                        targets: &targets,
                        pause,
                        session: idempotent.then_some(label),
                        producer,
                    };
                    life.live(&mut idle).await;
                }
                Err(error) => {
                    expect_transient(&work, &error);
                    work.pause(pause).await;
                }
            }
            if one_in(4) {
                break;
            }
        }
    }
}

/// A producer with some of the options that there are, and whether it is idempotent.
async fn build(client: &Client) -> Result<(Producer, bool), ClientError> {
    let kinds = [
        Compression::None,
        Compression::None,
        Compression::Lz4,
        Compression::Zstd,
        Compression::Snappy,
        Compression::Gzip,
    ];
    let idempotent = !one_in(6);
    let in_flight = usize::try_from(1 + rng::below(5)).unwrap_or(1);
    let builder = client
        .producer()
        .delivery_timeout(DELIVERY)
        .linger(Duration::from_millis(rng::below(2) * 5))
        .compression(any(&kinds).copied().unwrap_or_default())
        .max_in_flight(in_flight)
        .idempotent(idempotent);
    Ok((builder.build().await?, idempotent))
}

/// What fails without anything to be sent fails because nobody answers, or is a bug.
fn expect_transient(work: &Work, error: &ClientError) {
    if !error.is_retryable() {
        let told = super::actor::told(error);
        work.recorder()
            .impossible(format!("a producer cannot begin: {told}"));
    }
}

/// A record for a topic that exists fails for want of an answer, or with its session.
pub(super) fn expect_documented(work: &Work, error: &ClientError) {
    let session_lost = matches!(
        error.code(),
        Some(ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer)
    );
    let abandoned = matches!(error, ClientError::Abandoned { .. });
    if !(error.is_retryable() || session_lost || abandoned) {
        let told = super::actor::told(error);
        work.recorder()
            .impossible(format!("a record cannot be sent: {told}"));
    }
}

struct Life<'a> {
    work: &'a Work,
    targets: &'a [Target],
    pause: Duration,
    session: Option<i64>,
    producer: Producer,
}

impl Life<'_> {
    async fn live(self, idle: &mut Vec<Actor>) {
        let mut under_way = FuturesUnordered::new();
        let mut next = clock::now();
        while !self.work.stopping() && !one_in(LIFE) {
            while under_way.len() >= UNDER_WAY || clock::now() < next {
                let room = under_way.len() < UNDER_WAY;
                tokio::select! {
                    biased;
                    Some(sent) = under_way.next(), if !under_way.is_empty() => {
                        idle.push(note(self.work, sent));
                    }
                    () = clock::sleep_until(next), if room => {}
                }
            }
            // Now and then some at once, so that they share a batch.
            let burst = if one_in(3) { rng::below(4) + 1 } else { 1 };
            for _ in 0..burst {
                let actor = idle
                    .pop()
                    .unwrap_or_else(|| Actor::new(self.work.recorder()));
                match self.send(actor).await {
                    Ok(sent) => under_way.push(sent),
                    Err(actor) => idle.push(actor),
                }
            }
            next = clock::now() + rng::duration_below(self.pause * 2);
        }
        // One in three crashes: nobody waits for what is on its way.
        let crashes = one_in(3);
        if !crashes {
            // Each record says what came of it.
            let _first_failure = self.producer.flush().await.is_err();
        }
        drop(self.producer);
        while let Some(sent) = under_way.next().await {
            idle.push(note(self.work, sent));
        }
    }

    /// Sends one record; its end is still to come, unless it could not be sent.
    async fn send(&self, mut actor: Actor) -> Result<impl Future<Output = Sent> + use<>, Actor> {
        let Some(target) = any(self.targets) else {
            return Err(actor);
        };
        let value = self.work.value();
        let record = record::record(&target.topic, value);
        let (record, partition) = place(record, target.partitions);
        let send = Send {
            key: self.work.keys().of(&target.topic, partition),
            values: vec![value],
            producer: self.session,
            ..Send::default()
        };
        let pending = actor.invoke(Action::Send(send.clone()));
        let delivery: Delivery = match self.producer.send(record).await {
            Ok(delivery) => delivery,
            Err(error) => {
                actor.failed(pending, Action::Send(send), &error);
                return Err(actor);
            }
        };
        Ok(async move {
            let outcome = delivery.await;
            Sent {
                actor,
                pending,
                send,
                partition,
                outcome,
            }
        })
    }
}

/// Chooses the partition, or a key that does.
fn place(record: ProducerRecord, partitions: i32) -> (ProducerRecord, i32) {
    if one_in(2) {
        let key = format!("key-{}", rng::below(KEYS));
        let partition = partition_for_key(key.as_bytes(), partitions);
        (record.key(key), partition)
    } else {
        let count = u64::try_from(partitions).unwrap_or(1);
        let partition = i32::try_from(rng::below(count)).unwrap_or_default();
        (record.partition(partition), partition)
    }
}

fn note(work: &Work, sent: Sent) -> Actor {
    let Sent {
        mut actor,
        pending,
        mut send,
        partition,
        outcome,
    } = sent;
    match outcome {
        Ok(delivered) => {
            if delivered.partition != partition || delivered.offset.0 < 0 {
                work.recorder().impossible(format!(
                    "a record for partition {partition} went to {delivered:?}"
                ));
            }
            send.offset = Some(delivered.offset.0);
            actor.ok(pending, Action::Send(send));
        }
        Err(error) => {
            expect_documented(work, &error);
            actor.failed(pending, Action::Send(send), &error);
        }
    }
    actor
}
