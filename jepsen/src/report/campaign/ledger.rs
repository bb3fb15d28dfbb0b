//! The seeds of a campaign that are done, on disk: a line for each. A campaign that was stopped, or
//! killed while it wrote a line, goes on with the seeds that are missing.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::sim::fleet::Done;

/// What all seeds of a campaign have in common, so that they can be summed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Arguments that decide what a seed does.
    pub args: Vec<String>,
    /// Stands for the program that ran them.
    pub build: String,
}

impl Terms {
    /// For seeds that `program` runs with `args`.
    pub fn new(program: &Path, args: Vec<String>) -> anyhow::Result<Self> {
        let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
        Ok(Self {
            args,
            build: format!("{:08x}", crc32fast::hash(&bytes)),
        })
    }

    /// The name of the file with them.
    const FILE: &str = "terms.json";

    /// Begins a campaign in a folder, or goes on with it.
    ///
    /// # Errors
    /// If the folder holds one on other terms.
    pub fn agree(&self, dir: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        agree(&dir.join(Self::FILE), self)
    }
}

/// The file of seeds that are done.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    done: BTreeSet<u64>,
}

impl Ledger {
    /// The name of the file.
    pub const FILE: &str = "seeds.jsonl";

    /// Begins a campaign in a folder, or goes on with it; hands over the seeds that are done.
    pub fn open(dir: &Path, terms: &Terms, each: impl FnMut(Done)) -> anyhow::Result<Self> {
        terms.agree(dir)?;
        let path = dir.join(Self::FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = file.with_context(|| format!("open {}", path.display()))?;
        let (done, whole) = read(&path, &file, each)?;
        // The rest is a line that was cut short.
        let cut = file
            .set_len(whole)
            .and_then(|()| file.seek(SeekFrom::Start(whole)));
        let _end = cut.with_context(|| format!("cut {} after its last line", path.display()))?;
        Ok(Self { file, done })
    }

    /// Reads what a folder holds; hands over the seeds that are done.
    pub fn load(dir: &Path, each: impl FnMut(Done)) -> anyhow::Result<Terms> {
        let path = dir.join(Self::FILE);
        let file = OpenOptions::new().read(true).open(&path);
        let file = file.with_context(|| format!("read {}", path.display()))?;
        let _done = read(&path, &file, each)?;
        stored(&dir.join(Terms::FILE))?.with_context(|| {
            format!(
                "{} has no {}: it is no campaign",
                dir.display(),
                Terms::FILE
            )
        })
    }

    /// Whether a seed is done.
    pub fn has(&self, seed: u64) -> bool {
        self.done.contains(&seed)
    }

    /// Adds a seed.
    pub fn add(&mut self, done: &Done) -> io::Result<()> {
        let mut line = serde_json::to_vec(done)?;
        line.push(b'\n');
        let _new = self.done.insert(done.seed);
        self.file.write_all(&line)
    }
}

/// Stores the terms of a new campaign; refuses those that are not the terms of an old one.
fn agree(path: &PathBuf, terms: &Terms) -> anyhow::Result<()> {
    let Some(old) = stored(path)? else {
        let text = serde_json::to_string_pretty(terms)?;
        return fs::write(path, text).with_context(|| format!("write {}", path.display()));
    };
    if old.args != terms.args {
        bail!(
            "the campaign in this folder runs with `{}`, not with `{}`: give the same, or another --out",
            old.args.join(" "),
            terms.args.join(" ")
        );
    }
    if old.build != terms.build {
        bail!(
            "the campaign in this folder was begun by another build of this program (`{}`, this is `{}`), \
             and results of two builds do not add up: give another --out",
            old.build,
            terms.build
        );
    }
    Ok(())
}

fn stored(path: &PathBuf) -> anyhow::Result<Option<Terms>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let terms = serde_json::from_slice(&text);
    terms
        .with_context(|| format!("read {}", path.display()))
        .map(Some)
}

/// Reads all whole lines; says which seeds they are, and how many bytes.
fn read(
    path: &Path,
    file: &File,
    mut each: impl FnMut(Done),
) -> anyhow::Result<(BTreeSet<u64>, u64)> {
    let mut lines = BufReader::new(file);
    let (mut seeds, mut whole, mut number) = (BTreeSet::new(), 0, 0_u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        let bytes = lines.read_until(b'\n', &mut line);
        let bytes = bytes.with_context(|| format!("read {}", path.display()))?;
        if line.last() != Some(&b'\n') {
            return Ok((seeds, whole));
        }
        number += 1;
        let done: Done = serde_json::from_slice(&line).with_context(|| {
            format!(
                "{}:{number}: a seed that is done was expected",
                path.display()
            )
        })?;
        whole += u64::try_from(bytes).unwrap_or(u64::MAX);
        if seeds.insert(done.seed) {
            each(done);
        }
    }
}
