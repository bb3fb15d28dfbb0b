//! Removing old records on request.

use seriatim_cluster::command::LOG_START_LEVEL;
use seriatim_partition::TrimError;
use seriatim_proto::{
    error::ErrorCode,
    ids::{Offset, PartitionId, TopicPartition},
    v1,
};

use crate::{Broker, broker};

const DEFAULT_TIMEOUT_MS: u32 = 30_000;

impl Broker {
    /// Removes a partition's records below an offset.
    pub async fn trim(&self, request: v1::TrimPartitionRequest) -> v1::TrimPartitionResponse {
        match self.try_trim(&request).await {
            Ok(start) => v1::TrimPartitionResponse {
                error: None,
                log_start_offset: start.0,
            },
            Err(error) => v1::TrimPartitionResponse {
                error: Some(error),
                log_start_offset: -1,
            },
        }
    }

    async fn try_trim(&self, request: &v1::TrimPartitionRequest) -> Result<Offset, v1::Error> {
        let partition = self.partition(&request.topic, request.partition)?;
        // Looked at last: a node that has just started may not have heard of the level either, but
        // then it has not heard of the topic.
        let level = self.cluster.image().feature_level;
        if level < LOG_START_LEVEL {
            return Err(v1::Error::new(
                ErrorCode::UnsupportedVersion,
                "records can be removed once every node runs this version or a later one; \
                 upgrade the others",
            ));
        }
        let deadline = broker::deadline(request.timeout_ms, DEFAULT_TIMEOUT_MS);
        let trimmed = partition.trim(Offset(request.before), deadline).await;
        trimmed.map_err(|error| {
            let number = PartitionId(request.partition);
            let tp = TopicPartition::new(request.topic.clone(), number);
            self.trim_error(&tp, &error)
        })
    }

    fn trim_error(&self, tp: &TopicPartition, error: &TrimError) -> v1::Error {
        let new = |code, text: String| v1::Error::new(code, format!("partition {tp}: {text}"));
        match error {
            TrimError::NotLeader { leader } => self.not_leader(tp, *leader),
            TrimError::NotReady | TrimError::NoMajority => new(
                ErrorCode::LeaderNotAvailable,
                format!("{error}; try again shortly"),
            ),
            TrimError::OutOfRange { end, .. } => {
                let text = format!("{error}; name an offset up to its end");
                let mut shown = new(ErrorCode::OffsetOutOfRange, text);
                shown.log_end_offset = Some(end.0);
                shown
            }
            TrimError::Timeout => {
                let text = format!("{error}; it may still happen, and may be asked for again");
                new(ErrorCode::Timeout, text).maybe_applied()
            }
            TrimError::Stopped(_) => new(
                ErrorCode::ReplicaUnavailable,
                format!("{error}; another replica takes over"),
            ),
            TrimError::Storage(cause) => new(
                ErrorCode::ReplicaUnavailable,
                format!("{error}: {cause}; another replica takes over"),
            ),
        }
    }
}
