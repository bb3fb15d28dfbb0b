//! Reading one partition continuously.

use std::time::Duration;

use seriatim_partition::{Fetch, Partition};
use seriatim_proto::{
    batch::BatchHeader,
    ids::{Offset, PartitionId, TopicPartition},
    limits, v1,
};
use seriatim_runtime::clock;

use crate::{Broker, fetch};

/// An empty answer is sent after this much silence, so that a client knows the stream is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Most bytes of one answer.
const CHUNK: usize = 1 << 20;

/// One reader of one partition. The caller keeps the client's grant and asks for more only while
/// there is some.
#[derive(Debug)]
pub struct FetchSession {
    broker: Broker,
    partition: Partition,
    tp: TopicPartition,
    /// Offset of the next batch.
    next: Offset,
}

impl Broker {
    /// Begins to read a partition at an offset.
    pub fn fetch_session(&self, open: v1::FetchStreamOpen) -> Result<FetchSession, v1::Error> {
        Ok(FetchSession {
            broker: self.clone(),
            partition: self.partition_of(&open.topic, open.partition, open.log_id)?,
            tp: TopicPartition::new(open.topic, PartitionId(open.partition)),
            next: Offset(open.offset),
        })
    }
}

impl FetchSession {
    /// The next batches, at most `grant` bytes of them unless the first alone is larger; waits for
    /// them. An answer without batches is a sign of life.
    pub async fn next(&mut self, grant: usize) -> Result<v1::FetchStreamResponse, v1::Error> {
        let silent_until = clock::now() + HEARTBEAT;
        let mut high_watermark = self.partition.high_watermark();
        let mut state = self.partition.group().state();
        loop {
            high_watermark.mark_unchanged();
            state.mark_unchanged();
            let fetch = Fetch {
                offset: self.next,
                max_bytes: grant.clamp(1, CHUNK.min(limits::MAX_FETCH_BYTES)),
                deadline: clock::now() + fetch::CONFIRM,
            };
            let fetched = self.broker.measured_fetch(&self.partition, fetch).await;
            let fetched = fetched.map_err(|error| self.broker.fetch_error(&self.tp, &error))?;
            let late = clock::now() >= silent_until;
            if fetched.batches.is_empty() && !late {
                let _late = clock::timeout_at(silent_until, async {
                    tokio::select! {
                        biased;
                        changed = high_watermark.changed() => drop(changed),
                        changed = state.changed() => drop(changed),
                    }
                })
                .await;
                continue;
            }
            let record_batches = fetch::concatenate(fetched.batches);
            if let Some(after) = end_of(&record_batches) {
                self.next = after;
            }
            return Ok(v1::FetchStreamResponse {
                record_batches,
                high_watermark: fetched.high_watermark.0,
                log_start_offset: fetched.log_start_offset.0,
            });
        }
    }
}

/// Offset after the last of the batches.
fn end_of(mut batches: &[u8]) -> Option<Offset> {
    let mut end = None;
    while let Ok(header) = BatchHeader::parse(batches) {
        end = Some(header.next_offset());
        batches = batches.get(header.total_bytes()..)?;
    }
    end
}
