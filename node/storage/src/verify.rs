//! Offline verification of a data directory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use seriatim_proto::ids::Offset;

use crate::{
    FrameHeader, LogKey, Result, StorageError,
    bin::len64,
    disk::{Disk, DiskFile},
    error::IoContext,
    frame::{self, Frame},
    identity,
    log::{Start, recover},
    progress,
    segment::{
        self, Segment, footer,
        scan::{Found, Frames, Step, Stop},
        tail::{self, Tail},
    },
    storage::{IDENTITY, LOGS, check_format, keys_in, take_lock},
    votes,
};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The byte at which the damaged part begins.
    pub position: u64,
    /// What is wrong there.
    pub what: String,
}

/// What [`verify_dir`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Logs seen.
    pub logs: u64,
    /// Files read.
    pub files: u64,
    /// Frames whose checksums match.
    pub frames: u64,
    /// Record batches among them.
    pub batches: u64,
    /// Records in these.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes of torn tails, which the next start cuts; no damage.
    pub torn_bytes: u64,
    /// Every damaged place.
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Reads every file of a data directory and verifies every checksum; changes nothing. Refuses with
/// [`crate::StorageError::Locked`] while a node has the directory. `progress` is told the bytes read so far and
/// the bytes in all.
pub fn verify_dir(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport> {
    let disk = &**disk;
    let _lock = take_lock(disk, dir)?;
    let mut report = VerifyReport::default();
    let known = verify_root(disk, dir, &mut report)?;
    let mut logs = Vec::new();
    let mut all = 0;
    for key in keys_in(disk, &dir.join(LOGS))? {
        let segments = segments_of(disk, dir, key)?;
        for segment in &segments {
            let file = segment.open_reader(disk)?;
            all += file.len().at("read the length of", &segment.path)?;
        }
        logs.push((key, segments));
    }
    for (key, segments) in logs {
        report.logs += 1;
        let folder = dir.join(LOGS).join(key.to_string());
        let (start, durable_end) = match recover::small_files(disk, &folder) {
            Ok(small) => {
                let hint = known.get(&key).copied().unwrap_or_default();
                (Some(small.start), recover::durable_end(&small, hint))
            }
            Err(error) => {
                report.note(error)?;
                (None, 0)
            }
        };
        let segments = match &start {
            Some(start) => without_purged(segments, start, &mut report)?,
            None => segments,
        };
        let mut expected = None;
        let mut end = start.map_or(0, |start| start.index());
        let mut end_position = 0;
        for (at, segment) in segments.iter().enumerate() {
            let is_last = at + 1 == segments.len();
            let whole = verify_segment(disk, segment, is_last, &mut report)?;
            if let Some((index, offset)) = expected.filter(|&(index, offset)| {
                (index, offset) != (segment.first_index, segment.base_offset)
            }) {
                let what = format!("entry {index} with offset {offset} should begin this segment");
                report.damaged(&segment.path, 0, what);
            }
            expected = whole.map(|whole| (whole.next_index, whole.next_offset));
            end = whole.map_or(u64::MAX, |whole| end.max(whole.next_index));
            end_position = whole.map_or(0, |whole| whole.end);
            progress(report.bytes, all);
        }
        if end < durable_end {
            let what = format!("entry {end} is missing, but all below {durable_end} were durable");
            let file = segments.last().map_or(&folder, |last| &last.path);
            report.damaged(file, end_position, what);
        }
    }
    Ok(report)
}

impl VerifyReport {
    fn damaged(&mut self, file: &Path, position: u64, what: impl Into<String>) {
        self.damage.push(Damage {
            file: file.to_owned(),
            position,
            what: what.into(),
        });
    }

    /// Takes note of damage; any other error ends the verification.
    fn note(&mut self, error: StorageError) -> Result<()> {
        match error {
            StorageError::Damaged {
                file,
                position,
                what,
            } => {
                self.damaged(&file, position, what);
                Ok(())
            }
            other => Err(other),
        }
    }
}

/// Verifies the files beside the logs; returns what they say of the logs.
fn verify_root(disk: &dyn Disk, dir: &Path, report: &mut VerifyReport) -> Result<Hints> {
    if let Err(error) = check_format(disk, dir) {
        report.note(error)?;
    }
    if let Err(error) = identity::read(disk, &dir.join(IDENTITY)) {
        report.note(error)?;
    }
    if let Err(error) = votes::verify(disk, dir) {
        report.note(error)?;
    }
    let (hints, damaged) = progress::read_all(disk, dir)?;
    for error in damaged {
        report.note(error)?;
    }
    Ok(hints)
}

type Hints = std::collections::BTreeMap<LogKey, progress::LogProgress>;

/// The segments without those that a purge was about to remove.
fn without_purged(
    segments: Vec<Segment>,
    start: &Start,
    report: &mut VerifyReport,
) -> Result<Vec<Segment>> {
    let names = segments.iter().map(|s| (s.base_offset, s.first_index));
    let (_, purged) = recover::split_purged(names.collect(), start);
    let kept: Vec<_> = segments
        .into_iter()
        .skip(purged.len())
        .map(Arc::new)
        .collect();
    if let Err(error) = recover::check_first(&kept, start) {
        report.note(error)?;
    }
    Ok(kept.into_iter().filter_map(Arc::into_inner).collect())
}

/// Segments of a log, oldest first.
fn segments_of(disk: &dyn Disk, dir: &Path, key: LogKey) -> Result<Vec<Segment>> {
    let folder = dir.join(LOGS).join(key.to_string());
    let names = disk.list(&folder).at("list", &folder)?;
    let mut found: Vec<_> = names
        .iter()
        .filter_map(|entry| segment::parse_name(&entry.name))
        .collect();
    found.sort_unstable_by_key(|&(_, index)| index);
    Ok(found
        .into_iter()
        .map(|(offset, index)| Segment::new(key, &folder, offset, index))
        .collect())
}

/// What comes after a file.
#[derive(Debug, Clone, Copy)]
struct Whole {
    next_index: u64,
    next_offset: Offset,
    /// The position behind its last frame.
    end: u64,
}

/// Verifies one file; returns what comes after it, unless it is damaged.
fn verify_segment(
    disk: &dyn Disk,
    segment: &Segment,
    is_last: bool,
    report: &mut VerifyReport,
) -> Result<Option<Whole>> {
    let file = &*segment.open_reader(disk)?;
    let before = report.damage.len();
    let len = file.len().at("read the length of", &segment.path)?;
    report.files += 1;
    report.bytes += len;
    if is_last && recover::is_unfinished(segment, file)? {
        match recover::judge_unfinished(segment, file, 0)? {
            Tail::Damaged(what) => report.damaged(&segment.path, 0, what),
            Tail::Clean | Tail::Torn => report.torn_bytes += len,
        }
        return Ok(Some(Whole {
            next_index: segment.first_index,
            next_offset: segment.base_offset,
            end: 0,
        }));
    }
    if let Err(error) = segment.check_header(file) {
        report.note(error)?;
    }
    let mut found = Found::new(segment);
    let stop = found.run(file)?;
    report.frames += found.frames;
    report.batches += found.batches;
    report.records += found.records;
    let (at, next) = (found.summary.end, found.next_index());
    let footer = footer::read(file, &segment.path)?.filter(|f| f.summary.end == at);
    if stop == Stop::Footer
        && let Some(footer) = footer
    {
        if footer.read_index(file, &segment.path)?.is_none() {
            report.damaged(&segment.path, at, "the index of the segment is damaged");
        }
    } else if is_last {
        match tail::judge(segment, file, &stop, at, next)? {
            Tail::Clean => {}
            Tail::Torn => report.torn_bytes += len - at,
            Tail::Damaged(what) => report.damaged(&segment.path, at, what),
        }
    } else {
        let what = match stop {
            Stop::Bad { error, .. } => error.to_string(),
            Stop::Footer => "the footer is damaged".to_owned(),
            Stop::Zeros | Stop::End => format!("entry {next} is missing"),
        };
        report.damaged(&segment.path, at, what);
    }
    if report.damage.len() > before {
        verify_behind(file, segment, at, report)?;
        return Ok(None);
    }
    Ok(Some(Whole {
        next_index: next,
        next_offset: found.next_offset(),
        end: at,
    }))
}

/// Goes on behind a damaged place, so that every further one is named too.
fn verify_behind(
    file: &dyn DiskFile,
    segment: &Segment,
    from: u64,
    report: &mut VerifyReport,
) -> Result<()> {
    let path = &segment.path;
    let len = file.len().at("read the length of", path)?;
    let mut bad = from;
    while let Some(next) = next_frame(file, path, bad + 1, len)? {
        let mut frames = Frames::new(file, path, next, len, CHUNK_BYTES);
        loop {
            match frames.next()? {
                Step::Frame(_, frame) => {
                    report.frames += 1;
                    report.batches += u64::from(frame.records() > 0);
                    report.records += u64::from(frame.records());
                }
                Step::Bad(error) => {
                    report.damaged(path, frames.position, error.to_string());
                    bad = frames.position;
                    break;
                }
                Step::Zeros | Step::Footer | Step::End => return Ok(()),
            }
        }
    }
    Ok(())
}

/// Where the next valid frame begins.
fn next_frame(file: &dyn DiskFile, path: &Path, from: u64, len: u64) -> Result<Option<u64>> {
    let mut at = from;
    while at < len {
        let bytes = file.read_at(at, CHUNK_BYTES).at("read", path)?;
        for (start, window) in bytes.windows(frame::MAGIC.len()).enumerate() {
            if window == frame::MAGIC {
                let place = at + len64(start);
                let mut frames = Frames::new(file, path, place, len, 1);
                if let Step::Frame(..) = frames.next()? {
                    return Ok(Some(place));
                }
            }
        }
        if bytes.len() < CHUNK_BYTES {
            break;
        }
        // Chunks overlap by less than a magic, so that none is missed between two.
        at += len64(CHUNK_BYTES - frame::MAGIC.len() + 1);
    }
    Ok(None)
}

/// A frame and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedFrame {
    /// The log.
    pub log: LogKey,
    /// The segment file.
    pub file: PathBuf,
    /// The frame's first byte in it.
    pub position: u64,
    /// The frame's header.
    pub header: FrameHeader,
    /// The batch's header; `None` for other kinds.
    pub batch: Option<seriatim_proto::batch::BatchHeader>,
}

/// Calls `each` for every frame of the logs in a data directory, or of one of them, in order, until it returns
/// `false`; stops with an error at the first damage.
pub fn dump(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    only: Option<LogKey>,
    each: &mut dyn FnMut(DumpedFrame) -> bool,
) -> Result<()> {
    let disk = &**disk;
    let _lock = take_lock(disk, dir)?;
    let keys = keys_in(disk, &dir.join(LOGS))?;
    for key in keys
        .into_iter()
        .filter(|key| only.is_none_or(|only| only == *key))
    {
        for segment in segments_of(disk, dir, key)? {
            let file = segment.open_reader(disk)?;
            let mut more = true;
            let mut found = Found::new(&segment);
            let stop = found.run_with(&*file, u64::MAX, &mut |position, frame: &Frame| {
                more = each(DumpedFrame {
                    log: key,
                    file: segment.path.clone(),
                    position,
                    header: *frame.header(),
                    batch: frame.batch_header(),
                });
                more
            })?;
            if !more {
                return Ok(());
            }
            let (at, next) = (found.summary.end, found.next_index());
            if let Tail::Damaged(what) = tail::judge(&segment, &*file, &stop, at, next)? {
                return Err(StorageError::damaged(&segment.path, at, what));
            }
        }
    }
    Ok(())
}
