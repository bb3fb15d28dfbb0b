//! What can go wrong in the cluster layer.

use std::sync::Arc;

use seriatim_consensus::ConsensusError;
use seriatim_proto::{
    error::{ErrorCode, chain},
    ids::NodeId,
    settings::SettingError,
    topic_name::TopicNameError,
    v1,
};
use seriatim_storage::StorageError;

use crate::command::Refusal;

/// Why the cluster did not do what was asked, or why this node cannot be part of it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClusterError {
    /// The metadata group refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Not a topic name.
    #[error(transparent)]
    TopicName(#[from] TopicNameError),
    /// Not a setting, or not a value of it.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// An operation that the cluster keeps for itself.
    #[error("topic '{name}' is internal: names that begin with '__' are the cluster's own")]
    InternalTopic {
        /// The topic.
        name: String,
    },
    /// A number out of range.
    #[error("{what} must be from {low} to {high}, not {value}")]
    OutOfRange {
        /// What was given.
        what: &'static str,
        /// The value.
        value: u64,
        /// The least value.
        low: u64,
        /// The greatest value.
        high: u64,
    },
    /// No node leads the metadata group, or none was found in time.
    #[error("no controller found in time: a majority of the first nodes must run and be connected")]
    NoController {
        /// The request may have taken effect all the same.
        maybe_applied: bool,
    },
    /// This node's data and the cluster it was pointed at do not belong together.
    #[error(
        "this node's data belongs to cluster {ours}, but {peer} belongs to cluster {theirs}; \
         point `seeds` at the right cluster, or start with an empty data_dir to join that one"
    )]
    WrongCluster {
        /// The cluster in the data folder.
        ours: String,
        /// The other's cluster.
        theirs: String,
        /// The address that answered.
        peer: String,
    },
    /// The seeds do not belong to one cluster.
    #[error("the seeds belong to different clusters: {first} and {second}; correct `seeds`")]
    SeedsDisagree {
        /// What one said.
        first: String,
        /// What another said.
        second: String,
    },
    /// Two of the first nodes have one node id.
    #[error("the nodes at {first} and {second} both have node id {node}; give each its own")]
    DuplicateNodeId {
        /// The id.
        node: NodeId,
        /// One node's address.
        first: String,
        /// The other's.
        second: String,
    },
    /// The configuration cannot work.
    #[error("{what}")]
    Configuration {
        /// What is wrong and what to do.
        what: String,
    },
    /// This node's files failed.
    #[error("storage of the metadata group")]
    Storage(#[source] Arc<StorageError>),
    /// The metadata group failed.
    #[error("the metadata group")]
    Consensus(#[source] Arc<ConsensusError>),
    /// The node stops.
    #[error("this node is shutting down")]
    ShuttingDown,
}

impl ClusterError {
    /// Whether the same request may succeed when it is sent again.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    /// Whether the request certainly changed nothing.
    pub fn has_no_side_effects(&self) -> bool {
        !matches!(
            self,
            Self::NoController {
                maybe_applied: true
            }
        )
    }

    /// As the public API reports this, with its causes.
    pub fn to_error(&self) -> v1::Error {
        let mut shown = v1::Error::new(self.code(), chain(self));
        shown.retryable = self.is_retryable();
        shown.maybe_applied = !self.has_no_side_effects();
        shown
    }

    /// The code under which the public API reports this.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::TopicName(_) => ErrorCode::InvalidTopicName,
            Self::Setting(_) => ErrorCode::InvalidSetting,
            Self::OutOfRange { .. } | Self::InternalTopic { .. } => ErrorCode::InvalidRequest,
            Self::NoController { .. } => ErrorCode::NoController,
            Self::ShuttingDown => ErrorCode::ShuttingDown,
            Self::WrongCluster { .. }
            | Self::SeedsDisagree { .. }
            | Self::DuplicateNodeId { .. }
            | Self::Configuration { .. }
            | Self::Storage(_)
            | Self::Consensus(_) => ErrorCode::Internal,
        }
    }
}

impl Refusal {
    /// The code under which the public API reports this.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownCommand { .. } | Self::TooOld { .. } => ErrorCode::UnsupportedVersion,
            Self::TopicExists { .. } => ErrorCode::TopicExists,
            Self::UnknownTopic { .. } | Self::OtherTopic { .. } => ErrorCode::UnknownTopic,
            Self::CreatedAndDeleted { .. } => ErrorCode::TopicDeleted,
            Self::UnknownPartition { .. } => ErrorCode::UnknownPartition,
            Self::Outdated => ErrorCode::NoController,
            Self::NameCollision { .. } => ErrorCode::InvalidTopicName,
            Self::NotEnoughNodes { .. } => ErrorCode::NotEnoughNodes,
            Self::Malformed { .. }
            | Self::UnknownNode { .. }
            | Self::Moving { .. }
            | Self::FewerPartitions { .. }
            | Self::NodeLeaving { .. }
            | Self::NodeInUse { .. } => ErrorCode::InvalidRequest,
            Self::NotFounded => ErrorCode::NoController,
            Self::NodeIdTaken { .. }
            | Self::UnknownReplica { .. }
            | Self::AlreadyFounded { .. } => ErrorCode::Internal,
        }
    }
}

impl From<StorageError> for ClusterError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<ConsensusError> for ClusterError {
    fn from(error: ConsensusError) -> Self {
        Self::Consensus(Arc::new(error))
    }
}
