//! The bytes of one file: as they are, and what a power loss would take back.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use rand::{RngExt as _, rngs::SmallRng};

/// Bytes of which it is remembered together what they were before.
const PAGE_BYTES: u64 = 4096;
/// A page is torn at multiples of this only: a disk writes a sector whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Unsynced bytes of a file above which they are written, as a kernel would in its own time.
const DIRTY_BYTES_MAX: u64 = 64 << 20;

/// How much of what was not synced a power loss takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Everything.
    All,
    /// Nothing: the disk had written it in its own time.
    Nothing,
    /// Of each page by chance: all of it, a part, or nothing.
    Some,
}

/// A file.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    len: u64,
    /// Where the space that was set aside for it ends, if that is behind its end.
    reserved: u64,
    /// What is certain to survive: this length, and all bytes but those of `before`.
    durable_len: u64,
    /// Of each page that was written since the last sync, what it was at that sync. Bytes that lay
    /// behind the durable end are missing.
    before: BTreeMap<u64, Vec<u8>>,
}

impl Pages {
    /// An empty file.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true);
        Ok(Self {
            file: options.open(path)?,
            len: 0,
            reserved: 0,
            durable_len: 0,
            before: BTreeMap::new(),
        })
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of the disk that it takes.
    pub(super) fn taken(&self) -> u64 {
        self.len.max(self.reserved)
    }

    /// Sets space aside for it.
    pub(super) fn reserve(&mut self, end: u64) {
        self.reserved = self.reserved.max(end);
    }

    /// Whether nothing would be lost now.
    pub(super) fn is_clean(&self) -> bool {
        self.before.is_empty() && self.len == self.durable_len
    }

    pub(super) fn read(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let rest = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; len.min(rest)];
        self.file.read_exact_at(&mut buffer, position)?;
        Ok(buffer)
    }

    pub(super) fn write(&mut self, position: u64, data: &[u8]) -> io::Result<()> {
        let end = position + bytes(data.len());
        self.remember(position, end)?;
        self.file.write_all_at(data, position)?;
        self.len = self.len.max(end);
        if bytes(self.before.len()) * PAGE_BYTES > DIRTY_BYTES_MAX {
            self.sync();
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            self.remember(len, self.len)?;
            // What is behind the end goes too.
            self.reserved = len;
        }
        self.file.set_len(len)?;
        self.len = len;
        Ok(())
    }

    /// Everything so far survives.
    pub(super) fn sync(&mut self) {
        self.before.clear();
        self.durable_len = self.len;
    }

    /// Keeps what the pages of a range were at the last sync.
    fn remember(&mut self, from: u64, to: u64) -> io::Result<()> {
        for page in from / PAGE_BYTES..to.div_ceil(PAGE_BYTES) {
            if self.before.contains_key(&page) {
                continue;
            }
            let start = page * PAGE_BYTES;
            let end = (start + PAGE_BYTES).min(self.durable_len).min(self.len);
            let was = self.read(
                start,
                usize::try_from(end.saturating_sub(start)).unwrap_or(0),
            )?;
            let _none = self.before.insert(page, was);
        }
        Ok(())
    }

    /// The power fails.
    pub(super) fn crash(&mut self, loss: Loss, rng: &mut SmallRng) -> io::Result<()> {
        let keeps_len = match loss {
            Loss::All => false,
            Loss::Nothing => true,
            Loss::Some => rng.random_range(0..2) == 0,
        };
        let len = if keeps_len {
            self.len
        } else {
            self.durable_len
        };
        self.file.set_len(self.len.max(self.durable_len))?;
        for (page, mut was) in std::mem::take(&mut self.before) {
            was.resize(usize::try_from(PAGE_BYTES).unwrap_or(0), 0);
            let sectors = was.len() / SECTOR_BYTES;
            let kept = match loss {
                Loss::All => 0,
                Loss::Nothing => sectors,
                Loss::Some => match rng.random_range(0..3) {
                    0 => 0,
                    1 => sectors,
                    _ => rng.random_range(0..=sectors),
                },
            };
            let lost = was.get(kept * SECTOR_BYTES..).unwrap_or_default();
            let position = page * PAGE_BYTES + bytes(kept * SECTOR_BYTES);
            self.file.write_all_at(lost, position)?;
        }
        self.file.set_len(len)?;
        self.len = len;
        self.durable_len = len;
        Ok(())
    }

    /// Flips one bit, on the disk itself.
    pub(super) fn flip(&mut self, rng: &mut SmallRng) -> io::Result<u64> {
        let position = rng.random_range(0..self.len.max(1));
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, position)?;
        let flipped = byte.map(|byte| byte ^ (1 << rng.random_range(0..8)));
        self.file.write_all_at(&flipped, position)?;
        Ok(position)
    }
}

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn file() -> (tempfile::TempDir, Pages) {
        let folder = tempfile::tempdir().unwrap();
        let pages = Pages::create(&folder.path().join("f")).unwrap();
        (folder, pages)
    }

    fn all(pages: &Pages) -> Vec<u8> {
        pages.read(0, usize::MAX / 2).unwrap()
    }

    #[test]
    fn what_is_synced_stays_and_the_rest_goes() {
        let mut rng = SmallRng::seed_from_u64(1);
        let (_folder, mut pages) = file();
        pages.write(0, &[1; 10_000]).unwrap();
        assert!(!pages.is_clean());
        pages.sync();
        pages.write(4_000, &[2; 200]).unwrap();
        pages.write(4_100, &[3; 8_000]).unwrap();
        pages.set_len(5_000).unwrap();
        pages.crash(Loss::All, &mut rng).unwrap();
        assert_eq!(all(&pages), [1; 10_000]);
        assert!(pages.is_clean());

        pages.write(9_000, &[4; 3_000]).unwrap();
        pages.crash(Loss::Nothing, &mut rng).unwrap();
        let now = all(&pages);
        assert_eq!((now.len(), now[8_999], now[9_000]), (12_000, 1, 4));
    }

    #[test]
    fn by_chance_each_sector_is_old_or_new() {
        let mut kept_and_lost = [0, 0];
        for seed in 0..50 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (_folder, mut pages) = file();
            pages.write(0, &[1; 8_192]).unwrap();
            pages.sync();
            pages.write(0, &[2; 12_288]).unwrap();
            pages.crash(Loss::Some, &mut rng).unwrap();
            let now = all(&pages);
            assert!(now.len() == 8_192 || now.len() == 12_288);
            for (at, sector) in now.chunks(512).enumerate() {
                let first = sector[0];
                assert!(sector.iter().all(|&byte| byte == first));
                // What was never durable is zero if it is lost.
                let old = if at < 16 { 1 } else { 0 };
                assert!(first == 2 || first == old, "sector {at}: {first}");
                kept_and_lost[usize::from(first == 2)] += 1;
            }
        }
        assert!(
            kept_and_lost.iter().all(|&count| count > 100),
            "{kept_and_lost:?}"
        );
    }

    #[test]
    fn a_file_that_is_cut_and_grows_again_comes_back_whole() {
        let mut rng = SmallRng::seed_from_u64(1);
        let (_folder, mut pages) = file();
        pages.write(0, &[1; 9_000]).unwrap();
        pages.sync();
        pages.set_len(100).unwrap();
        pages.write(8_500, &[2; 10]).unwrap();
        assert_eq!(all(&pages)[200], 0);
        pages.crash(Loss::All, &mut rng).unwrap();
        assert_eq!(all(&pages), [1; 9_000]);
    }

    #[test]
    fn one_bit_flips() {
        let (_folder, mut pages) = file();
        pages.write(0, &[0; 1_000]).unwrap();
        let at = pages.flip(&mut SmallRng::seed_from_u64(3)).unwrap();
        let ones: u32 = all(&pages).iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(ones, 1);
        assert_ne!(all(&pages)[usize::try_from(at).unwrap()], 0);
    }
}
