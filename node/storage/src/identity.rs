//! The identity file: which node of which cluster a data directory belongs to.
//!
//! Body (`file.rs` has what comes before), integers big-endian:
//! ```text
//! node id 8, 1 if it belongs to a cluster else 0, then the cluster id
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use seriatim_proto::ids::NodeId;

use crate::{
    Result, StorageError,
    bin::Reader,
    disk::Disk,
    file::{self, FileKind},
};

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
pub struct IdentityFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// One writer at a time.
    writing: Mutex<()>,
}

impl IdentityFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self {
            disk,
            path,
            writing: Mutex::new(()),
        }
    }

    /// What was written last; `None` in a new data directory.
    pub fn read(&self) -> Result<Option<Identity>> {
        read(&*self.disk, &self.path)
    }

    /// Replaces the identity; durable on return. Blocks for a sync.
    pub fn write(&self, identity: &Identity) -> Result<()> {
        let _one_at_a_time = self.writing.lock();
        let cluster_id = identity.cluster_id.as_deref();
        let parts: [&[u8]; 3] = [
            &identity.node_id.0.to_be_bytes(),
            &[u8::from(cluster_id.is_some())],
            cluster_id.unwrap_or_default().as_bytes(),
        ];
        file::write_small(&*self.disk, &self.path, FileKind::Identity, &parts)
    }
}

/// Reads an identity file.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Identity>> {
    let Some(body) = file::read_small(disk, path, FileKind::Identity)? else {
        return Ok(None);
    };
    let bad = || StorageError::damaged(path, 0, "the identity has the wrong form");
    let mut reader = Reader(&body);
    let node_id = NodeId(reader.u64().ok_or_else(bad)?);
    let cluster_id = match reader.u8().ok_or_else(bad)? {
        0 => None,
        _ => Some(String::from_utf8(reader.0.to_vec()).map_err(|_not_text| bad())?),
    };
    Ok(Some(Identity {
        node_id,
        cluster_id,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::PosixDisk;

    #[test]
    fn round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let file = IdentityFile::new(Arc::new(PosixDisk), dir.path().join("identity"));
        assert_eq!(file.read().unwrap(), None);
        for cluster_id in [None, Some("c-1".to_owned())] {
            let identity = Identity {
                node_id: NodeId(7),
                cluster_id,
            };
            file.write(&identity).unwrap();
            assert_eq!(file.read().unwrap(), Some(identity));
        }
    }
}
