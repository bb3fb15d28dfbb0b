//! Errors of the layers below as clients see them.

use seriatim_cluster::ClusterError;
use seriatim_partition::{AppendError, FetchError};
use seriatim_proto::{batch::BatchError, error::ErrorCode, ids::TopicPartition, v1};

use crate::Broker;

/// A batch that cannot be accepted.
pub(crate) fn bad_batch(error: &BatchError) -> v1::Error {
    v1::Error::new(
        ErrorCode::CorruptBatch,
        format!("{error}; the batch was not stored"),
    )
}

impl Broker {
    pub(crate) fn append_error(&self, tp: &TopicPartition, error: &AppendError) -> v1::Error {
        let new = |code, text: String| v1::Error::new(code, text);
        let mut shown = match error {
            AppendError::NotLeader { .. } => self.not_leader(tp),
            AppendError::NoMajority => new(
                ErrorCode::LeaderNotAvailable,
                format!("{error}; try again shortly"),
            ),
            AppendError::WrongEndOffset { actual, .. } => {
                let mut shown = new(ErrorCode::WrongEndOffset, error.to_string());
                shown.log_end_offset = Some(actual.0);
                shown
            }
            AppendError::OutOfOrderSequence { .. } => new(
                ErrorCode::OutOfOrderSequence,
                format!("{error}; an earlier batch of this producer is missing"),
            ),
            AppendError::ProducerFenced { .. } => new(
                ErrorCode::ProducerFenced,
                format!("{error}; this producer must not write any more"),
            ),
            AppendError::UnknownProducer(_) => new(
                ErrorCode::UnknownProducer,
                format!("{error}; begin a new producer session"),
            ),
            AppendError::TooLarge { .. } => new(
                ErrorCode::BatchTooLarge,
                format!("{error}; send smaller batches or raise max.message.bytes"),
            ),
            AppendError::DiskFull => new(
                ErrorCode::DiskFull,
                format!("{error}; free space there, and writes go on by themselves"),
            ),
            AppendError::Timeout { .. } => new(ErrorCode::Timeout, error.to_string()),
            AppendError::Stopped { .. } => new(
                ErrorCode::ReplicaUnavailable,
                format!("{error}; another replica takes over"),
            ),
        };
        shown.maybe_applied = !error.has_no_side_effects();
        shown
    }

    pub(crate) fn fetch_error(&self, tp: &TopicPartition, error: &FetchError) -> v1::Error {
        let new = |code, text: String| v1::Error::new(code, text);
        match error {
            FetchError::NotLeader { .. } => self.not_leader(tp),
            FetchError::NotReady => new(
                ErrorCode::LeaderNotAvailable,
                format!("{error}; try again shortly"),
            ),
            FetchError::OffsetOutOfRange { start, end, .. } => {
                let mut shown = new(ErrorCode::OffsetOutOfRange, error.to_string());
                shown.log_start_offset = Some(start.0);
                shown.log_end_offset = Some(end.0);
                shown
            }
            FetchError::Storage(cause) => {
                tracing::error!(partition = %tp, error = %cause, "cannot read the log");
                new(
                    ErrorCode::ReplicaUnavailable,
                    format!("{error}: {cause}; another replica takes over"),
                )
            }
            FetchError::Stopped(_) => new(
                ErrorCode::ReplicaUnavailable,
                format!("{error}; another replica takes over"),
            ),
            FetchError::Undecodable { .. } => new(ErrorCode::Internal, error.to_string()),
        }
    }
}

pub(crate) fn cluster_error(error: &ClusterError) -> v1::Error {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    let mut shown = v1::Error::new(error.code(), text);
    shown.retryable = error.is_retryable();
    shown.maybe_applied = !error.has_no_side_effects();
    shown
}
