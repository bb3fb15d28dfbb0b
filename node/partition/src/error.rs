//! What can go wrong with a partition.

use std::sync::Arc;

use seriatim_consensus::ConsensusError;
use seriatim_proto::ids::{LeaderEpoch, NodeId, Offset, ProducerId};
use seriatim_storage::StorageError;

use crate::{producer_table::SequenceError, table_codec::DecodeError};

/// Why a partition cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PartitionError {
    /// Its log cannot be opened.
    #[error("open the partition's log")]
    Storage(#[source] Arc<StorageError>),
    /// Its Raft group cannot be started.
    #[error("open the partition's group")]
    Consensus(#[source] Arc<ConsensusError>),
    /// Its checkpoint passes storage's checksum but cannot be read.
    #[error("read the partition's checkpoint")]
    Checkpoint(#[from] DecodeError),
}

impl PartitionError {
    /// Whether the replica's files are damaged, so that only its peers have its log.
    pub fn is_damage(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let storage = error
                .downcast_ref::<StorageError>()
                .or_else(|| error.downcast_ref::<Arc<StorageError>>().map(|e| &**e));
            if storage.is_some_and(StorageError::is_damage) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl From<StorageError> for PartitionError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<ConsensusError> for PartitionError {
    fn from(error: ConsensusError) -> Self {
        Self::Consensus(Arc::new(error))
    }
}

/// Why a batch was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another replica leads, or none.
    #[error("this replica does not lead the partition")]
    NotLeader {
        /// Who leads, where known.
        leader: Option<NodeId>,
        /// In which term.
        epoch: LeaderEpoch,
        /// The batch may be in the log all the same.
        maybe_applied: bool,
    },
    /// This replica leads but has lost touch with the majority for a moment.
    #[error("the partition's leader has lost touch with a majority of the replicas")]
    NoMajority,
    /// The partition's end is another.
    #[error("the partition ends at offset {actual}, not at {expected}")]
    WrongEndOffset {
        /// What the request expected.
        expected: Offset,
        /// Where it ends.
        actual: Offset,
    },
    /// The batch does not follow the producer's last one.
    #[error("producer {producer} sent sequence number {found}, expected is {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer: ProducerId,
        /// The sequence number that comes next.
        expected: i32,
        /// The batch's.
        found: i32,
    },
    /// A newer session of the producer has written.
    #[error("producer {producer} has written with epoch {current}, this batch has epoch {found}")]
    ProducerFenced {
        /// The producer.
        producer: ProducerId,
        /// The newer epoch.
        current: i16,
        /// The batch's.
        found: i16,
    },
    /// The partition has forgotten the producer.
    #[error("the partition has forgotten producer {0}")]
    UnknownProducer(ProducerId),
    /// Larger than the topic allows.
    #[error("the batch has {bytes} bytes, the topic allows {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The topic's `max.message.bytes`.
        limit: usize,
    },
    /// No room for more records.
    #[error("the disk of the partition's leader is full")]
    DiskFull,
    /// The deadline passed.
    #[error("the batch was not acknowledged before the deadline")]
    Timeout {
        /// The batch may be in the log all the same.
        maybe_applied: bool,
    },
    /// The replica has stopped.
    #[error("the partition's replica has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
        /// The batch may be in the log all the same.
        maybe_applied: bool,
    },
}

impl AppendError {
    /// Whether the same request may succeed when it is sent again, perhaps to another node.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotLeader { .. }
                | Self::NoMajority
                | Self::DiskFull
                | Self::Timeout { .. }
                | Self::Stopped { .. }
        )
    }

    /// Whether the batch is certainly not in the log.
    pub fn has_no_side_effects(&self) -> bool {
        !matches!(
            self,
            Self::NotLeader {
                maybe_applied: true,
                ..
            } | Self::Timeout {
                maybe_applied: true
            } | Self::Stopped {
                maybe_applied: true,
                ..
            }
        )
    }

    /// A refusal of a batch's sequence number.
    pub(crate) fn sequence(
        error: SequenceError,
        header: &seriatim_proto::batch::BatchHeader,
    ) -> Self {
        let producer = header.producer_id;
        match error {
            SequenceError::OutOfOrder { expected } => Self::OutOfOrderSequence {
                producer,
                expected,
                found: header.base_sequence,
            },
            SequenceError::Fenced { current } => Self::ProducerFenced {
                producer,
                current,
                found: header.producer_epoch,
            },
            SequenceError::Unknown => Self::UnknownProducer(producer),
        }
    }
}

/// Why records or offsets cannot be read here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// Another replica leads, or none.
    #[error("this replica does not lead the partition")]
    NotLeader {
        /// Who leads, where known.
        leader: Option<NodeId>,
        /// In which term.
        epoch: LeaderEpoch,
    },
    /// This replica leads, but has not yet applied an entry of its own term, so it does not know how
    /// far the log is committed.
    #[error("the partition's new leader is not ready yet")]
    NotReady,
    /// This replica leads but has lost touch with the majority for a moment, so it does not know
    /// whether there are records at that offset.
    #[error("the partition's leader has lost touch with a majority of the replicas")]
    NoMajority,
    /// No record has or will next have this offset.
    #[error("offset {offset} is outside the partition, which holds {start} up to {end}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The first offset there is.
        start: Offset,
        /// The high watermark.
        end: Offset,
    },
    /// The log could not be read; where it is damaged, the replica is rebuilt from its peers.
    #[error("read the partition's log")]
    Storage(#[source] Arc<StorageError>),
    /// The replica has stopped.
    #[error("the partition's replica has stopped: {0}")]
    Stopped(String),
    /// A stored batch passes its checksum but holds no records that can be read, so a time cannot be
    /// looked up in it.
    #[error("the batch at offset {offset} cannot be decoded: {what}")]
    Undecodable {
        /// Where.
        offset: Offset,
        /// Why.
        what: String,
    },
}

/// Why the records do not begin elsewhere. Doing it again does no harm.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TrimError {
    /// Another replica leads, or none.
    #[error("this replica does not lead the partition")]
    NotLeader {
        /// Who leads, where known.
        leader: Option<NodeId>,
    },
    /// This replica leads, but has not yet applied an entry of its own term.
    #[error("the partition's new leader is not ready yet")]
    NotReady,
    /// This replica leads but has lost touch with the majority for a moment.
    #[error("the partition's leader has lost touch with a majority of the replicas")]
    NoMajority,
    /// There are no records up to there.
    #[error("offset {offset} is not in the partition, which ends at {end}")]
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The high watermark.
        end: Offset,
    },
    /// The deadline passed; it may happen all the same.
    #[error("the new start was not agreed on before the deadline")]
    Timeout,
    /// The replica has stopped.
    #[error("the partition's replica has stopped: {0}")]
    Stopped(String),
    /// The log could not be read or written.
    #[error("look after the partition's log")]
    Storage(#[source] Arc<StorageError>),
}

impl From<StorageError> for TrimError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<StorageError> for FetchError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}
