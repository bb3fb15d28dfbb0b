//! The names of a disk: as they are, and as a power loss would leave them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
};

use rand::{RngExt as _, rngs::SmallRng};

use super::pages::Loss;

/// The number of a file or folder.
pub(super) type Ino = u64;

/// That of the outermost folder.
pub(super) const ROOT: Ino = 1;

/// Names of one folder.
type Folder = BTreeMap<OsString, Ino>;

/// One change.
#[derive(Debug, Clone)]
enum Change {
    Put(Ino, OsString, Ino),
    Remove(Ino, OsString),
    /// From one folder and name to another, in one step; replaces what was there.
    Move((Ino, OsString), (Ino, OsString), Ino),
}

impl Change {
    /// Whether it gives this one a name.
    fn names(&self, ino: Ino) -> bool {
        match self {
            Self::Put(_, _, named) | Self::Move(_, _, named) => *named == ino,
            Self::Remove(..) => false,
        }
    }

    /// The folder that has to be synced for it.
    const fn folder(&self) -> Ino {
        match self {
            Self::Put(folder, ..) | Self::Remove(folder, _) | Self::Move(_, (folder, _), _) => {
                *folder
            }
        }
    }
}

/// All names.
#[derive(Debug)]
pub(super) struct Names {
    now: BTreeMap<Ino, Folder>,
    /// What is certain to survive.
    durable: BTreeMap<Ino, Folder>,
    /// What leads from `durable` to `now`, in order.
    unsynced: Vec<Change>,
}

impl Default for Names {
    fn default() -> Self {
        let root = BTreeMap::from([(ROOT, Folder::new())]);
        Self {
            now: root.clone(),
            durable: root,
            unsynced: Vec::new(),
        }
    }
}

impl Names {
    pub(super) fn is_folder(&self, ino: Ino) -> bool {
        self.now.contains_key(&ino)
    }

    pub(super) fn get(&self, folder: Ino, name: &OsStr) -> Option<Ino> {
        self.now.get(&folder)?.get(name).copied()
    }

    pub(super) fn list(&self, folder: Ino) -> Option<&Folder> {
        self.now.get(&folder)
    }

    pub(super) fn put(&mut self, folder: Ino, name: &OsStr, ino: Ino, is_folder: bool) {
        if is_folder {
            let _new = self.now.insert(ino, Folder::new());
            let _new = self.durable.insert(ino, Folder::new());
        }
        self.change(Change::Put(folder, name.to_owned(), ino));
    }

    pub(super) fn remove(&mut self, folder: Ino, name: &OsStr) {
        self.change(Change::Remove(folder, name.to_owned()));
    }

    pub(super) fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr)) {
        if let Some(ino) = self.get(from.0, from.1) {
            let from = (from.0, from.1.to_owned());
            self.change(Change::Move(from, (to.0, to.1.to_owned()), ino));
        }
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.unsynced.push(change);
    }

    /// The changes of one folder survive.
    pub(super) fn sync(&mut self, folder: Ino) {
        let (synced, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|change| change.folder() == folder);
        self.unsynced = rest;
        for change in &synced {
            apply(&mut self.durable, change);
        }
    }

    /// The power fails: of the changes that were not synced some first ones survive, as in a journal.
    pub(super) fn crash(&mut self, loss: Loss, rng: &mut SmallRng) {
        let count = self.unsynced.len();
        let kept = match loss {
            Loss::All => 0,
            Loss::Nothing => count,
            Loss::Some => rng.random_range(0..=count),
        };
        for change in self.unsynced.drain(..).take(kept) {
            apply(&mut self.durable, &change);
        }
        // What no folder names is gone, with all in it.
        let reachable = self.reachable();
        self.durable.retain(|ino, _| reachable.contains(ino));
        self.now.clone_from(&self.durable);
    }

    fn reachable(&self) -> BTreeSet<Ino> {
        let mut reachable = BTreeSet::from([ROOT]);
        let mut next = vec![ROOT];
        while let Some(folder) = next.pop() {
            for &ino in self
                .durable
                .get(&folder)
                .into_iter()
                .flat_map(Folder::values)
            {
                if reachable.insert(ino) {
                    next.push(ino);
                }
            }
        }
        reachable
    }

    /// Whether a name stands for it, now or after a power loss: of changes that were not synced, the
    /// first ones may survive without those that undid them.
    pub(super) fn is_named(&self, ino: Ino) -> bool {
        let folders = self.now.values().chain(self.durable.values());
        let mut inos = folders.flat_map(Folder::values);
        let mut unsynced = self.unsynced.iter();
        inos.any(|&named| named == ino) || unsynced.any(|change| change.names(ino))
    }

    /// Every file or folder below one, with its path.
    pub(super) fn below(&self, folder: Ino, path: &str) -> Vec<(String, Ino)> {
        let mut found = Vec::new();
        for (name, &ino) in self.now.get(&folder).into_iter().flatten() {
            let path = format!("{path}/{}", name.to_string_lossy());
            found.extend(self.below(ino, &path));
            found.push((path, ino));
        }
        found
    }
}

fn apply(folders: &mut BTreeMap<Ino, Folder>, change: &Change) {
    match change {
        Change::Put(folder, name, ino) => {
            let names = folders.entry(*folder).or_default();
            let _before = names.insert(name.clone(), *ino);
        }
        Change::Remove(folder, name) => {
            let _ino = folders.entry(*folder).or_default().remove(name);
        }
        Change::Move(from, to, ino) => {
            let names = folders.entry(from.0).or_default();
            if names.get(&from.1) == Some(ino) {
                let _ino = names.remove(&from.1);
            }
            let names = folders.entry(to.0).or_default();
            let _before = names.insert(to.1.clone(), *ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn rng() -> SmallRng {
        SmallRng::seed_from_u64(5)
    }

    #[test]
    fn a_new_name_survives_once_its_folder_is_synced() {
        let mut names = Names::default();
        names.put(ROOT, name("synced"), 2, false);
        names.sync(ROOT);
        names.put(ROOT, name("lost"), 3, false);
        names.remove(ROOT, name("synced"));
        assert_eq!(names.get(ROOT, name("synced")), None);
        names.crash(Loss::All, &mut rng());
        assert_eq!(names.get(ROOT, name("synced")), Some(2));
        assert_eq!(names.get(ROOT, name("lost")), None);
        assert!(names.is_named(2) && !names.is_named(3));
    }

    #[test]
    fn what_was_removed_before_a_sync_may_come_back() {
        let mut names = Names::default();
        names.put(ROOT, name("short"), 2, false);
        names.remove(ROOT, name("short"));
        assert!(names.is_named(2));
        names.sync(ROOT);
        assert!(!names.is_named(2));
    }

    #[test]
    fn a_rename_is_one_step_and_belongs_to_its_target() {
        let mut names = Names::default();
        names.put(ROOT, name("from"), 2, true);
        names.put(ROOT, name("to"), 3, true);
        names.sync(ROOT);
        names.put(2, name("a"), 4, false);
        names.rename((2, name("a")), (3, name("b")));
        names.sync(2);
        names.crash(Loss::All, &mut rng());
        // Its creation was synced, the rename was not.
        assert_eq!(
            (names.get(2, name("a")), names.get(3, name("b"))),
            (Some(4), None)
        );
        names.rename((2, name("a")), (3, name("b")));
        names.sync(3);
        names.crash(Loss::All, &mut rng());
        assert_eq!(
            (names.get(2, name("a")), names.get(3, name("b"))),
            (None, Some(4))
        );
    }

    #[test]
    fn what_lies_in_a_folder_that_is_lost_is_lost() {
        let mut names = Names::default();
        names.put(ROOT, name("folder"), 2, true);
        names.put(2, name("file"), 3, false);
        names.sync(2);
        names.crash(Loss::All, &mut rng());
        assert!(!names.is_folder(2) && !names.is_named(3));
        assert_eq!(names.below(ROOT, ""), []);
    }
}
