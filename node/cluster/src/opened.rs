//! A replica that is open on this node: of an event log, or of an internal partition.

use std::sync::Arc;

use seriatim_consensus::{ConsensusError, Group};
use seriatim_partition::{Partition, PartitionError, PartitionSpec};
use seriatim_proto::{ids::TopicPartition, settings::TopicSettings};
use seriatim_storage::LogKey;

use crate::{
    cluster::Inner,
    internal::{self, Hosted},
};

/// An open replica. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Opened {
    Log(Partition),
    Internal(Arc<dyn Hosted>),
}

/// Why a replica could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Log(PartitionError),
    #[error(transparent)]
    Internal(ConsensusError),
}

impl OpenError {
    /// Whether an earlier replica of the same partition is still being closed here.
    pub(crate) fn is_busy(&self) -> bool {
        let consensus = match self {
            Self::Log(PartitionError::Consensus(error)) => &**error,
            Self::Log(_) => return false,
            Self::Internal(error) => error,
        };
        matches!(consensus, ConsensusError::Open(_))
    }

    /// Whether the replica's files are damaged, so that only its peers have its log.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Log(error) => error.is_damage(),
            Self::Internal(error) => matches!(error, ConsensusError::Damaged(_)),
        }
    }
}

impl Opened {
    pub(crate) async fn open(
        inner: &Inner,
        tp: &TopicPartition,
        key: LogKey,
        settings: TopicSettings,
    ) -> Result<Self, OpenError> {
        if internal::is_internal(&tp.topic) {
            let opened = inner.host.open(&inner.consensus, tp, key).await;
            return match opened {
                Ok(hosted) => Ok(Self::Internal(hosted.into())),
                Err(error) => Err(OpenError::Internal(error)),
            };
        }
        let spec = PartitionSpec {
            name: tp.clone(),
            key,
            settings,
        };
        let opened = Partition::open(&inner.consensus, spec).await;
        opened.map(Self::Log).map_err(OpenError::Log)
    }

    pub(crate) fn group(&self) -> &Group {
        match self {
            Self::Log(partition) => partition.group(),
            Self::Internal(hosted) => hosted.group(),
        }
    }

    pub(crate) fn log(&self) -> Option<&Partition> {
        match self {
            Self::Log(partition) => Some(partition),
            Self::Internal(_) => None,
        }
    }

    pub(crate) fn set_settings(&self, settings: TopicSettings) {
        if let Self::Log(partition) = self {
            partition.set_settings(settings);
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Log(partition) => partition.close().await,
            Self::Internal(hosted) => hosted.close().await,
        }
    }
}
