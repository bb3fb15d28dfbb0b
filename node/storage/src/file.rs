//! What every file begins with, and small files that are replaced as a whole.
//!
//! ```text
//! offset size field
//!      0    8 magic "SERIATIM"
//!      8    2 format version = 1
//!     10    2 kind of file
//!     12    4 CRC-32           (over 0..12 and the extra fields)
//!     16      extra fields, of a length fixed by the kind
//! ```
//! A small file has as extra fields its body's length (8 bytes) and CRC-32 (4 bytes), and then the
//! body. Integers are big-endian.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    Result, StorageError,
    bin::{Reader, len_usize, len64},
    disk::{Disk, OpenMode},
    error::IoContext,
};

/// The one version of all formats so far.
pub(crate) const VERSION: u16 = 1;

/// Bytes before the extra fields.
pub(crate) const PREFIX_BYTES: usize = 16;

/// Largest small file.
const SMALL_FILE_BYTES_MAX: usize = 1 << 30;

const MAGIC: &[u8; 8] = b"SERIATIM";
const SMALL_EXTRA_BYTES: usize = 12;
const TEMPORARY: &str = ".tmp";

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum FileKind {
    /// The data directory itself: its format.
    Root = 1,
    /// A segment of a log.
    Segment = 2,
    /// The journal of votes.
    Votes = 3,
    /// How far the logs are flushed and committed.
    Progress = 4,
    /// Node and cluster.
    Identity = 5,
    /// A state machine's checkpoint.
    Checkpoint = 6,
    /// A log's boundary.
    Boundary = 7,
    /// Where a log begins.
    Start = 8,
    /// The metadata store of a simulated disk.
    Meta = 9,
    /// Where the scan of an active segment may begin.
    Resume = 10,
}

/// The beginning of a file.
pub(crate) fn encode_header(kind: FileKind, extra: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX_BYTES + extra.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&(kind as u16).to_be_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&out);
    hasher.update(extra);
    out.extend_from_slice(&hasher.finalize().to_be_bytes());
    out.extend_from_slice(extra);
    out
}

/// Checks the beginning of a file and returns its extra fields.
pub(crate) fn parse_header<'a>(
    path: &Path,
    bytes: &'a [u8],
    kind: FileKind,
    extra_bytes: usize,
) -> Result<&'a [u8]> {
    let short = || StorageError::damaged(path, 0, "the file is shorter than its header");
    let mut reader = Reader(bytes);
    let magic = reader.take(MAGIC.len()).ok_or_else(short)?;
    let version = reader.u16().ok_or_else(short)?;
    let found_kind = reader.u16().ok_or_else(short)?;
    let stored = reader.u32().ok_or_else(short)?;
    let extra = reader.take(extra_bytes).ok_or_else(short)?;
    if magic != MAGIC {
        return Err(StorageError::damaged(
            path,
            0,
            "the file has no Seriatim header",
        ));
    }
    // Of a header with this version's number.
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(magic);
    hasher.update(&VERSION.to_be_bytes());
    hasher.update(&found_kind.to_be_bytes());
    hasher.update(extra);
    let matches = hasher.finalize() == stored;
    // A newer version may have another layout behind its number, so the version goes first. But one whose
    // CRC matches with our number in its place was written by us and damaged since.
    if version != VERSION && !matches {
        return Err(StorageError::Version {
            file: path.to_owned(),
            found: version,
            supported: VERSION,
        });
    }
    if version != VERSION || !matches {
        return Err(StorageError::damaged(
            path,
            0,
            "the CRC of the file's header does not match",
        ));
    }
    if found_kind != kind as u16 {
        let what = format!("the file is of kind {found_kind}, not {}", kind as u16);
        return Err(StorageError::damaged(path, 0, what));
    }
    Ok(extra)
}

/// Whether a name is that of a small file that was not finished.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY)
}

/// Reads a small file; `None` if there is none.
pub(crate) fn read_small(disk: &dyn Disk, path: &Path, kind: FileKind) -> Result<Option<Bytes>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("open", path),
    };
    let len = file.len().at("read the length of", path)?;
    let bytes = file
        .read_at(0, len_usize(len).min(SMALL_FILE_BYTES_MAX))
        .at("read", path)?;
    let extra = parse_header(path, &bytes, kind, SMALL_EXTRA_BYTES)?;
    let mut reader = Reader(extra);
    let (Some(body_len), Some(crc)) = (reader.u64(), reader.u32()) else {
        return Err(StorageError::damaged(
            path,
            0,
            "the file is shorter than its header",
        ));
    };
    let start = PREFIX_BYTES + SMALL_EXTRA_BYTES;
    let body = Bytes::from(bytes).split_off(start);
    if len64(body.len()) != body_len {
        let what = format!("{} bytes follow the header, not {body_len}", body.len());
        return Err(StorageError::damaged(path, len64(start), what));
    }
    if crc32fast::hash(&body) != crc {
        return Err(StorageError::damaged(
            path,
            len64(start),
            "the file's CRC does not match",
        ));
    }
    Ok(Some(body))
}

/// Replaces a small file in one step; durable on return.
pub(crate) fn write_small(
    disk: &dyn Disk,
    path: &Path,
    kind: FileKind,
    parts: &[&[u8]],
) -> Result<()> {
    let temporary = write_temporary(disk, path, kind, parts)?;
    let file = disk
        .open(&temporary, OpenMode::Write)
        .at("open", &temporary)?;
    file.sync().at("sync", &temporary)?;
    disk.rename(&temporary, path).at("rename", &temporary)?;
    match path.parent() {
        Some(dir) => disk.sync_dir(dir).at("sync", dir),
        None => Ok(()),
    }
}

/// Replaces a small file that is only a hint: after a power loss there may be the old one, or a
/// damaged one.
pub(crate) fn write_hint(
    disk: &dyn Disk,
    path: &Path,
    kind: FileKind,
    parts: &[&[u8]],
) -> Result<()> {
    let temporary = write_temporary(disk, path, kind, parts)?;
    disk.rename(&temporary, path).at("rename", &temporary)
}

/// Writes a small file under the name that it has until it is whole.
fn write_temporary(
    disk: &dyn Disk,
    path: &Path,
    kind: FileKind,
    parts: &[&[u8]],
) -> Result<PathBuf> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    if len > SMALL_FILE_BYTES_MAX {
        return Err(StorageError::TooLarge {
            what: "a small file",
            bytes: len,
            limit: SMALL_FILE_BYTES_MAX,
        });
    }
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut extra = len64(len).to_be_bytes().to_vec();
    extra.extend_from_slice(&hasher.finalize().to_be_bytes());
    let header = encode_header(kind, &extra);
    let mut slices = vec![IoSlice::new(&header)];
    slices.extend(parts.iter().map(|part| IoSlice::new(part)));
    let temporary = temporary_of(path);
    let file = disk
        .open(&temporary, OpenMode::Create)
        .at("create", &temporary)?;
    file.set_len(0).at("empty", &temporary)?;
    file.write_at(0, &mut slices).at("write", &temporary)?;
    Ok(temporary)
}

fn temporary_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::PosixDisk;

    #[test]
    fn every_flipped_bit_of_a_small_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        assert_eq!(
            read_small(&PosixDisk, &path, FileKind::Identity).unwrap(),
            None
        );
        write_small(&PosixDisk, &path, FileKind::Identity, &[b"first ", b"body"]).unwrap();
        let body = read_small(&PosixDisk, &path, FileKind::Identity).unwrap();
        assert_eq!(body.as_deref(), Some(&b"first body"[..]));
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                std::fs::write(&path, &bad).unwrap();
                let error = read_small(&PosixDisk, &path, FileKind::Identity).unwrap_err();
                // Also of the version: else a replica would wait for other software instead of being
                // replaced (simulator seeds 3982 and 4570).
                assert!(error.is_damage(), "{error}");
            }
        }
        for len in 0..good.len() {
            std::fs::write(&path, &good[..len]).unwrap();
            assert!(
                read_small(&PosixDisk, &path, FileKind::Identity)
                    .unwrap_err()
                    .is_damage()
            );
        }
    }

    #[test]
    fn a_newer_version_is_no_damage() {
        let path = Path::new("newer");
        let mut header = encode_header(FileKind::Votes, &[]);
        header[8..10].copy_from_slice(&2_u16.to_be_bytes());
        let crc = crc32fast::hash(&header[..12]);
        header[12..].copy_from_slice(&crc.to_be_bytes());
        let error = parse_header(path, &header, FileKind::Votes, 0).unwrap_err();
        assert!(
            matches!(error, StorageError::Version { found: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn golden_small_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        write_small(&PosixDisk, &path, FileKind::Identity, &[b"first ", b"body"]).unwrap();
        crate::golden::check("small_file.bin", &std::fs::read(&path).unwrap());
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        write_small(&PosixDisk, &path, FileKind::Identity, &[b"x"]).unwrap();
        assert!(
            read_small(&PosixDisk, &path, FileKind::Boundary)
                .unwrap_err()
                .is_damage()
        );
    }
}
