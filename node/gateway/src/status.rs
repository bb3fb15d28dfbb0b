//! Errors of the broker as gRPC statuses.

use prost::Message as _;
use seriatim_proto::{
    error::{ERROR_METADATA_KEY, ErrorCode},
    v1,
};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

/// The status of a failed call; the typed error travels in its metadata.
pub(crate) fn of(error: &v1::Error) -> Status {
    let code = match error.code() {
        ErrorCode::InvalidRequest
        | ErrorCode::CorruptBatch
        | ErrorCode::BatchTooLarge
        | ErrorCode::InvalidTopicName
        | ErrorCode::InvalidGroup
        | ErrorCode::InvalidSetting => Code::InvalidArgument,
        ErrorCode::UnsupportedVersion => Code::Unimplemented,
        ErrorCode::UnknownTopic
        | ErrorCode::UnknownPartition
        | ErrorCode::TopicDeleted
        | ErrorCode::UnknownGroup => Code::NotFound,
        ErrorCode::TopicExists => Code::AlreadyExists,
        ErrorCode::OffsetOutOfRange => Code::OutOfRange,
        ErrorCode::NotEnoughNodes
        | ErrorCode::WrongEndOffset
        | ErrorCode::OutOfOrderSequence
        | ErrorCode::ProducerFenced
        | ErrorCode::UnknownProducer
        | ErrorCode::UnknownMember
        | ErrorCode::StaleGeneration
        | ErrorCode::MemberFenced
        | ErrorCode::GroupNotEmpty
        | ErrorCode::OffsetWentBack => Code::FailedPrecondition,
        ErrorCode::Timeout => Code::DeadlineExceeded,
        ErrorCode::Overloaded | ErrorCode::DiskFull => Code::ResourceExhausted,
        ErrorCode::NotLeader
        | ErrorCode::LeaderNotAvailable
        | ErrorCode::ReplicaUnavailable
        | ErrorCode::ShuttingDown
        | ErrorCode::NoController
        | ErrorCode::NotCoordinator => Code::Unavailable,
        ErrorCode::Unspecified | ErrorCode::Internal => Code::Internal,
    };
    let mut metadata = MetadataMap::new();
    let encoded = MetadataValue::from_bytes(&error.encode_to_vec());
    let _none_before = metadata.insert_bin(ERROR_METADATA_KEY, encoded);
    Status::with_metadata(code, error.message.clone(), metadata)
}
