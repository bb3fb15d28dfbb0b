//! The metadata store: ordered keys and values for materialised state machines.

use bytes::Bytes;

use crate::Result;

/// Changes that take effect together.
#[derive(Debug, Clone, Default)]
pub struct MetaBatch {
    /// In order; `None` deletes.
    ops: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl MetaBatch {
    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.push((key.into(), Some(value.into())));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.ops.push((key.into(), None));
    }
}

/// Ordered keys and values. A crash may lose the last transactions, never a part of one.
#[derive(Debug)]
pub struct MetaStore {}

impl MetaStore {
    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        todo!()
    }

    /// All keys that begin with `prefix`, in order, with their values.
    pub fn scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        todo!()
    }

    /// Applies a batch: all of it or nothing. Not yet durable on return.
    pub fn transact(&self, batch: MetaBatch) -> Result<()> {
        todo!()
    }

    /// Makes all transactions so far durable. Blocks for a sync.
    pub fn flush(&self) -> Result<()> {
        todo!()
    }
}
