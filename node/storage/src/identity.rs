//! The identity file: which node of which cluster a data directory belongs to.

use seriatim_proto::ids::NodeId;

use crate::Result;

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node's number.
    pub node_id: NodeId,
    /// The cluster it belongs to, once it does.
    pub cluster_id: Option<String>,
}

/// The file that holds the [`Identity`].
#[derive(Debug)]
pub struct IdentityFile {}

impl IdentityFile {
    /// What was written last; `None` in a new data directory.
    pub fn read(&self) -> Result<Option<Identity>> {
        todo!()
    }

    /// Replaces the identity; durable on return. Blocks for a sync.
    pub fn write(&self, identity: &Identity) -> Result<()> {
        todo!()
    }
}
