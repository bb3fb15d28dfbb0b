//! A disk whose operations can be counted, refused, or cut off, over any other disk.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use seriatim_storage::disk::{DirEntry, DirLock, Disk, DiskFile, OpenMode};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    /// A file or folder is created.
    Create,
    Write,
    SetLen,
    Sync,
    SyncDir,
    Rename,
    Remove,
}

/// Which operations fail.
type Refuse = Box<dyn Fn(Op, &Path) -> Option<io::ErrorKind> + Send>;

#[derive(Default)]
struct Plan {
    /// Operations that change something, so far.
    count: u64,
    /// After so many of them, everything fails: the process is gone.
    stop_after: Option<u64>,
    refuse: Option<Refuse>,
    /// Bytes read, so far.
    read: usize,
    /// What was tried, by kind and path.
    tried: BTreeMap<(Op, PathBuf), u64>,
}

/// Wraps a disk. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Arc<dyn Disk>,
    plan: Arc<Mutex<Plan>>,
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").finish_non_exhaustive()
    }
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn Disk>) -> Self {
        Self {
            inner,
            plan: Arc::default(),
        }
    }

    /// Operations that change something, so far.
    pub(crate) fn count(&self) -> u64 {
        self.plan.lock().count
    }

    /// Bytes read, so far.
    pub(crate) fn bytes_read(&self) -> usize {
        self.plan.lock().read
    }

    /// Lets so many more operations happen and none after them.
    pub(crate) fn stop_after(&self, operations: u64) {
        let mut plan = self.plan.lock();
        plan.stop_after = Some(plan.count + operations);
    }

    /// Fails the operations for which `refuse` gives an error, until it is told otherwise.
    pub(crate) fn refuse(
        &self,
        refuse: impl Fn(Op, &Path) -> Option<io::ErrorKind> + Send + 'static,
    ) {
        self.plan.lock().refuse = Some(Box::new(refuse));
    }

    /// Fails `many` operations from the `number`th on, counted from 0.
    pub(crate) fn fail_at(&self, number: u64, many: u64, kind: io::ErrorKind) {
        let seen = AtomicU64::new(0);
        self.refuse(move |_, _| {
            let now = seen.fetch_add(1, Ordering::Relaxed);
            (number..number.saturating_add(many))
                .contains(&now)
                .then_some(kind)
        });
    }

    /// Nothing grows any more.
    pub(crate) fn fill_up(&self) {
        self.refuse(|op, _| {
            matches!(op, Op::Create | Op::Write).then_some(io::ErrorKind::StorageFull)
        });
    }

    pub(crate) fn heal(&self) {
        self.plan.lock().refuse = None;
    }

    /// How often an operation was tried on a path for which `choose` says yes.
    pub(crate) fn tried(&self, op: Op, choose: impl Fn(&Path) -> bool) -> u64 {
        let plan = self.plan.lock();
        let chosen = plan
            .tried
            .iter()
            .filter(|((tried, path), _)| *tried == op && choose(path));
        chosen.map(|(_, count)| count).sum()
    }

    fn gate(&self, op: Op, path: &Path) -> io::Result<()> {
        let mut plan = self.plan.lock();
        *plan.tried.entry((op, path.to_owned())).or_default() += 1;
        if plan.stop_after.is_some_and(|stop| plan.count >= stop) {
            return Err(io::Error::other("the process is gone"));
        }
        let refused = plan.refuse.as_ref().and_then(|refuse| refuse(op, path));
        plan.count += 1;
        match refused {
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }

    fn alive(&self) -> io::Result<()> {
        let plan = self.plan.lock();
        if plan.stop_after.is_some_and(|stop| plan.count >= stop) {
            return Err(io::Error::other("the process is gone"));
        }
        Ok(())
    }
}

impl Disk for Faulty {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.alive()?;
        let inner = match mode {
            OpenMode::Read | OpenMode::Write => self.inner.open(path, mode)?,
            OpenMode::Create | OpenMode::CreateNew => {
                match self.inner.open(path, OpenMode::Write) {
                    Ok(file) if mode == OpenMode::Create => file,
                    _ => {
                        self.gate(Op::Create, path)?;
                        self.inner.open(path, mode)?
                    }
                }
            }
        };
        Ok(Arc::new(FaultyFile {
            disk: self.clone(),
            path: path.to_owned(),
            inner,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if self.inner.list(path).is_err() {
            self.gate(Op::Create, path)?;
        }
        self.inner.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.alive()?;
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.gate(Op::Rename, to)?;
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.gate(Op::Remove, path)?;
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.gate(Op::Remove, path)?;
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.gate(Op::SyncDir, dir)?;
        self.inner.sync_dir(dir)
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        self.inner.lock(path)
    }

    fn is_simulated(&self) -> bool {
        self.inner.is_simulated()
    }

    fn sync_time(&self, syncs: u32) -> Duration {
        self.inner.sync_time(syncs)
    }

    fn take_delay(&self) -> Duration {
        self.inner.take_delay()
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: Faulty,
    path: PathBuf,
    inner: Arc<dyn DiskFile>,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        self.disk.alive()?;
        let bytes = self.inner.read_at(position, len)?;
        self.disk.plan.lock().read += bytes.len();
        Ok(bytes)
    }

    fn write_at(&self, position: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let gate = self.disk.gate(Op::Write, &self.path);
        if gate.is_err() && self.disk.alive().is_ok() {
            // After an error any part may have been written: here it is the first half, in whole
            // sectors.
            let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
            let past = position % 512;
            let half = (past as usize + all.len() / 2) / 512 * 512;
            let half = &all[..half.saturating_sub(past as usize)];
            self.inner.write_at(position, &mut [IoSlice::new(half)])?;
        }
        gate?;
        self.inner.write_at(position, slices)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.gate(Op::Sync, &self.path)?;
        self.inner.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.alive()?;
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.gate(Op::SetLen, &self.path)?;
        self.inner.set_len(len)
    }
}
