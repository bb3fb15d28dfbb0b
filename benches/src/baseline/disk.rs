//! Sequential write and fdatasync, the way a log is written.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use serde::Serialize;
use seriatim_runtime::clock;

use crate::{latency::Latency, report::float};

/// How long each kind of file is written.
const LENGTH: Duration = Duration::from_millis(500);
/// Where a growing file ends if it is not the time that ends first.
const GROWING_BYTES_MAX: u64 = 512 << 20;
/// Size of the file whose blocks are there before.
const PRE_WRITTEN_BYTES: u64 = 64 << 20;

/// Magic number of Linux's file system in memory.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// One kind of file.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Disk {
    /// `growing`, or `pre-written`: its blocks were written before.
    pub(super) file: &'static str,
    /// Bytes of each write.
    pub(super) write_bytes: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) mb_per_s: f64,
}

/// Whether files in `dir` are in memory, so that a sync does nothing.
pub(super) fn is_memory(dir: &Path) -> io::Result<bool> {
    let found = rustix::fs::statfs(dir)?;
    Ok(found.f_type == TMPFS)
}

/// Writes files in `dir`, which are gone afterwards.
pub(super) fn measure(dir: &Path, write_bytes: usize) -> io::Result<[Disk; 2]> {
    let mut data = vec![0; write_bytes];
    SmallRng::seed_from_u64(3).fill_bytes(&mut data);
    let growing = tempfile::tempfile_in(dir)?;
    let growing = write("growing", &growing, &data, GROWING_BYTES_MAX)?;
    let file = tempfile::tempfile_in(dir)?;
    let piece = vec![1; 1 << 20];
    let mut at = 0;
    while at < PRE_WRITTEN_BYTES {
        file.write_all_at(&piece, at)?;
        at += 1 << 20;
    }
    file.sync_all()?;
    let pre_written = write("pre-written", &file, &data, PRE_WRITTEN_BYTES)?;
    Ok([growing, pre_written])
}

/// Writes from the start of the file to `end`, again and again until the time is over; a file that
/// grows is written once.
fn write(kind: &'static str, file: &File, data: &[u8], end: u64) -> io::Result<Disk> {
    let write_bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
    let mut latency = Latency::default();
    let (mut at, mut bytes) = (0, 0);
    let began = clock::now();
    while began.elapsed() < LENGTH {
        if at + write_bytes > end.max(write_bytes) {
            if kind == "growing" {
                break;
            }
            at = 0;
        }
        let before = clock::now();
        file.write_all_at(data, at)?;
        file.sync_data()?;
        latency.record(before.elapsed());
        at += write_bytes;
        bytes += write_bytes;
    }
    Ok(Disk {
        file: kind,
        write_bytes,
        p50_us: latency.quantile_us(0.5).unwrap_or_default(),
        p99_us: latency.quantile_us(0.99).unwrap_or_default(),
        mb_per_s: float(bytes) / 1e6 / began.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_file_are_measured() {
        let dir = tempfile::tempdir().unwrap();
        let disks = measure(dir.path(), 4096).unwrap();
        for (disk, file) in disks.iter().zip(["growing", "pre-written"]) {
            assert_eq!((disk.file, disk.write_bytes), (file, 4096));
            assert!(disk.p50_us > 0 && disk.p50_us <= disk.p99_us, "{disk:?}");
            assert!(disk.mb_per_s > 0.0, "{disk:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
