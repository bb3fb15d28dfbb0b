//! The metadata store of a simulated disk.
//!
//! ```text
//! offset size field
//!      0   16 file header (`file.rs`), kind meta
//!     16      transaction, any number of them:
//!             CRC-32 of the rest 4, length of the rest 4, then for each change:
//!             1 put or 0 delete 1, length of the key 4, key, and of a put: length of the value 4, value
//! ```
//! Integers are big-endian. Reading stops at the first transaction that fails its CRC.

use std::{
    collections::BTreeMap,
    io::IoSlice,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::MetaBatch;
use crate::{
    Result,
    bin::{Reader, len_usize, len64},
    disk::{Disk, DiskFile, OpenMode},
    error::IoContext,
    file::{self, FileKind},
};

type Map = BTreeMap<Bytes, Bytes>;

/// A map whose transactions are journaled.
#[derive(Debug)]
pub(super) struct MetaJournal {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    state: Mutex<(Map, u64)>,
}

impl MetaJournal {
    pub(super) fn open(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let path = dir.join("meta");
        let file = disk.open(&path, OpenMode::Create).at("open", &path)?;
        let len = file.len().at("read the length of", &path)?;
        let bytes = file.read_at(0, len_usize(len)).at("read", &path)?;
        let header_bytes = len64(file::PREFIX_BYTES);
        let mut map = Map::new();
        // A header that was never written in full has nothing behind it.
        let is_new = bytes.len() < file::PREFIX_BYTES
            || bytes.iter().take(file::PREFIX_BYTES).all(|&byte| byte == 0);
        let end = if is_new {
            let header = file::encode_header(FileKind::Meta, &[]);
            file.set_len(0).at("empty", &path)?;
            file.write_at(0, &mut [IoSlice::new(&header)])
                .at("write", &path)?;
            header_bytes
        } else {
            let _no_fields = file::parse_header(&path, &bytes, FileKind::Meta, 0)?;
            let mut reader = Reader(bytes.get(file::PREFIX_BYTES..).unwrap_or_default());
            let mut end = header_bytes;
            while let Some(used) = replay(&mut reader, &mut map) {
                end += used;
            }
            end
        };
        file.set_len(end).at("cut", &path)?;
        // Were the cut lost, what was cut off could stand again behind what is written in its place, and be
        // read as if it followed that.
        file.sync().at("sync", &path)?;
        disk.sync_dir(dir).at("sync", dir)?;
        Ok(Self {
            path,
            file,
            state: Mutex::new((map, end)),
        })
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.state.lock().0.get(key).cloned()
    }

    pub(super) fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let state = self.state.lock();
        let from = state.0.range::<[u8], _>((
            std::ops::Bound::Included(prefix),
            std::ops::Bound::Unbounded,
        ));
        from.take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    pub(super) fn transact(&self, batch: &MetaBatch) -> Result<()> {
        let bytes = encode(batch);
        let mut state = self.state.lock();
        self.file
            .write_at(state.1, &mut [IoSlice::new(&bytes)])
            .at("write", &self.path)?;
        state.1 += len64(bytes.len());
        for (key, value) in &batch.ops {
            let key = Bytes::copy_from_slice(key);
            let _ = match value {
                Some(value) => state.0.insert(key, Bytes::copy_from_slice(value)),
                None => state.0.remove(&key),
            };
        }
        Ok(())
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.file.sync().at("sync", &self.path)
    }
}

fn encode(batch: &MetaBatch) -> Vec<u8> {
    let mut rest = Vec::new();
    let put = |rest: &mut Vec<u8>, bytes: &[u8]| {
        rest.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        rest.extend_from_slice(bytes);
    };
    for (key, value) in &batch.ops {
        rest.push(u8::from(value.is_some()));
        put(&mut rest, key);
        if let Some(value) = value {
            put(&mut rest, value);
        }
    }
    let mut counted = Vec::with_capacity(rest.len() + 4);
    put(&mut counted, &rest);
    let mut out = crc32fast::hash(&counted).to_be_bytes().to_vec();
    out.extend_from_slice(&counted);
    out
}

/// Applies the next transaction to `map`; returns its size, or `None` where there is no whole one.
fn replay(reader: &mut Reader<'_>, map: &mut Map) -> Option<u64> {
    let mut ahead = *reader;
    let crc = ahead.u32()?;
    let counted = ahead.0;
    let len = ahead.u32()? as usize;
    let mut rest = Reader(ahead.take(len)?);
    if crc32fast::hash(counted.get(..4 + len)?) != crc || len == 0 {
        return None;
    }
    while let Some(put) = rest.u8() {
        let key_bytes = rest.u32()? as usize;
        let key = Bytes::copy_from_slice(rest.take(key_bytes)?);
        if put == 1 {
            let value_bytes = rest.u32()? as usize;
            let _ = map.insert(key, Bytes::copy_from_slice(rest.take(value_bytes)?));
        } else {
            let _ = map.remove(&key);
        }
    }
    *reader = ahead;
    Some(len64(8 + len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    fn open(disk: &SimDisk) -> MetaJournal {
        MetaJournal::open(disk, Path::new("/")).unwrap()
    }

    /// Found by simulator seed 2505: what one life had cut off stood again behind what it had written, and two
    /// nodes went on from different states.
    #[test]
    fn a_crash_leaves_a_state_that_there_was_since_the_start() {
        for seed in 0..300 {
            let disk = SimDisk::new(seed);
            let mut before = vec![Map::new()];
            for life in 0..6_u64 {
                let journal = open(&disk);
                let found = journal.state.lock().0.clone();
                assert!(
                    before.contains(&found),
                    "seed {seed}, life {life}: {found:?}"
                );
                before = vec![found];
                for number in 0..6_u64 {
                    let mut batch = MetaBatch::default();
                    // All of one size, so that what is written anew ends where another transaction did, and
                    // of several sectors, so that one may be torn and the next not.
                    let value = (life << 32 | number).to_be_bytes().repeat(200);
                    batch.put([u8::try_from((life + number) % 4).unwrap()], value);
                    journal.transact(&batch).unwrap();
                    before.push(journal.state.lock().0.clone());
                    if (seed + life) % 12 == number {
                        journal.flush().unwrap();
                        let _over = before.drain(..before.len() - 1);
                    }
                }
                drop(journal);
                disk.crash();
            }
        }
    }
}
