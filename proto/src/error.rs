//! Typed errors of the public API and how they travel.

use crate::v1;
pub use crate::v1::ErrorCode;

/// gRPC metadata key under which a failed call carries an encoded [`v1::Error`].
pub const ERROR_METADATA_KEY: &str = "seriatim-error-bin";

/// An error with its causes in one line, for a person.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl v1::ErrorCode {
    /// Whether the same request may succeed when it is sent again, perhaps elsewhere or later.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::NotLeader
                | Self::LeaderNotAvailable
                | Self::Timeout
                | Self::Overloaded
                | Self::DiskFull
                | Self::ReplicaUnavailable
                | Self::ShuttingDown
                | Self::NoController
                | Self::NotCoordinator
        )
    }
}

impl v1::Error {
    /// An error that had no effect; retryable as its code says.
    pub fn new(code: v1::ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            retryable: code.is_retryable(),
            ..Self::default()
        }
    }

    /// The same error of a write that may have taken effect all the same.
    #[must_use]
    pub fn maybe_applied(mut self) -> Self {
        self.maybe_applied = true;
        self
    }
}
