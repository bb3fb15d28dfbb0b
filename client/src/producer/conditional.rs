//! Appends that depend on the partition's end.
//!
//! They have sessions of their own, one per partition with one request in flight, so that a refused
//! append never breaks the sequence of anything else.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use seriatim_proto::{
    compression::Compression,
    ids::{Offset, TopicPartition},
    record::{BatchBuilder, ProducerStamp},
    v1,
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    ProducerRecord,
    delivery::Delivered,
    init_session,
    lane::{Rules, Session},
};
use crate::{client::Client, error::ClientError, metadata::Leader, rt};

/// How often a waiting append looks whether another node leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);

/// A session in one log, and its next sequence there.
#[derive(Debug, Clone, Copy)]
struct Known {
    session: Session,
    sequence: i32,
    log: u64,
}

/// `None` until a session is needed.
type Slot = Arc<tokio::sync::Mutex<Option<Known>>>;

#[derive(Debug)]
pub(super) struct Conditional {
    client: Client,
    rules: Rules,
    compression: Compression,
    slots: Mutex<HashMap<TopicPartition, Slot>>,
}

impl Conditional {
    pub(super) fn new(client: Client, rules: Rules, compression: Compression) -> Self {
        Self {
            client,
            rules,
            compression,
            slots: Mutex::default(),
        }
    }

    pub(super) async fn append(
        &self,
        topic: &str,
        partition: i32,
        expected_end: Offset,
        records: Vec<ProducerRecord>,
    ) -> Result<Delivered, ClientError> {
        let _partitions = self.client.partitions_with(topic, partition).await?;
        let tp = TopicPartition::new(topic, partition);
        let slot = Arc::clone(self.slots.lock().entry(tp.clone()).or_default());
        let mut slot = slot.lock().await;
        // That of a topic created anew has seen no sequence of a session from before.
        let log = self.client.metadata().log(topic, partition);
        let known = match slot.filter(|known| known.log == log) {
            Some(known) => known,
            None => Known {
                session: init_session(&self.client).await?,
                sequence: 0,
                log,
            },
        };
        // Gone if this is cancelled or its outcome stays unknown: the sequence may be used up.
        *slot = None;
        let stamp = ProducerStamp {
            id: known.session.id,
            epoch: known.session.epoch,
            base_sequence: known.sequence,
        };
        let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
        let batch = v1::PartitionBatch {
            topic: tp.topic.clone(),
            partition,
            record_batch: self.encode(records, stamp)?,
            expected_end_offset: Some(expected_end.0),
            log_id: log,
        };
        let outcome = self.deliver(&tp, batch).await;
        match &outcome {
            Ok(_) => {
                let sequence = known.sequence.wrapping_add(count) & i32::MAX;
                *slot = Some(Known { sequence, ..known });
            }
            Err(error) if error.has_no_side_effects() => *slot = Some(known),
            Err(_unknown) => {}
        }
        outcome
    }

    fn encode(
        &self,
        records: Vec<ProducerRecord>,
        stamp: ProducerStamp,
    ) -> Result<bytes::Bytes, ClientError> {
        let mut builder = BatchBuilder::new(self.compression);
        for r in records {
            let time = r.timestamp_ms.unwrap_or_else(rt::wall_ms);
            let added = builder.push(time, r.key.as_deref(), r.value.as_deref(), &r.headers);
            if added.is_none() {
                let bytes = builder.encoded_bytes() + r.bytes_max();
                return Err(ClientError::RecordTooLarge {
                    bytes,
                    limit: super::RECORD_BYTES_MAX,
                });
            }
        }
        builder
            .finish(Some(stamp))
            .map_err(|e| ClientError::Records(Arc::new(e)))
    }

    async fn deliver(
        &self,
        tp: &TopicPartition,
        batch: v1::PartitionBatch,
    ) -> Result<Delivered, ClientError> {
        let metadata = self.client.metadata();
        let after = self.rules.delivery_timeout;
        let deadline = Instant::now() + after;
        let (mut last, mut maybe_applied, mut attempt) = (None, false, 0);
        while Instant::now() < deadline {
            let leader = metadata.leader(&tp.topic, tp.partition.0);
            if leader
                .as_ref()
                .is_some_and(|l| batch.log_id != 0 && l.log > batch.log_id)
            {
                let deleted = ClientError::topic_deleted(&tp.topic);
                return Err(match maybe_applied {
                    true => deleted.or_applied_before(),
                    false => deleted,
                });
            }
            if let Some(leader) = leader {
                match self.attempt(tp, &leader, &batch, deadline).await {
                    Ok(offset) => {
                        return Ok(Delivered {
                            partition: tp.partition.0,
                            offset,
                        });
                    }
                    Err(error) if !error.is_retryable() => {
                        let unsure = maybe_applied && !rules_out(&error, &batch);
                        return Err(if unsure {
                            error.or_applied_before()
                        } else {
                            error
                        });
                    }
                    Err(error) => {
                        maybe_applied |= !error.has_no_side_effects();
                        last = Some(Box::new(error));
                    }
                }
            }
            if !metadata.has(&tp.topic, tp.partition.0)
                && let Err(error) = self.client.partitions_with(&tp.topic, tp.partition.0).await
                && !error.is_retryable()
            {
                // It was deleted.
                return Err(match maybe_applied {
                    true => error.or_applied_before(),
                    false => error,
                });
            }
            metadata.want_refresh();
            let mut changes = metadata.changes();
            let _either = timeout(rt::backoff(attempt), changes.changed()).await;
            sleep(Duration::from_millis(1)).await;
            attempt += 1;
        }
        Err(ClientError::Timeout {
            what: "conditional append",
            after,
            maybe_applied,
            last,
        })
    }

    /// One request to one leader, given up when another node leads.
    async fn attempt(
        &self,
        tp: &TopicPartition,
        leader: &Leader,
        batch: &v1::PartitionBatch,
        deadline: Instant,
    ) -> Result<Offset, ClientError> {
        let metadata = self.client.metadata();
        let mut client = metadata.channels.log(&leader.address)?;
        let left = deadline
            .saturating_duration_since(Instant::now())
            .min(Duration::from_secs(30));
        let request = v1::ProduceRequest {
            timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1),
            batches: vec![batch.clone()],
            ..v1::ProduceRequest::default()
        };
        let mut call = std::pin::pin!(client.produce(request));
        let answer = loop {
            match timeout(LOOK_INTERVAL, &mut call).await {
                Ok(answer) => break answer,
                Err(_elapsed) => {
                    metadata.want_refresh();
                    let now = metadata.leader(&tp.topic, tp.partition.0);
                    let moved = now.is_some_and(|now| now.took_over_from(leader));
                    if moved || Instant::now() >= deadline {
                        return Err(ClientError::Timeout {
                            what: "conditional append",
                            after: LOOK_INTERVAL,
                            maybe_applied: true,
                            last: None,
                        });
                    }
                }
            }
        };
        let answer = answer.map_err(|status| ClientError::from_status(&leader.address, status))?;
        let result = answer.into_inner().results.into_iter().next();
        let result =
            result.ok_or_else(|| ClientError::invalid("a node answered without a result"))?;
        let Some(error) = result.error else {
            return Ok(Offset(result.base_offset));
        };
        let error = ClientError::server(error);
        metadata.heed(&tp.topic, tp.partition.0, batch.log_id, &error);
        Err(error)
    }
}

/// Whether a refusal says that no attempt can have succeeded or ever will: the log has gone on beyond
/// the expected end, and a leader looks for what is in the log before it looks at that.
fn rules_out(error: &ClientError, batch: &v1::PartitionBatch) -> bool {
    let found = error.actual_end_offset().map(|found| found.0);
    found.is_some_and(|found| batch.expected_end_offset.is_some_and(|end| found > end))
}
