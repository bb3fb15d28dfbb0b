//! Hard state: the votes of all replicas in one journal.

use crate::{LogKey, Result, Vote};

/// Votes of all replicas of this node.
#[derive(Debug)]
pub struct HardState {}

impl HardState {
    /// The last vote that was saved.
    pub fn vote(&self, key: LogKey) -> Option<Vote> {
        todo!()
    }

    /// Saves a vote; durable on return. Votes saved at the same time share one sync.
    pub async fn save_vote(&self, key: LogKey, vote: Vote) -> Result<()> {
        todo!()
    }

    /// Forgets a replica; durable on return. For replicas whose id never comes back.
    pub async fn forget(&self, key: LogKey) -> Result<()> {
        todo!()
    }
}
