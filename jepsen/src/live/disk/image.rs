//! A disk: files and folders that a power loss takes back to what was synced.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::{
    names::{Ino, Names, ROOT},
    pages::{Loss, Pages},
};

/// Smallest file in which a bit flips.
const ROT_BYTES_MIN: u64 = 512;

/// A disk, whose bytes lie in files of one folder, each named by its number.
#[derive(Debug)]
pub(super) struct Image {
    store: PathBuf,
    pub(super) names: Names,
    files: BTreeMap<Ino, Pages>,
    opened: BTreeMap<Ino, u64>,
    next: Ino,
    rng: SmallRng,
    /// Bytes that all files may have together, where the disk is full.
    limit: Option<u64>,
}

impl Image {
    /// An empty disk. What a power loss takes follows from the seed.
    pub(super) fn new(store: &Path, seed: u64) -> Self {
        Self {
            store: store.to_owned(),
            names: Names::default(),
            files: BTreeMap::new(),
            opened: BTreeMap::new(),
            next: ROOT + 1,
            rng: SmallRng::seed_from_u64(seed),
            limit: None,
        }
    }

    fn path(&self, ino: Ino) -> PathBuf {
        self.store.join(ino.to_string())
    }

    pub(super) fn file(&self, ino: Ino) -> io::Result<&Pages> {
        self.files.get(&ino).ok_or_else(gone)
    }

    fn file_mut(&mut self, ino: Ino) -> io::Result<&mut Pages> {
        self.files.get_mut(&ino).ok_or_else(gone)
    }

    pub(super) fn create(&mut self, folder: Ino, name: &OsStr) -> io::Result<Ino> {
        let ino = self.number(folder, name)?;
        let pages = Pages::create(&self.path(ino))?;
        let _new = self.files.insert(ino, pages);
        self.names.put(folder, name, ino, false);
        Ok(ino)
    }

    pub(super) fn make_folder(&mut self, folder: Ino, name: &OsStr) -> io::Result<Ino> {
        let ino = self.number(folder, name)?;
        self.names.put(folder, name, ino, true);
        Ok(ino)
    }

    fn number(&mut self, folder: Ino, name: &OsStr) -> io::Result<Ino> {
        if !self.names.is_folder(folder) {
            return Err(gone());
        }
        if self.names.get(folder, name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if self.free_bytes() == Some(0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.next += 1;
        Ok(self.next)
    }

    /// Removes a file, or an empty folder.
    pub(super) fn remove(&mut self, folder: Ino, name: &OsStr, is_folder: bool) -> io::Result<()> {
        let ino = self.names.get(folder, name).ok_or_else(gone)?;
        match (is_folder, self.names.list(ino)) {
            (true, None) => return Err(io::ErrorKind::NotADirectory.into()),
            (false, Some(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            (true, Some(names)) if !names.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        self.names.remove(folder, name);
        self.forget(ino)
    }

    pub(super) fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr)) -> io::Result<()> {
        let ino = self.names.get(from.0, from.1).ok_or_else(gone)?;
        if !self.names.is_folder(to.0) {
            return Err(gone());
        }
        let replaced = self.names.get(to.0, to.1).filter(|&old| old != ino);
        if let Some(names) = replaced.and_then(|old| self.names.list(old))
            && !names.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.names.rename(from, to);
        replaced.map_or(Ok(()), |old| self.forget(old))
    }

    pub(super) fn open(&mut self, ino: Ino) {
        *self.opened.entry(ino).or_default() += 1;
    }

    pub(super) fn release(&mut self, ino: Ino) -> io::Result<()> {
        if let Some(count) = self.opened.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                let _none = self.opened.remove(&ino);
            }
        }
        self.forget(ino)
    }

    /// Drops the bytes of a file that nobody can ever see again.
    fn forget(&mut self, ino: Ino) -> io::Result<()> {
        let unseen = !self.opened.contains_key(&ino) && !self.names.is_named(ino);
        if unseen && self.files.remove(&ino).is_some() {
            std::fs::remove_file(self.path(ino))?;
        }
        Ok(())
    }

    pub(super) fn write(&mut self, ino: Ino, position: u64, data: &[u8]) -> io::Result<()> {
        let end = position + u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.expect_room(ino, end)?;
        self.file_mut(ino)?.write(position, data)
    }

    pub(super) fn set_len(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        self.expect_room(ino, len)?;
        self.file_mut(ino)?.set_len(len)
    }

    /// Sets space aside for a file, which keeps its length.
    pub(super) fn reserve(&mut self, ino: Ino, end: u64) -> io::Result<()> {
        self.expect_room(ino, end)?;
        self.file_mut(ino)?.reserve(end);
        Ok(())
    }

    /// Refuses what makes a file take more than there is room for.
    fn expect_room(&self, ino: Ino, end: u64) -> io::Result<()> {
        let more = end.saturating_sub(self.file(ino)?.taken());
        match self.free_bytes() {
            Some(free) if more > free => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// There is room for so many bytes from now on, or for any.
    pub(super) fn set_room(&mut self, room_bytes: Option<u64>) {
        self.limit = room_bytes.map(|bytes| self.used_bytes() + bytes);
    }

    /// What is free on a full disk.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        Some(self.limit?.saturating_sub(self.used_bytes()))
    }

    /// What a file or a folder is now survives.
    pub(super) fn sync(&mut self, ino: Ino) -> io::Result<()> {
        if self.names.is_folder(ino) {
            self.names.sync(ino);
            // Names that are gone for good may have been the last ones of their files.
            return self.sweep();
        }
        self.file_mut(ino)?.sync();
        Ok(())
    }

    /// Bytes that all files take.
    pub(super) fn used_bytes(&self) -> u64 {
        self.files.values().map(Pages::taken).sum()
    }

    /// The power fails; whoever used the disk must be gone.
    pub(super) fn crash(&mut self) -> io::Result<String> {
        let loss = match self.rng.random_range(0..4) {
            0 => Loss::All,
            1 => Loss::Nothing,
            _ => Loss::Some,
        };
        let mut dirty = 0;
        for file in self.files.values_mut() {
            dirty += usize::from(!file.is_clean());
            file.crash(loss, &mut self.rng)?;
        }
        self.names.crash(loss, &mut self.rng);
        self.opened.clear();
        self.sweep()?;
        Ok(format!("{dirty} files were not synced, {loss:?} is lost"))
    }

    fn sweep(&mut self) -> io::Result<()> {
        let files: Vec<Ino> = self.files.keys().copied().collect();
        files.into_iter().try_for_each(|ino| self.forget(ino))
    }

    /// Flips bits in logs of partitions that are at rest. Of votes and metadata there is no copy to
    /// rebuild them from: a node whose own are damaged is replaced, not repaired.
    pub(super) fn rot(&mut self, flips: u32) -> io::Result<String> {
        let files = self.names.below(ROOT, "");
        let of_partition = |(path, ino): &(String, Ino)| {
            let pages = self.files.get(ino);
            is_partition_log(path) && pages.is_some_and(|pages| pages.len() >= ROT_BYTES_MIN)
        };
        let files: Vec<_> = files.into_iter().filter(of_partition).collect();
        let mut places = Vec::new();
        for _ in 0..flips {
            let at = self.rng.random_range(0..files.len().max(1));
            if let Some((path, ino)) = files.get(at)
                && let Some(pages) = self.files.get_mut(ino)
            {
                places.push(format!("{path}@{}", pages.flip(&mut self.rng)?));
            }
        }
        Ok(places.join(" "))
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// Whether a path is that of a segment of a partition's log: `/logs/g7-r9/....seg`.
fn is_partition_log(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let (file, folder) = (parts.next(), parts.next());
    let of_partition = folder.is_some_and(|f| f.starts_with('g') && !f.starts_with("g0-"));
    of_partition && file.is_some_and(|file| file.ends_with(".seg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn a_file_needs_two_syncs_to_survive() {
        let store = tempfile::tempdir().unwrap();
        let mut image = Image::new(store.path(), 1);
        let (a, b) = (
            image.create(ROOT, name("a")).unwrap(),
            image.create(ROOT, name("b")).unwrap(),
        );
        image.write(a, 0, b"bytes").unwrap();
        image.write(b, 0, b"bytes").unwrap();
        image.sync(b).unwrap();
        image.sync(ROOT).unwrap();
        let c = image.create(ROOT, name("c")).unwrap();
        image.write(c, 0, b"bytes").unwrap();
        image.sync(c).unwrap();
        // Until a power loss takes all that it may.
        for _ in 0..100 {
            let _what = image.crash().unwrap();
        }
        assert_eq!(image.file(b).unwrap().read(0, 9).unwrap(), b"bytes");
        assert!(image.names.get(ROOT, name("a")).is_some());
    }

    #[test]
    fn bytes_stay_while_a_name_may_come_back_or_somebody_reads() {
        let store = tempfile::tempdir().unwrap();
        let count = || std::fs::read_dir(store.path()).unwrap().count();
        let mut image = Image::new(store.path(), 1);
        let ino = image.create(ROOT, name("a")).unwrap();
        image.sync(ROOT).unwrap();
        image.open(ino);
        image.remove(ROOT, name("a"), false).unwrap();
        assert_eq!(count(), 1);
        image.sync(ROOT).unwrap();
        assert_eq!(count(), 1);
        image.release(ino).unwrap();
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_full_disk_takes_what_needs_no_room() {
        let store = tempfile::tempdir().unwrap();
        let mut image = Image::new(store.path(), 1);
        let ino = image.create(ROOT, name("a")).unwrap();
        image.write(ino, 0, &[1; 100]).unwrap();
        image.set_room(Some(1_000));
        image.set_len(ino, 1_100).unwrap();
        image.write(ino, 0, &[2; 100]).unwrap();
        let full = io::ErrorKind::StorageFull;
        let behind = image.write(ino, 1_100, &[3]).unwrap_err();
        assert_eq!(behind.kind(), full);
        assert_eq!(image.create(ROOT, name("b")).unwrap_err().kind(), full);
        image.rename((ROOT, name("a")), (ROOT, name("c"))).unwrap();
        image.remove(ROOT, name("c"), false).unwrap();
    }

    #[test]
    fn space_that_was_set_aside_is_there_when_the_disk_is_full() {
        let store = tempfile::tempdir().unwrap();
        let mut image = Image::new(store.path(), 1);
        let ino = image.create(ROOT, name("a")).unwrap();
        image.write(ino, 0, &[1; 100]).unwrap();
        image.reserve(ino, 300).unwrap();
        assert_eq!(
            (image.file(ino).unwrap().len(), image.used_bytes()),
            (100, 300)
        );
        image.set_room(Some(0));
        assert!(image.reserve(ino, 301).is_err());
        image.write(ino, 100, &[2; 200]).unwrap();
        assert!(image.write(ino, 300, &[3]).is_err());
        image.set_len(ino, 50).unwrap();
        assert_eq!(image.free_bytes(), Some(250), "a cut gives it back");
    }

    #[test]
    fn only_logs_of_partitions_rot() {
        let store = tempfile::tempdir().unwrap();
        let mut image = Image::new(store.path(), 1);
        let logs = image.make_folder(ROOT, name("logs")).unwrap();
        let mut files = Vec::new();
        for folder in ["g0-r1", "g4-r5"] {
            let folder = image.make_folder(logs, name(folder)).unwrap();
            let ino = image.create(folder, name("0.seg")).unwrap();
            image.write(ino, 0, &[0; 1_000]).unwrap();
            files.push(ino);
        }
        assert!(image.rot(3).unwrap().contains("/logs/g4-r5/0.seg@"));
        let sum = |ino| {
            image
                .file(ino)
                .unwrap()
                .read(0, 1_000)
                .unwrap()
                .iter()
                .map(|b| u64::from(*b))
                .sum::<u64>()
        };
        assert_eq!(sum(files[0]), 0);
        assert_ne!(sum(files[1]), 0);
    }
}
