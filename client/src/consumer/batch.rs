//! What a consumer receives.

use std::sync::Arc;

use seriatim_proto::{
    batch::{HEADER_BYTES, RecordBatch},
    ids::{Offset, TopicPartition},
    record::{Record, Records},
};

use crate::error::ClientError;

/// A checked batch of records of one partition. Its records are decoded when they are read.
#[derive(Debug, Clone)]
pub struct ConsumedBatch {
    pub(super) partition: Arc<TopicPartition>,
    pub(super) batch: RecordBatch,
    /// Invariant: within the batch; records before it were not asked for.
    pub(super) from: Offset,
    pub(super) high_watermark: Offset,
}

impl ConsumedBatch {
    pub(crate) fn key(&self) -> Arc<TopicPartition> {
        Arc::clone(&self.partition)
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.partition.topic
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.partition.partition.0
    }

    /// Offset of the first record.
    pub const fn first_offset(&self) -> Offset {
        self.from
    }

    /// Offset after the last record.
    pub const fn next_offset(&self) -> Offset {
        self.batch.header.next_offset()
    }

    /// Number of records.
    pub fn record_count(&self) -> usize {
        usize::try_from(self.next_offset().0 - self.from.0).unwrap_or(0)
    }

    /// Size on the wire, with the header and compressed as it is.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.batch.body.len()
    }

    /// The end of the committed records, as the leader knew it when it sent this batch.
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The batch as it was stored, including records before [`first_offset`](Self::first_offset).
    pub const fn raw(&self) -> &RecordBatch {
        &self.batch
    }

    /// The records. Without compression, keys and values are slices of the received bytes.
    ///
    /// # Errors
    /// [`ClientError::Records`] if the batch cannot be decompressed.
    pub fn records(&self) -> Result<ConsumedRecords, ClientError> {
        let records = Records::new(&self.batch).map_err(|e| ClientError::Records(Arc::new(e)))?;
        Ok(ConsumedRecords {
            records,
            from: self.from,
        })
    }
}

/// The records of a batch, one after the other.
#[derive(Debug)]
pub struct ConsumedRecords {
    records: Records,
    from: Offset,
}

impl Iterator for ConsumedRecords {
    type Item = Result<Record, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.records.next()? {
                Ok(record) if record.offset < self.from => {}
                Ok(record) => return Some(Ok(record)),
                Err(error) => return Some(Err(ClientError::Records(Arc::new(error)))),
            }
        }
    }
}
