//! Appending.

use bytes::Bytes;
use futures::future;
use seriatim_partition::Append;
use seriatim_proto::{
    batch::{BatchError, BatchHeader, HEADER_BYTES, RecordBatch},
    error::ErrorCode,
    ids::{Offset, PartitionId, TopicPartition},
    limits, v1,
};
use seriatim_runtime::{
    clock::{self, Instant},
    hit,
    mutant::{self, Mutant},
    task,
};

use tokio::sync::OwnedSemaphorePermit;

use crate::{Broker, broker, errors};

/// Room in the node's budget of bytes that are being appended; given back when dropped.
#[derive(Debug)]
pub struct Reservation(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Broker {
    /// Takes room for a produce request of `bytes` out of the node's budget; waits for it until
    /// `deadline`. To be called before the request is read, so that what has no room is not in
    /// memory either.
    pub async fn reserve(&self, bytes: usize, deadline: Instant) -> Result<Reservation, v1::Error> {
        let room = self.budget.take(bytes, deadline).await;
        room.map(Reservation).ok_or_else(|| {
            hit!("broker.overloaded");
            v1::Error::new(
                ErrorCode::Overloaded,
                "this node appends as much as it can hold in memory; send less or later",
            )
        })
    }

    /// Appends the request's batches, each to its partition; one answer per batch, in their order.
    /// The room is given back when all are answered; without one it is taken here.
    pub async fn produce(
        &self,
        request: v1::ProduceRequest,
        room: Option<Reservation>,
    ) -> v1::ProduceResponse {
        let started = clock::now();
        let deadline = broker::deadline(request.timeout_ms, limits::DEFAULT_PRODUCE_TIMEOUT_MS);
        let correlation_id = request.correlation_id;
        let admitted = async {
            let bytes = check(&request)?;
            self.metrics.append_bytes.increment(bytes as u64);
            match room {
                Some(room) => Ok(room),
                None => self.reserve(bytes, deadline).await,
            }
        };
        let results = match admitted.await {
            Err(refused) => request
                .batches
                .into_iter()
                .map(|b| answer(b, Err(refused.clone())))
                .collect(),
            Ok(room) => self.admitted(request, room, deadline).await,
        };
        self.metrics
            .append_seconds
            .record(started.elapsed().as_secs_f64());
        v1::ProduceResponse {
            correlation_id,
            results,
        }
    }

    async fn admitted(
        &self,
        request: v1::ProduceRequest,
        room: Reservation,
        deadline: Instant,
    ) -> Vec<v1::PartitionProduceResult> {
        // Nobody waits for these, so their place is not known when they are answered.
        let unanswered = (request.acks() == v1::Acks::None).then(|| {
            let admitted = request
                .batches
                .iter()
                .map(|batch| v1::PartitionProduceResult {
                    topic: batch.topic.clone(),
                    partition: batch.partition,
                    base_offset: -1,
                    ..Default::default()
                });
            admitted.collect()
        });
        let this = self.clone();
        let appends = async move {
            let appends = request
                .batches
                .into_iter()
                .map(|batch| this.append(batch, deadline));
            let results = future::join_all(appends).await;
            drop(room);
            results
        };
        if let Some(admitted) = unanswered {
            drop(task::spawn("produce-unacknowledged", appends));
            return admitted;
        }
        appends.await
    }

    async fn append(
        &self,
        mut to: v1::PartitionBatch,
        deadline: Instant,
    ) -> v1::PartitionProduceResult {
        let bytes = std::mem::take(&mut to.record_batch);
        let result = self.append_batch(&to, bytes, deadline).await;
        if result.is_err() {
            self.metrics.append_errors.increment(1);
        }
        answer(to, result)
    }

    async fn append_batch(
        &self,
        to: &v1::PartitionBatch,
        bytes: Bytes,
        deadline: Instant,
    ) -> Result<seriatim_partition::Appended, v1::Error> {
        let partition = self.partition_of(&to.topic, to.partition, to.log_id)?;
        let batch = if mutant::on(Mutant::CrcUncheckedOnReceipt) {
            unchecked(&bytes)
        } else {
            RecordBatch::from_producer(bytes)
        };
        let batch = batch.map_err(|e| errors::bad_batch(&e))?;
        let records = u64::from(batch.header.record_count);
        let request = Append {
            batch,
            expected_end: to.expected_end_offset.map(Offset),
            deadline,
        };
        let appended = partition.append(request).await.map_err(|error| {
            let tp = TopicPartition::new(to.topic.clone(), PartitionId(to.partition));
            self.append_error(&tp, &error)
        })?;
        self.metrics.append_records.increment(records);
        Ok(appended)
    }
}

/// A batch as it came; only for a planted bug.
fn unchecked(bytes: &Bytes) -> Result<RecordBatch, BatchError> {
    Ok(RecordBatch {
        header: BatchHeader::parse(bytes)?,
        body: bytes.slice(HEADER_BYTES..),
    })
}

/// The request's bytes, if it is within the limits.
fn check(request: &v1::ProduceRequest) -> Result<usize, v1::Error> {
    if request.batches.len() > limits::MAX_REQUEST_PARTITIONS {
        return Err(v1::Error::new(
            ErrorCode::InvalidRequest,
            format!(
                "a produce request has at most {} batches",
                limits::MAX_REQUEST_PARTITIONS
            ),
        ));
    }
    let bytes: usize = request
        .batches
        .iter()
        .map(|batch| batch.record_batch.len())
        .sum();
    if bytes > limits::MAX_PRODUCE_BYTES {
        return Err(v1::Error::new(
            ErrorCode::BatchTooLarge,
            format!(
                "a produce request has at most {} bytes",
                limits::MAX_PRODUCE_BYTES
            ),
        ));
    }
    Ok(bytes)
}

fn answer(
    to: v1::PartitionBatch,
    result: Result<seriatim_partition::Appended, v1::Error>,
) -> v1::PartitionProduceResult {
    let mut answer = v1::PartitionProduceResult {
        topic: to.topic,
        partition: to.partition,
        ..Default::default()
    };
    match result {
        Ok(appended) => {
            answer.base_offset = appended.base_offset.0;
            answer.duplicate = appended.duplicate;
            answer.log_start_offset = appended.log_start_offset.0;
        }
        Err(error) => {
            answer.base_offset = -1;
            answer.error = Some(error);
        }
    }
    answer
}
