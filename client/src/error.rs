//! What can go wrong, and what that means for the caller.

use std::{error::Error as _, sync::Arc, time::Duration};

use prost::Message as _;
use seriatim_proto::{
    batch::BatchError,
    error::ERROR_METADATA_KEY,
    ids::{Offset, TopicPartition},
    record::RecordError,
    v1::{self, ErrorCode},
};
use tonic::{Code, Status};

/// Why an operation failed. Two questions matter to a caller: [`is_retryable`](Self::is_retryable)
/// and [`has_no_side_effects`](Self::has_no_side_effects).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A node answered with a typed error.
    #[error("{}", .0.message)]
    Server(Box<v1::Error>),
    /// A node did not answer: the connection failed or broke.
    #[error("node at {address} does not answer: {}", .status.message())]
    Transport {
        /// The node's gRPC address.
        address: String,
        /// The request may have taken effect.
        maybe_applied: bool,
        /// What the transport says.
        status: Box<Status>,
    },
    /// None of the addresses answers.
    #[error("no node answers at {servers}")]
    Unreachable {
        /// The addresses tried.
        servers: String,
        /// The last failure.
        #[source]
        last: Option<Box<ClientError>>,
    },
    /// Not done in time.
    #[error("{what} was not done within {after:?}")]
    Timeout {
        /// What was asked for.
        what: &'static str,
        /// The time it had.
        after: Duration,
        /// The request may have taken effect.
        maybe_applied: bool,
        /// The last failure before.
        #[source]
        last: Option<Box<ClientError>>,
    },
    /// The topic does not exist.
    #[error("topic '{0}' does not exist; create it first")]
    UnknownTopic(String),
    /// The topic has no such partition.
    #[error("partition {partition} does not exist, topic '{topic}' has {partitions}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// What was asked for.
        partition: i32,
        /// How many there are.
        partitions: usize,
    },
    /// A record is larger than a batch may be.
    #[error("the record has {bytes} bytes, the limit is {limit}")]
    RecordTooLarge {
        /// Size of the record.
        bytes: usize,
        /// Largest size.
        limit: usize,
    },
    /// The producer or consumer was closed.
    #[error("{0} is closed")]
    Closed(&'static str),
    /// The producer was dropped before the acknowledgement came.
    #[error("the producer was dropped before the record was acknowledged")]
    Abandoned {
        /// The record may have been stored.
        maybe_applied: bool,
    },
    /// It failed in a way that has no effect, but an attempt before it, or one of which nobody heard
    /// the end, may have had one. [`code`](Self::code) and [`is_retryable`](Self::is_retryable) are
    /// those of the failure inside.
    #[error("it failed, and an earlier attempt may have taken effect")]
    Unsure(#[source] Box<ClientError>),
    /// An option or argument cannot be.
    #[error("{0}")]
    Invalid(String),
    /// A node sent a batch that does not check.
    #[error("a batch of {partition} is damaged")]
    DamagedBatch {
        /// Where it was read.
        partition: TopicPartition,
        /// What is wrong with it.
        #[source]
        source: BatchError,
    },
    /// The partition is not this member's (any more), or it is letting go of it.
    #[error("{0} is not assigned to this member of the group")]
    NotAssigned(TopicPartition),
    /// A member whose reset policy is to fail found a partition without an offset.
    #[error(
        "group '{group}' has no offset for {partition}; commit one, or choose where to begin with \
         the reset policy start or end"
    )]
    NoOffset {
        /// The group.
        group: String,
        /// The partition.
        partition: TopicPartition,
    },
    /// The records of a batch cannot be built or read.
    #[error("records cannot be encoded or decoded")]
    Records(#[source] Arc<RecordError>),
    /// A node skipped offsets.
    #[error("{partition} goes on at offset {found}, expected was {expected}")]
    Gap {
        /// Where.
        partition: TopicPartition,
        /// The offset that should have come.
        expected: Offset,
        /// The offset that came.
        found: Offset,
    },
}

impl ClientError {
    /// The same operation may succeed when it is tried again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Server(error) => error.retryable,
            Self::Transport { .. } | Self::Unreachable { .. } | Self::Timeout { .. } => true,
            Self::DamagedBatch { .. } | Self::Gap { .. } => true,
            Self::Unsure(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// The operation has certainly changed nothing.
    pub fn has_no_side_effects(&self) -> bool {
        match self {
            Self::Server(error) => !error.maybe_applied,
            Self::Transport { maybe_applied, .. }
            | Self::Timeout { maybe_applied, .. }
            | Self::Abandoned { maybe_applied } => !maybe_applied,
            Self::Unsure(_) => false,
            _ => true,
        }
    }

    /// The server's error code, if a server answered.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Server(error) => Some(error.code()),
            Self::UnknownTopic(_) => Some(ErrorCode::UnknownTopic),
            Self::UnknownPartition { .. } => Some(ErrorCode::UnknownPartition),
            Self::Unsure(error) => error.code(),
            _ => None,
        }
    }

    /// The partition's actual end, where an append on condition found another one.
    pub fn actual_end_offset(&self) -> Option<Offset> {
        match self {
            Self::Server(error) if error.code() == ErrorCode::WrongEndOffset => {
                error.log_end_offset.map(Offset)
            }
            _ => None,
        }
    }

    /// The first offset and the end of a partition that has no record at the wanted offset.
    pub fn valid_range(&self) -> Option<(Offset, Offset)> {
        match self {
            Self::Server(error) if error.code() == ErrorCode::OffsetOutOfRange => {
                let (start, end) = (error.log_start_offset?, error.log_end_offset?);
                Some((Offset(start), Offset(end)))
            }
            _ => None,
        }
    }

    pub(crate) fn server(error: v1::Error) -> Self {
        Self::Server(Box::new(error))
    }

    /// A failed call: the typed error in its metadata, or what the transport says.
    pub(crate) fn from_status(address: &str, status: Status) -> Self {
        let typed = status.metadata().get_bin(ERROR_METADATA_KEY);
        let typed = typed.and_then(|value| value.to_bytes().ok());
        if let Some(error) = typed.and_then(|bytes| v1::Error::decode(bytes).ok()) {
            return Self::server(error);
        }
        let definite = never_sent(&status) || refused(status.code());
        Self::Transport {
            address: address.to_owned(),
            maybe_applied: !definite,
            status: Box::new(status),
        }
    }

    /// The same failure of a write that an earlier attempt may have carried out.
    pub(crate) fn or_applied_before(mut self) -> Self {
        match &mut self {
            Self::Server(error) => error.maybe_applied = true,
            Self::Transport { maybe_applied, .. }
            | Self::Timeout { maybe_applied, .. }
            | Self::Abandoned { maybe_applied } => *maybe_applied = true,
            Self::Unsure(_) => {}
            _ => return Self::Unsure(Box::new(self)),
        }
        self
    }

    /// The topic that was meant was deleted, as a node said or because there is a later one of its name.
    pub(crate) fn topic_deleted(topic: &str) -> Self {
        let what = format!("the topic '{topic}' was deleted, and there is another one of its name");
        Self::server(v1::Error::new(ErrorCode::TopicDeleted, what))
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }
}

/// No connection came about, so no request was sent.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Answers of a server that did not begin to work on the request.
const fn refused(code: Code) -> bool {
    matches!(
        code,
        Code::Unimplemented | Code::InvalidArgument | Code::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_after_an_attempt_that_may_have_worked_is_unsure() {
        let failures = [
            ClientError::server(v1::Error::new(ErrorCode::NotLeader, "another node leads")),
            ClientError::Timeout {
                what: "produce",
                after: Duration::from_secs(1),
                maybe_applied: false,
                last: None,
            },
            ClientError::Abandoned {
                maybe_applied: false,
            },
            ClientError::UnknownTopic("t".to_owned()),
            ClientError::Closed("consumer"),
            ClientError::NotAssigned(TopicPartition::new("t", 0)),
        ];
        for failure in failures {
            assert!(failure.has_no_side_effects(), "{failure:?}");
            let (code, again) = (failure.code(), failure.is_retryable());
            let unsure = failure.or_applied_before();
            assert!(!unsure.has_no_side_effects(), "{unsure:?}");
            assert_eq!((unsure.code(), unsure.is_retryable()), (code, again));
            assert!(!unsure.or_applied_before().has_no_side_effects());
        }
    }
}
