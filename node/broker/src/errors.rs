//! Errors of the layers below as clients see them.

use seriatim_partition::{AppendError, FetchError};
use seriatim_proto::{
    batch::{BatchError, LENGTH_PREFIX_BYTES},
    error::ErrorCode,
    ids::TopicPartition,
    limits::MAX_BATCH_BYTES,
    v1,
};

use crate::Broker;

/// A batch that cannot be accepted.
pub(crate) fn bad_batch(error: &BatchError) -> v1::Error {
    let too_large = |length: i64| {
        usize::try_from(length).is_ok_and(|length| length + LENGTH_PREFIX_BYTES > MAX_BATCH_BYTES)
    };
    let (code, advice) = match error {
        BatchError::Length(length) if too_large(*length) => {
            (ErrorCode::BatchTooLarge, "send smaller batches")
        }
        BatchError::Magic(_) => (
            ErrorCode::UnsupportedVersion,
            "use a client that writes record batches of version 2",
        ),
        BatchError::Attributes(_) | BatchError::Producer { .. } => {
            (ErrorCode::InvalidRequest, "correct the client")
        }
        _ => (
            ErrorCode::CorruptBatch,
            "it was encoded wrongly or damaged on its way",
        ),
    };
    v1::Error::new(code, format!("{error}; the batch was not stored; {advice}"))
}

impl Broker {
    pub(crate) fn append_error(&self, tp: &TopicPartition, error: &AppendError) -> v1::Error {
        let new = |code, text: String| v1::Error::new(code, format!("partition {tp}: {text}"));
        let mut shown = match error {
            AppendError::NotLeader { leader, .. } => self.not_leader(tp, *leader),
            AppendError::NoMajority => new(
                ErrorCode::LeaderNotAvailable,
                format!("{error}; try again shortly"),
            ),
            AppendError::WrongEndOffset { actual, .. } => {
                let text = format!("{error}; read what was appended before and decide anew");
                let mut shown = new(ErrorCode::WrongEndOffset, text);
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
            AppendError::Timeout {
                maybe_applied: false,
            } => new(
                ErrorCode::Timeout,
                format!("{error}; it was not stored, try again"),
            ),
            AppendError::Timeout {
                maybe_applied: true,
            } => new(
                ErrorCode::Timeout,
                format!("{error}; it may be stored, only an idempotent producer may repeat it"),
            ),
            AppendError::Stopped { .. } => new(
                ErrorCode::ReplicaUnavailable,
                format!("{error}; another replica takes over"),
            ),
        };
        shown.maybe_applied = !error.has_no_side_effects();
        shown
    }

    pub(crate) fn fetch_error(&self, tp: &TopicPartition, error: &FetchError) -> v1::Error {
        let new = |code, text: String| v1::Error::new(code, format!("partition {tp}: {text}"));
        match error {
            FetchError::NotLeader { leader, .. } => self.not_leader(tp, *leader),
            FetchError::NotReady | FetchError::NoMajority => new(
                ErrorCode::LeaderNotAvailable,
                format!("{error}; try again shortly"),
            ),
            FetchError::OffsetOutOfRange { start, end, .. } => {
                let text = format!("{error}; begin at one of these");
                let mut shown = new(ErrorCode::OffsetOutOfRange, text);
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
            FetchError::Undecodable { .. } => new(
                ErrorCode::Internal,
                format!("{error}; ask for an offset instead of a time"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_refused_for_what_is_wrong_with_it() {
        let above = i64::try_from(MAX_BATCH_BYTES).unwrap();
        for (error, code) in [
            (BatchError::Length(above), ErrorCode::BatchTooLarge),
            (BatchError::Length(3), ErrorCode::CorruptBatch),
            (BatchError::Length(-1), ErrorCode::CorruptBatch),
            (BatchError::Magic(1), ErrorCode::UnsupportedVersion),
            (BatchError::Attributes(0x20), ErrorCode::InvalidRequest),
            (BatchError::TrailingBytes(1), ErrorCode::CorruptBatch),
        ] {
            let shown = bad_batch(&error);
            assert_eq!(shown.code(), code, "{error}");
            assert!(!shown.retryable && !shown.maybe_applied);
        }
    }
}
