//! The bytes of one simulated file: as written, and as a power loss would leave them.

use rand::{RngExt as _, rngs::SmallRng};

/// What a disk writes as one piece: a write may be torn between sectors.
pub(super) const SECTOR_BYTES: usize = 512;

/// One file.
#[derive(Debug, Default)]
pub(super) struct Inode {
    /// What reads see.
    data: Vec<u8>,
    /// What is certain to survive.
    durable: Vec<u8>,
    /// What leads from `durable` to `data`, in order.
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Inode {
    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    /// Bytes up to the last one that is not zero.
    pub(super) fn used(&self) -> usize {
        self.data.iter().rposition(|&b| b != 0).map_or(0, |p| p + 1)
    }

    pub(super) fn read(&self, position: usize, len: usize) -> Vec<u8> {
        let end = position.saturating_add(len).min(self.data.len());
        self.data.get(position..end).unwrap_or_default().to_vec()
    }

    pub(super) fn write(&mut self, position: usize, bytes: Vec<u8>) {
        put(&mut self.data, position, &bytes);
        self.unsynced.push(Change::Write(position, bytes));
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.data.resize(len, 0);
        self.unsynced.push(Change::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                Change::Write(position, bytes) => put(&mut self.durable, position, &bytes),
                Change::SetLen(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// Keeps what was synced, and of each later change nothing, all, or for a write some sectors. A sector
    /// is written as it is in memory: with what earlier writes left in it.
    pub(super) fn crash(&mut self, rng: &mut SmallRng) {
        // Often nothing reached the disk; otherwise each write fares on its own.
        let all_lost = rng.random_range(0..2) == 0;
        // The file as it was in memory after each change.
        let mut memory = self.durable.clone();
        for change in self.unsynced.drain(..) {
            if all_lost {
                continue;
            }
            let fate = rng.random_range(0..3);
            let (position, end) = match change {
                Change::SetLen(len) => {
                    memory.resize(len, 0);
                    if fate > 0 {
                        self.durable.resize(len, 0);
                    }
                    continue;
                }
                Change::Write(position, bytes) => {
                    put(&mut memory, position, &bytes);
                    (position, position + bytes.len())
                }
            };
            let first = position - position % SECTOR_BYTES;
            for sector in (first..end).step_by(SECTOR_BYTES) {
                if fate == 1 || (fate == 2 && rng.random_range(0..2) == 0) {
                    let to = (sector + SECTOR_BYTES).min(memory.len());
                    let bytes = memory.get(sector..to).unwrap_or_default();
                    put(&mut self.durable, sector, bytes);
                }
            }
        }
        self.data.clone_from(&self.durable);
    }

    /// Flips a bit for good.
    pub(super) fn flip(&mut self, position: usize, bit: u32) {
        for bytes in [&mut self.data, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(position) {
                *byte ^= 1 << bit;
            }
        }
    }
}

fn put(data: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    let end = position + bytes.len();
    if data.len() < end {
        data.resize(end, 0);
    }
    if let Some(slot) = data.get_mut(position..end) {
        slot.copy_from_slice(bytes);
    }
}
