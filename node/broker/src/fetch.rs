//! Reading: one long poll over several partitions, and offsets.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, future};
use seriatim_consensus::GroupState;
use seriatim_partition::{At, Fetch, FetchError, Fetched, Partition};
use seriatim_proto::{
    error::ErrorCode,
    ids::{Offset, PartitionId, TopicPartition},
    limits, v1,
};
use seriatim_runtime::clock::{self, Instant};
use tokio::sync::watch;

use crate::{Broker, broker};

/// How long a majority may take to confirm that a partition ends before the offset that is asked for.
pub(crate) const CONFIRM: Duration = Duration::from_secs(1);

impl Broker {
    /// Reads the partitions; waits until there are `min_bytes` or `max_wait_ms` have passed. An
    /// error of any partition ends the wait.
    pub async fn fetch(&self, request: v1::FetchRequest) -> v1::FetchResponse {
        if request.partitions.len() > limits::MAX_REQUEST_PARTITIONS {
            let refused = v1::Error::new(
                ErrorCode::InvalidRequest,
                format!(
                    "a fetch request has at most {} partitions",
                    limits::MAX_REQUEST_PARTITIONS
                ),
            );
            let refuse = |to: &v1::FetchPartition| failed(to, refused.clone());
            return v1::FetchResponse {
                results: request.partitions.iter().map(refuse).collect(),
            };
        }
        let deadline = clock::now()
            + Duration::from_millis(u64::from(request.max_wait_ms.min(limits::MAX_WAIT_MS)));
        let min_bytes = request.min_bytes.max(1) as usize;
        let results = loop {
            // Watched before it is read, so that nothing that comes in between is missed.
            let mut watched = self.watch(&request.partitions);
            let results = self.read_all(&request).await;
            let bytes: usize = results
                .iter()
                .map(|result| result.record_batches.len())
                .sum();
            let failed = results.iter().any(|result| result.error.is_some());
            if bytes >= min_bytes || failed || clock::now() >= deadline {
                break results;
            }
            let _changed_or_late = clock::timeout_at(deadline, any_change(&mut watched)).await;
        };
        v1::FetchResponse { results }
    }

    fn watch(&self, partitions: &[v1::FetchPartition]) -> Vec<Watched> {
        let mut watched = Vec::with_capacity(partitions.len());
        for to in partitions {
            if let Ok(partition) = self.partition_of(&to.topic, to.partition, to.log_id) {
                let mut one = Watched {
                    high_watermark: partition.high_watermark(),
                    state: partition.group().state(),
                };
                one.high_watermark.mark_unchanged();
                one.state.mark_unchanged();
                watched.push(one);
            }
        }
        watched
    }

    async fn read_all(&self, request: &v1::FetchRequest) -> Vec<v1::PartitionFetchResult> {
        let mut left = match request.max_bytes as usize {
            0 => limits::DEFAULT_FETCH_BYTES,
            bytes => bytes.min(limits::MAX_FETCH_BYTES),
        };
        let mut results = Vec::with_capacity(request.partitions.len());
        let mut empty = true;
        let deadline = clock::now() + CONFIRM;
        for to in &request.partitions {
            let limit = match to.max_bytes as usize {
                0 => left,
                bytes => bytes.min(left),
            };
            // The first batch of all is returned even if it is larger than the limit; a partition for
            // which no room is left still tells where it begins and ends.
            let limit = if empty { limit.max(1) } else { limit };
            let result = self.read(to, limit, deadline).await;
            empty &= result.record_batches.is_empty();
            left = left.saturating_sub(result.record_batches.len());
            results.push(result);
        }
        results
    }

    async fn read(
        &self,
        to: &v1::FetchPartition,
        max_bytes: usize,
        deadline: Instant,
    ) -> v1::PartitionFetchResult {
        let partition = match self.partition_of(&to.topic, to.partition, to.log_id) {
            Ok(partition) => partition,
            Err(error) => return failed(to, error),
        };
        let fetch = Fetch {
            offset: Offset(to.offset),
            max_bytes,
            deadline,
        };
        match self.measured_fetch(&partition, fetch).await {
            Ok(fetched) => v1::PartitionFetchResult {
                topic: to.topic.clone(),
                partition: to.partition,
                error: None,
                high_watermark: fetched.high_watermark.0,
                log_start_offset: fetched.log_start_offset.0,
                record_batches: concatenate(fetched.batches),
            },
            Err(error) => {
                let tp = TopicPartition::new(to.topic.clone(), PartitionId(to.partition));
                failed(to, self.fetch_error(&tp, &error))
            }
        }
    }

    /// One read, counted.
    pub(crate) async fn measured_fetch(
        &self,
        partition: &Partition,
        fetch: Fetch,
    ) -> Result<Fetched, FetchError> {
        let began = clock::now();
        let fetched = partition.fetch(fetch).await;
        match &fetched {
            Ok(fetched) => {
                let took = began.elapsed().as_secs_f64();
                self.metrics.fetch_seconds.record(took);
                let bytes: usize = fetched.batches.iter().map(Bytes::len).sum();
                self.metrics.fetch_bytes.increment(bytes as u64);
            }
            Err(_) => self.metrics.fetch_errors.increment(1),
        }
        fetched
    }

    /// Start, end, or offset of a time, of several partitions.
    pub async fn list_offsets(&self, request: v1::ListOffsetsRequest) -> v1::ListOffsetsResponse {
        let answers = request
            .partitions
            .into_iter()
            .take(limits::MAX_REQUEST_PARTITIONS)
            .map(|to| self.list_offset(to));
        v1::ListOffsetsResponse {
            results: future::join_all(answers).await,
        }
    }

    async fn list_offset(&self, to: v1::ListOffsetsPartition) -> v1::PartitionOffset {
        use v1::list_offsets_partition::At as Asked;
        let found = async {
            let at = match to.at {
                Some(Asked::Start(_)) => At::Start,
                Some(Asked::End(_)) => At::End,
                Some(Asked::TimestampMs(ms)) => At::Time(ms),
                None => {
                    return Err(v1::Error::new(
                        ErrorCode::InvalidRequest,
                        "say which offset to list: start, end or a time",
                    ));
                }
            };
            let partition = self.partition(&to.topic, to.partition)?;
            let tp = TopicPartition::new(to.topic.clone(), PartitionId(to.partition));
            partition
                .list_offset(at)
                .await
                .map_err(|error| self.fetch_error(&tp, &error))
        };
        let (offset, epoch, error) = match found.await {
            Ok((offset, epoch)) => (offset.0, epoch.0, None),
            Err(error) => (-1, -1, Some(error)),
        };
        v1::PartitionOffset {
            topic: to.topic,
            partition: to.partition,
            error,
            offset,
            leader_epoch: epoch,
        }
    }

    /// A new producer session.
    pub async fn init_producer(&self) -> Result<v1::InitProducerResponse, v1::Error> {
        let deadline = broker::deadline(0, limits::DEFAULT_PRODUCE_TIMEOUT_MS);
        let id = self.cluster.allocate_producer_id(deadline).await;
        let id = id.map_err(|error| error.to_error())?;
        Ok(v1::InitProducerResponse {
            producer_id: id.0,
            producer_epoch: 0,
        })
    }
}

fn failed(to: &v1::FetchPartition, error: v1::Error) -> v1::PartitionFetchResult {
    v1::PartitionFetchResult {
        topic: to.topic.clone(),
        partition: to.partition,
        error: Some(error),
        ..Default::default()
    }
}

/// The one bytes field that the protocol has. A single piece is handed on as it is.
pub(crate) fn concatenate(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        all.extend_from_slice(&piece);
    }
    all.freeze()
}

/// What may end the wait for a partition: new records, or that this node no longer leads it.
struct Watched {
    high_watermark: watch::Receiver<Offset>,
    state: watch::Receiver<GroupState>,
}

impl Watched {
    async fn changed(&mut self) {
        tokio::select! {
            biased;
            // An error means that the partition was closed: the next read says so.
            _ = self.high_watermark.changed() => {}
            _ = self.state.changed() => {}
        }
    }
}

async fn any_change(watched: &mut [Watched]) {
    if watched.is_empty() {
        return future::pending().await;
    }
    let changes = watched.iter_mut().map(|one| one.changed().boxed());
    let (_first, _which, _others) = future::select_all(changes).await;
}
