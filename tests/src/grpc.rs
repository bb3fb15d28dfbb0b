//! The native API without the client library: what any gRPC program sees.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use seriatim_proto::{
    batch::{BatchHeader, RecordBatch},
    compression::Compression,
    ids::ProducerId,
    limits::MAX_GRPC_MESSAGE_BYTES,
    record::{BatchBuilder, ProducerStamp, Record, decode_records},
    v1::{
        self, admin_client::AdminClient, groups_client::GroupsClient, list_offsets_partition::At,
        log_client::LogClient, metadata_client::MetadataClient,
    },
};
use tonic::transport::{Channel, Endpoint};

/// One connection to one node.
#[derive(Debug, Clone)]
pub struct Api {
    /// The connection.
    pub channel: Channel,
    /// The `Log` service.
    pub log: LogClient<Channel>,
    /// The `Metadata` service.
    pub metadata: MetadataClient<Channel>,
    /// The `Admin` service.
    pub admin: AdminClient<Channel>,
    /// The `Groups` service.
    pub groups: GroupsClient<Channel>,
}

impl Api {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        let channel = endpoint.tcp_nodelay(true).connect().await?;
        let log = LogClient::new(channel.clone());
        Ok(Self {
            log: log.max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES),
            metadata: MetadataClient::new(channel.clone()),
            admin: AdminClient::new(channel.clone()),
            groups: GroupsClient::new(channel.clone()),
            channel,
        })
    }

    /// Appends one batch and returns what became of it.
    ///
    /// # Errors
    /// If the call fails, or answers for another number of batches.
    pub async fn produce(
        &mut self,
        batch: v1::PartitionBatch,
    ) -> anyhow::Result<v1::PartitionProduceResult> {
        let response = self.log.produce(request(0, vec![batch])).await?;
        let mut results = response.into_inner().results;
        ensure!(results.len() == 1, "{} results", results.len());
        results.pop().context("no result")
    }

    /// Fetches from one partition.
    ///
    /// # Errors
    /// If the call fails, or answers for another number of partitions.
    pub async fn fetch(
        &mut self,
        (topic, partition, offset): (&str, i32, i64),
        (min_bytes, max_bytes, max_wait_ms): (u32, u32, u32),
    ) -> anyhow::Result<v1::PartitionFetchResult> {
        let from = v1::FetchPartition {
            topic: topic.to_owned(),
            partition,
            offset,
            ..v1::FetchPartition::default()
        };
        let request = v1::FetchRequest {
            partitions: vec![from],
            min_bytes,
            max_bytes,
            max_wait_ms,
        };
        let mut results = self.log.fetch(request).await?.into_inner().results;
        ensure!(results.len() == 1, "{} results", results.len());
        results.pop().context("no result")
    }

    /// The offset of a position in partition 0.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn offset(&mut self, topic: &str, at: At) -> anyhow::Result<v1::PartitionOffset> {
        let partition = v1::ListOffsetsPartition {
            topic: topic.to_owned(),
            partition: 0,
            at: Some(at),
        };
        let request = v1::ListOffsetsRequest {
            partitions: vec![partition],
        };
        let mut results = self.log.list_offsets(request).await?.into_inner().results;
        results.pop().context("no result")
    }
}

/// A produce request with the server's default timeout.
pub fn request(correlation_id: u64, batches: Vec<v1::PartitionBatch>) -> v1::ProduceRequest {
    v1::ProduceRequest {
        correlation_id,
        batches,
        ..v1::ProduceRequest::default()
    }
}

/// A batch for partition 0 of a topic.
pub fn to(topic: &str, record_batch: Bytes) -> v1::PartitionBatch {
    v1::PartitionBatch {
        topic: topic.to_owned(),
        partition: 0,
        record_batch,
        ..v1::PartitionBatch::default()
    }
}

/// An encoded batch of values with one timestamp.
///
/// # Errors
/// If it would be too large.
pub fn batch(timestamp_ms: i64, values: &[&str]) -> anyhow::Result<Bytes> {
    encode(timestamp_ms, values, None)
}

/// An encoded batch of a producer's session.
///
/// # Errors
/// If it would be too large.
pub fn stamped(values: &[&str], producer_id: i64, base_sequence: i32) -> anyhow::Result<Bytes> {
    let stamp = ProducerStamp {
        id: ProducerId(producer_id),
        epoch: 0,
        base_sequence,
    };
    encode(0, values, Some(stamp))
}

fn encode(
    timestamp_ms: i64,
    values: &[&str],
    stamp: Option<ProducerStamp>,
) -> anyhow::Result<Bytes> {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        let pushed = builder.push(timestamp_ms, None, Some(value.as_bytes()), &[]);
        let _number = pushed.context("the batch is full")?;
    }
    Ok(builder.finish(stamp)?)
}

/// The records of batches that lie back to back.
///
/// # Errors
/// If one does not check.
pub fn records(mut batches: Bytes) -> anyhow::Result<Vec<Record>> {
    let mut all = Vec::new();
    while !batches.is_empty() {
        let bytes = BatchHeader::parse(&batches)?.total_bytes();
        ensure!(bytes <= batches.len(), "the last batch is cut");
        let batch = RecordBatch::parse(batches.split_to(bytes))?;
        all.extend(decode_records(&batch)?);
    }
    Ok(all)
}

/// The values of records, as text.
pub fn values(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| {
        String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
    };
    records.iter().map(text).collect()
}
