//! The names of a simulated disk: as they are, and as a power loss would leave them.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use rand::{RngExt as _, rngs::SmallRng};

use crate::disk::DirEntry;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(usize),
}

/// One change of a folder.
#[derive(Debug, Clone)]
pub(super) enum NameOp {
    Put(PathBuf, Node),
    /// With everything below it.
    Remove(PathBuf),
    /// Replaces what was there.
    Rename(PathBuf, PathBuf),
}

impl NameOp {
    /// Whether the change is one of `dir`'s.
    fn touches(&self, dir: &Path) -> bool {
        let (Self::Put(path, _) | Self::Remove(path) | Self::Rename(_, path)) = self;
        path.parent() == Some(dir)
    }
}

type Map = BTreeMap<PathBuf, Node>;

#[derive(Debug, Default)]
pub(super) struct Names {
    now: Map,
    /// What is certain to survive.
    durable: Map,
    /// What leads from `durable` to `now`, in order.
    unsynced: Vec<NameOp>,
}

impl Names {
    /// What `path` stands for. The root always exists.
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        match path.file_name() {
            None => Some(Node::Dir),
            Some(_) => self.now.get(path).copied(),
        }
    }

    pub(super) fn expect_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent().map(|parent| self.get(parent)) {
            None | Some(Some(Node::Dir)) => Ok(()),
            Some(Some(Node::File(_))) => Err(io::ErrorKind::NotADirectory.into()),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn list(&self, dir: &Path) -> Vec<DirEntry> {
        let children = self.now.iter().filter(|(p, _)| p.parent() == Some(dir));
        let entry = |(path, node): (&PathBuf, &Node)| {
            let name = path.file_name()?.to_str()?.to_owned();
            let is_dir = *node == Node::Dir;
            Some(DirEntry { name, is_dir })
        };
        let mut entries: Vec<DirEntry> = children.filter_map(entry).collect();
        entries.sort();
        entries
    }

    pub(super) fn files(&self) -> Vec<(PathBuf, usize)> {
        let file = |(path, node): (&PathBuf, &Node)| match node {
            Node::File(inode) => Some((path.clone(), *inode)),
            Node::Dir => None,
        };
        self.now.iter().filter_map(file).collect()
    }

    pub(super) fn change(&mut self, op: NameOp) {
        apply(&mut self.now, &op);
        self.unsynced.push(op);
    }

    /// Makes the changes of one folder durable.
    pub(super) fn sync(&mut self, dir: &Path) {
        let (synced, rest) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|op| op.touches(dir));
        self.unsynced = rest;
        let synced: Vec<NameOp> = synced;
        for op in &synced {
            apply(&mut self.durable, op);
        }
    }

    /// Of the changes that were not synced some first ones happened, as in a journal.
    pub(super) fn crash(&mut self, rng: &mut SmallRng) {
        let kept = rng.random_range(0..=self.unsynced.len());
        for op in self.unsynced.drain(..).take(kept) {
            apply(&mut self.durable, &op);
        }
        // A name whose folder was lost is lost with it.
        let all = self.durable.clone();
        let whole = |path: &Path| {
            let mut above = path.ancestors().skip(1).filter(|p| p.file_name().is_some());
            above.all(|dir| all.get(dir) == Some(&Node::Dir))
        };
        self.durable.retain(|path, _| whole(path));
        self.now.clone_from(&self.durable);
    }
}

fn apply(names: &mut Map, op: &NameOp) {
    match op {
        NameOp::Put(path, node) => {
            let _old = names.insert(path.clone(), *node);
        }
        NameOp::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
        NameOp::Rename(from, to) => {
            let moved: Vec<(PathBuf, Node)> = names
                .iter()
                .filter_map(|(name, node)| {
                    let below = name.strip_prefix(from).ok()?;
                    let name = if below.as_os_str().is_empty() {
                        to.clone()
                    } else {
                        to.join(below)
                    };
                    Some((name, *node))
                })
                .collect();
            if moved.is_empty() {
                // Its creation was synced with another folder and is not durable yet.
                return;
            }
            names.retain(|name, _| !name.starts_with(from) && !name.starts_with(to));
            names.extend(moved);
        }
    }
}
