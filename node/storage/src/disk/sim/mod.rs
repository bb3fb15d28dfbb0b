//! A disk in memory whose faults follow from a seed.

mod faults;
mod files;
mod names;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io::{self, IoSlice},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use seriatim_runtime::sim::trace;

use self::{
    faults::{Faults, Room},
    files::Inode,
    names::{NameOp, Names, Node},
};
use super::{DirEntry, DirLock, Disk, DiskFile, OpenMode};
use crate::bin::{len_usize, len64};

/// Space on a disk that is not full.
const FREE_BYTES: u64 = 1 << 40;

/// A disk in memory. Cheap to clone; clones are the same disk, which outlives the nodes that use it.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    rng: SmallRng,
    inodes: Vec<Inode>,
    names: Names,
    locked: BTreeSet<PathBuf>,
    /// Handles of an earlier epoch belong to a dead process and fail.
    epoch: u64,
    faults: Faults,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: SmallRng::seed_from_u64(seed),
            inodes: Vec::new(),
            names: Names::default(),
            locked: BTreeSet::new(),
            epoch: 0,
            faults: Faults::default(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The process that used the disk is gone: what it wrote stays, its handles and locks do not.
    pub fn kill_process(&self) {
        self.state.lock().end_process();
    }

    /// Power fails: what was not synced is lost, kept, or torn, each write for itself; names that
    /// were not synced are lost from some point on.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        state.end_process();
        let State {
            rng,
            inodes,
            names,
            faults,
            ..
        } = &mut *state;
        faults.turn_on();
        names.crash(rng);
        for inode in inodes {
            inode.crash(rng);
        }
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&self) {
        let mut state = self.state.lock();
        state.end_process();
        state.inodes.clear();
        state.names = Names::default();
    }

    /// Every file, by name.
    pub fn files(&self) -> Vec<PathBuf> {
        let files = self.state.lock().names.files();
        files.into_iter().map(|(path, _)| path).collect()
    }

    /// Flips one bit in a random file that `choose` picks by its name and size; says where, unless
    /// there is none. It hits the first half: damage of the last write of a log cannot be told
    /// from a write that a power loss tore.
    pub fn rot(&self, choose: impl Fn(&Path, usize) -> bool) -> Option<(PathBuf, u64)> {
        self.rot_in(choose, |used| 0..used.div_ceil(2))
    }

    /// The same in the last `bytes` of a file.
    pub fn rot_end(
        &self,
        bytes: usize,
        choose: impl Fn(&Path, usize) -> bool,
    ) -> Option<(PathBuf, u64)> {
        self.rot_in(choose, |used| used.saturating_sub(bytes)..used)
    }

    fn rot_in(
        &self,
        choose: impl Fn(&Path, usize) -> bool,
        place: impl Fn(usize) -> Range<usize>,
    ) -> Option<(PathBuf, u64)> {
        let mut state = self.state.lock();
        let files = state.names.files();
        let mut found: Vec<(PathBuf, usize)> = files
            .into_iter()
            .filter(|(path, inode)| {
                let used = state.inodes.get(*inode).map_or(0, Inode::used);
                used > 0 && choose(path, used)
            })
            .collect();
        if found.is_empty() {
            return None;
        }
        let pick = state.rng.random_range(0..found.len());
        let (path, inode) = found.swap_remove(pick);
        let State { rng, inodes, .. } = &mut *state;
        let inode = inodes.get_mut(inode)?;
        let position = rng.random_range(place(inode.used()));
        inode.flip(position, rng.random_range(0..8));
        Some((path, len64(position)))
    }
}

impl State {
    fn end_process(&mut self) {
        self.epoch += 1;
        self.locked.clear();
        self.faults.end_process();
    }

    fn inode(&mut self, inode: usize, epoch: u64) -> io::Result<&mut Inode> {
        if epoch != self.epoch {
            return Err(io::Error::other("the process was killed"));
        }
        let found = self.inodes.get_mut(inode);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&mut self, path: &Path) -> io::Result<usize> {
        if self.faults.write()?.is_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.names.expect_parent(path)?;
        let inode = self.inodes.len();
        self.inodes.push(Inode::default());
        self.names
            .change(NameOp::Put(path.to_owned(), Node::File(inode)));
        Ok(inode)
    }
}

/// A file and a position in it as one number, for the trace.
fn file_number(inode: usize, position: usize) -> u64 {
    (len64(inode) << 40) | len64(position)
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let inode = match (state.names.get(path), mode) {
            (Some(Node::Dir), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), OpenMode::CreateNew) => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            (Some(Node::File(inode)), _) => inode,
            (None, OpenMode::Read | OpenMode::Write) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            (None, OpenMode::Create | OpenMode::CreateNew) => state.create(path)?,
        };
        Ok(Arc::new(SimFile {
            state: Arc::clone(&self.state),
            inode,
            epoch: state.epoch,
            writable: mode != OpenMode::Read,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut missing = Vec::new();
        for dir in path.ancestors().filter(|p| p.file_name().is_some()) {
            match state.names.get(dir) {
                Some(Node::Dir) => break,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => missing.push(dir.to_owned()),
            }
        }
        if !missing.is_empty() && state.faults.write()?.is_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        for dir in missing.into_iter().rev() {
            state.names.change(NameOp::Put(dir, Node::Dir));
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        match state.names.get(dir) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            Some(Node::Dir) => Ok(state.names.list(dir)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.name()?;
        if state.names.get(from).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.names.expect_parent(to)?;
        let op = NameOp::Rename(from.to_owned(), to.to_owned());
        state.names.change(op);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.name()?;
        match state.names.get(path) {
            Some(Node::File(_)) => {
                state.names.change(NameOp::Remove(path.to_owned()));
                Ok(())
            }
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.name()?;
        match state.names.get(path) {
            Some(Node::Dir) => {
                state.names.change(NameOp::Remove(path.to_owned()));
                Ok(())
            }
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.faults.sync()? {
            state.names.sync(dir);
        }
        Ok(())
    }

    fn free_space(&self, _path: &Path) -> io::Result<u64> {
        Ok(if self.state.lock().faults.is_full() {
            0
        } else {
            FREE_BYTES
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut state = self.state.lock();
        if state.names.get(path).is_none() {
            let _inode = state.create(path)?;
        }
        if !state.locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            state: Arc::clone(&self.state),
            path: path.to_owned(),
            epoch: state.epoch,
        }))
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn sync_time(&self, syncs: u32) -> Duration {
        self.state.lock().faults.sync_time(syncs)
    }

    fn take_delay(&self) -> Duration {
        self.state.lock().faults.take_delay()
    }
}

#[derive(Debug)]
struct SimLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    epoch: u64,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.epoch == self.epoch {
            let _held = state.locked.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    inode: usize,
    epoch: u64,
    writable: bool,
}

impl SimFile {
    fn expect_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut state = self.state.lock();
        let _alive = state.inode(self.inode, self.epoch)?;
        state.faults.read()?;
        let inode = state.inode(self.inode, self.epoch)?;
        Ok(inode.read(len_usize(position), len))
    }

    fn write_at(&self, position: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.expect_writable()?;
        let mut state = self.state.lock();
        let _alive = state.inode(self.inode, self.epoch)?;
        let room = state.faults.write()?;
        let inode = state.inode(self.inode, self.epoch)?;
        let mut bytes = Vec::with_capacity(slices.iter().map(|s| s.len()).sum());
        slices
            .iter()
            .for_each(|slice| bytes.extend_from_slice(slice));
        let position = len_usize(position);
        let room = match room {
            Room::Enough => bytes.len(),
            Room::None => inode.len().saturating_sub(position),
            // File systems find room for whole blocks or not at all.
            Room::Half => {
                let end = position + bytes.len() / 2;
                (end - end % files::SECTOR_BYTES).saturating_sub(position)
            }
        };
        let short = room < bytes.len();
        bytes.truncate(room);
        trace::event("write", file_number(self.inode, position), &bytes);
        inode.write(position, bytes);
        if short {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let _alive = state.inode(self.inode, self.epoch)?;
        trace::event("sync", file_number(self.inode, 0), &[]);
        if state.faults.sync()? {
            state.inode(self.inode, self.epoch)?.sync();
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        Ok(len64(state.inode(self.inode, self.epoch)?.len()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.expect_writable()?;
        let mut state = self.state.lock();
        let _alive = state.inode(self.inode, self.epoch)?;
        let room = state.faults.write()?;
        let inode = state.inode(self.inode, self.epoch)?;
        if room.is_full() && len > len64(inode.len()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inode.set_len(len_usize(len));
        Ok(())
    }
}
