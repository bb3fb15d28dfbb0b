//! One data directory.
//!
//! ```text
//! <data_dir>/format        format version of the directory; written last when it is made
//!            lock          locked while a process has the directory
//!            identity      node and cluster (`identity.rs`)
//!            votes         hard state (`votes.rs`)
//!            progress      how far each log is synced and committed (`progress.rs`)
//!            meta/         the metadata store (sled)
//!            logs/g1-r2/   one folder for each log: segments, start, checkpoint, boundary
//!            set-aside/    damaged logs, kept for inspection
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use seriatim_runtime::{clock, hit};

use crate::{
    HardState, IdentityFile, Log, LogKey, LogOptions, MetaStore, Result, StorageError,
    StorageOptions, StorageStats,
    cache::Cache,
    core::Core,
    disk::{DirLock, Disk},
    engine::Engine,
    error::IoContext,
    file::{self, FileKind},
    handles::Handles,
    log::LogInner,
    meta::Room,
    progress::Progress,
    rolled::Rolled,
    scrub::Scrubber,
    space::Space,
    votes::Journal,
};

/// Name of the file with the format of the directory.
pub(crate) const FORMAT: &str = "format";
/// Name of the file that is locked.
pub(crate) const LOCK: &str = "lock";
/// Name of the folder of all logs.
pub(crate) const LOGS: &str = "logs";
/// Free bytes that a change of the metadata store may need, where none can be set aside.
const META_ROOM_BYTES: u64 = 4 << 20;
/// How often a change that waits for them looks again.
const META_ROOM_RETRY: Duration = Duration::from_millis(100);
const SET_ASIDE: &str = "set-aside";
/// Name of the file that says who the node is.
pub(crate) const IDENTITY: &str = "identity";

/// Node-wide storage of one data directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    core: Arc<Core>,
    votes: HardState,
    meta: MetaStore,
    identity: IdentityFile,
    registry: Mutex<Registry>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    scrubber: Option<Arc<Scrubber>>,
}

#[derive(Debug, Default)]
struct Registry {
    /// Logs on disk, or opened.
    known: BTreeSet<LogKey>,
    open: BTreeMap<LogKey, Weak<LogInner>>,
    /// Logs that are being opened or removed.
    busy: BTreeSet<LogKey>,
    set_aside: BTreeSet<LogKey>,
}

impl Storage {
    /// Opens a data directory, created if absent, and takes its lock.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "options are given away, as everywhere"
    )]
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: StorageOptions) -> Result<Self> {
        let logs_dir = dir.join(LOGS);
        disk.create_dir_all(&logs_dir).at("create", &logs_dir)?;
        let lock = take_lock(&*disk, dir)?;
        let is_new = check_format(&*disk, dir)?;
        let registry = Registry {
            known: keys_in(&*disk, &logs_dir)?,
            set_aside: set_aside_in(&*disk, &dir.join(SET_ASIDE))?,
            ..Registry::default()
        };
        let journal = Journal::open(Arc::clone(&disk), dir, is_new && registry.known.is_empty())?;
        let progress = Progress::open(&*disk, dir)?;
        let meta = MetaStore::open(&disk, dir)?;
        if is_new {
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                disk.sync_dir(parent).at("sync", parent)?;
            }
            file::write_small(&*disk, &dir.join(FORMAT), FileKind::Root, &[])?;
        }
        if !disk.is_simulated() {
            raise_file_limit();
        }
        let engine = Engine::new(Arc::clone(&disk), logs_dir.clone(), options.disk_threads);
        let engine = Arc::new(engine);
        journal.measure_with(&engine);
        let threads = engine.start().at("start the disk threads of", dir)?;
        let core = Arc::new(Core {
            logs_dir,
            engine: Arc::clone(&engine),
            cache: Cache::new(options.cache_bytes),
            handles: Handles::default(),
            progress,
            space: Space::new(Arc::clone(&disk), dir.to_owned(), options.reserve_bytes),
            pending_bytes: AtomicU64::new(0),
            rolled: Rolled::default(),
            failed: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            disk: Arc::clone(&disk),
        });
        let scrubber = options
            .scrub
            .then(|| Arc::new(Scrubber::new(options.scrub_bytes_per_s)));
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            core,
            votes: HardState::new(journal, engine),
            meta,
            identity: IdentityFile::new(disk, dir.join(IDENTITY)),
            registry: Mutex::new(registry),
            threads: Mutex::new(threads),
            scrubber,
        })))
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Logs found on disk or opened since, in order.
    pub fn logs(&self) -> Vec<LogKey> {
        self.0.registry.lock().known.iter().copied().collect()
    }

    /// Opens a log, created if absent; recovers it. Opening an open log again gives the same log.
    ///
    /// [`StorageError::Damaged`] says that durable bytes are lost: set the log aside and build a
    /// new replica. A log that stopped after an error is refused until the process restarts.
    pub async fn open_log(&self, key: LogKey, options: LogOptions) -> Result<Log> {
        let core = &self.0.core;
        let failed = core.failed.lock().get(&key).cloned();
        if let Some(source) = failed {
            return Err(match &*source {
                StorageError::Damaged { .. } => (*source).clone(),
                _ => StorageError::Poisoned { key, source },
            });
        }
        let _busy = {
            let mut registry = self.0.registry.lock();
            if registry.set_aside.contains(&key) {
                return Err(StorageError::SetAside { key });
            }
            if let Some(log) = registry.open.get(&key).and_then(Weak::upgrade) {
                let log = Log(log);
                log.set_options(options);
                return Ok(log);
            }
            self.mark_busy(&mut registry, key)?
        };
        let shared = Arc::clone(core);
        let recover = move || LogInner::recover(shared, key, options);
        let recovered = core.blocking("recover", recover).await;
        let inner = recovered.inspect_err(|error| {
            if error.is_damage() {
                core.engine.metrics.damaged.increment(1);
            }
        })?;
        {
            let mut registry = self.0.registry.lock();
            let _ = registry.known.insert(key);
            let _ = registry.open.insert(key, Arc::downgrade(&inner));
        }
        if let Some(scrubber) = &self.0.scrubber {
            scrubber.add(&inner);
        }
        Ok(Log(inner))
    }

    /// Removes a log and its vote. Handles that are left get errors.
    pub async fn remove_log(&self, key: LogKey) -> Result<()> {
        let busy = self.take_out(key, "removed")?;
        let inner = Arc::clone(&self.0);
        let remove = move || {
            let dir = inner.core.log_dir(key);
            match inner.core.disk.remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).at("remove", &dir);
                }
                _ => {}
            }
            let logs_dir = &inner.core.logs_dir;
            inner.core.disk.sync_dir(logs_dir).at("sync", logs_dir)?;
            inner.core.progress.remove(key)
        };
        self.0.core.blocking("remove", remove).await?;
        drop(busy);
        // The vote goes last: as long as the log might come back, it must be remembered.
        self.0.votes.forget(key).await?;
        let _ = self.0.registry.lock().known.remove(&key);
        let _ = self.0.core.failed.lock().remove(&key);
        Ok(())
    }

    /// Moves a damaged log out of the way and says where to. Its key can never be opened again,
    /// because a replica that forgot what it promised could break the promise.
    pub async fn set_aside_log(&self, key: LogKey, why: &str) -> Result<PathBuf> {
        hit!("storage.set-aside");
        let _busy = self.take_out(key, "set aside")?;
        let inner = Arc::clone(&self.0);
        let target = self
            .0
            .dir
            .join(SET_ASIDE)
            .join(format!("{key}-{}", clock::wall_ms()));
        let why = why.to_owned();
        let path = target.clone();
        let move_it = move || {
            let (disk, core) = (&*inner.core.disk, &inner.core);
            let parent = inner.dir.join(SET_ASIDE);
            disk.create_dir_all(&parent).at("create", &parent)?;
            disk.sync_dir(&inner.dir).at("sync", &inner.dir)?;
            let dir = core.log_dir(key);
            match disk.rename(&dir, &path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Even its folder is lost; what is kept is that it was set aside.
                    disk.create_dir_all(&path).at("create", &path)?;
                }
                result => result.at("rename", &dir)?,
            }
            disk.sync_dir(&parent).at("sync", &parent)?;
            disk.sync_dir(&core.logs_dir).at("sync", &core.logs_dir)?;
            write_why(disk, &path, &why)?;
            core.progress.remove(key)
        };
        self.0.core.blocking("set aside", move_it).await?;
        let mut registry = self.0.registry.lock();
        let _ = registry.known.remove(&key);
        let _ = registry.set_aside.insert(key);
        drop(registry);
        let _ = self.0.core.failed.lock().remove(&key);
        Ok(target)
    }

    /// Votes of all replicas.
    pub fn votes(&self) -> &HardState {
        &self.0.votes
    }

    /// The metadata store; never used for votes.
    pub fn meta(&self) -> &MetaStore {
        &self.0.meta
    }

    /// Who this node is.
    pub fn identity(&self) -> &IdentityFile {
        &self.0.identity
    }

    /// Waits until logs have begun another segment since the last call, and says which.
    pub async fn rolled(&self) -> BTreeSet<LogKey> {
        self.0.core.rolled.take().await
    }

    /// Figures of this moment; also brings the gauges up to date.
    pub fn stats(&self) -> StorageStats {
        let core = &self.0.core;
        core.publish();
        let open: Vec<_> = {
            let registry = self.0.registry.lock();
            registry.open.values().filter_map(Weak::upgrade).collect()
        };
        let log_bytes = open.iter().map(|log| log.size_bytes()).sum();
        core.publish_log_bytes(log_bytes);
        StorageStats {
            log_bytes,
            fsyncs: core.engine.fsyncs.load(Ordering::Relaxed),
            cached_bytes: core.cache.bytes(),
            pending_bytes: core.pending_bytes.load(Ordering::Relaxed),
            disk_full: self.is_disk_full(),
            poisoned: core.failed.lock().keys().copied().collect(),
        }
    }

    /// Whether writes wait for space, or soon will: the free space is below the reserve, or a write
    /// met a full disk. Clears by itself.
    pub fn is_disk_full(&self) -> bool {
        self.0.core.space.is_full()
    }

    /// Waits until there is room for the metadata store. It takes a full disk for a broken one and
    /// refuses everything from then on, so it must not meet one.
    pub async fn wait_for_meta_room(&self) {
        let mut told = false;
        while !self.has_meta_room().await {
            if !std::mem::replace(&mut told, true) {
                hit!("storage.meta.waits");
                tracing::warn!("the disk is full: changes of metadata wait for room");
            }
            clock::sleep(META_ROOM_RETRY).await;
        }
    }

    async fn has_meta_room(&self) -> bool {
        if self.0.meta.has_room() {
            return true;
        }
        let inner = Arc::clone(&self.0);
        // Appends are refused while less than the reserve is free: that is left to the store.
        let some_free = |inner: &Inner| inner.core.space.free() >= META_ROOM_BYTES;
        if inner.core.disk.is_simulated() {
            return some_free(&inner);
        }
        let look = move || match inner.meta.room() {
            Room::Enough => true,
            Room::None => false,
            Room::Unknown => some_free(&inner),
        };
        self.0.core.blocking("meta-room", look).await
    }

    /// Writes and syncs what was appended, then stops the disk threads and gives up the lock.
    pub async fn shutdown(&self) {
        let open: Vec<_> = {
            let registry = self.0.registry.lock();
            registry
                .open
                .values()
                .filter_map(Weak::upgrade)
                .map(Log)
                .collect()
        };
        if let Some(scrubber) = &self.0.scrubber {
            scrubber.stop();
        }
        for log in &open {
            // On a full disk this would wait until there is room, perhaps for ever.
            if !self.is_disk_full()
                && let Err(error) = log.sync().await
            {
                tracing::debug!(log = %log.key(), %error, "a log is not synced at shutdown");
            }
        }
        let inner = Arc::clone(&self.0);
        let finish = move || {
            inner.core.engine.stop();
            for thread in std::mem::take(&mut *inner.threads.lock()) {
                if thread.join().is_err() {
                    tracing::error!("a disk thread panicked");
                }
            }
            for log in &open {
                log.0.save_last_progress();
            }
            let progress = inner.core.progress.sync();
            let flushed = progress.and(inner.meta.close());
            if let Err(error) = flushed {
                tracing::warn!(%error, "not everything was synced at shutdown");
            }
            drop(inner.core.lock.lock().take());
        };
        self.0.core.blocking("shutdown", finish).await;
    }

    /// Takes an open log out of use and keeps others from opening it.
    fn take_out(&self, key: LogKey, state: &'static str) -> Result<Busy> {
        let mut registry = self.0.registry.lock();
        let busy = self.mark_busy(&mut registry, key)?;
        let open = registry.open.remove(&key).and_then(|open| open.upgrade());
        drop(registry);
        if let Some(log) = open {
            log.retire(StorageError::Busy { key, state });
        }
        Ok(busy)
    }

    fn mark_busy(&self, registry: &mut Registry, key: LogKey) -> Result<Busy> {
        if !registry.busy.insert(key) {
            return Err(StorageError::Busy {
                key,
                state: "being opened or removed",
            });
        }
        Ok(Busy {
            inner: Arc::clone(&self.0),
            key,
        })
    }
}

/// While it lives, a log is not opened or removed by others.
struct Busy {
    inner: Arc<Inner>,
    key: LogKey,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.inner.registry.lock().busy.remove(&self.key);
    }
}

/// Takes the lock of a data directory.
pub(crate) fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DirLock>> {
    let path = dir.join(LOCK);
    match disk.lock(&path) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(StorageError::Locked {
            dir: dir.to_owned(),
        }),
        result => result.at("lock", &path),
    }
}

/// Checks the format of a data directory; says whether there is none yet.
pub(crate) fn check_format(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    let path = dir.join(FORMAT);
    Ok(file::read_small(disk, &path, FileKind::Root)?.is_none())
}

/// Logs that have a folder.
pub(crate) fn keys_in(disk: &dyn Disk, logs_dir: &Path) -> Result<BTreeSet<LogKey>> {
    let entries = disk.list(logs_dir).at("list", logs_dir)?;
    Ok(entries
        .iter()
        .filter(|e| e.is_dir)
        .filter_map(|e| e.name.parse().ok())
        .collect())
}

/// Logs that were set aside: their folders are named by key and time.
fn set_aside_in(disk: &dyn Disk, dir: &Path) -> Result<BTreeSet<LogKey>> {
    let entries = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        result => result.at("list", dir)?,
    };
    let key = |name: &str| name.rsplit_once('-').and_then(|(key, _)| key.parse().ok());
    Ok(entries
        .iter()
        .filter_map(|entry| key(&entry.name))
        .collect())
}

/// Leaves a note for people beside a log that was set aside.
fn write_why(disk: &dyn Disk, dir: &Path, why: &str) -> Result<()> {
    let path = dir.join("why.txt");
    let file = disk
        .open(&path, crate::disk::OpenMode::Create)
        .at("create", &path)?;
    let mut line = [io::IoSlice::new(why.as_bytes()), io::IoSlice::new(b"\n")];
    file.write_at(0, &mut line).at("write", &path)
}

/// Every log keeps a file open while it is written to.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = limit.current, "cannot raise the limit of open files");
    }
}
