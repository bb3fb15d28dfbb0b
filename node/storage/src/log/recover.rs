//! Opening a log: what is on disk, what must be, and what is cut.

use std::{io, ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use seriatim_proto::{ids::Offset, settings::Durability};
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
};

use super::{
    files,
    state::{LogState, Start},
    write::Writer,
};
use crate::{
    Boundary, LogId, LogKey, LogOptions, Result, StorageError,
    core::Core,
    disk::{Disk, DiskFile, OpenMode},
    error::IoContext,
    file,
    progress::LogProgress,
    segment::{
        self, Segment, Summary, footer,
        scan::{Found, Stop},
        tail::{self, Tail},
    },
};

/// The small files of a log.
pub(crate) struct SmallFiles {
    pub(crate) start: Start,
    pub(crate) checkpoint: Option<(LogId, Bytes)>,
    pub(crate) boundary: Option<Boundary>,
}

/// Reads a log's small files.
pub(crate) fn small_files(disk: &dyn Disk, dir: &Path) -> Result<SmallFiles> {
    Ok(SmallFiles {
        start: files::read_start(disk, dir)?.unwrap_or(Start {
            purged: None,
            offset: Offset(0),
        }),
        checkpoint: files::read_checkpoint(disk, dir)?,
        boundary: files::read_boundary(disk, dir)?,
    })
}

/// What recovery found.
pub(super) struct Recovered {
    pub(super) state: LogState,
    pub(super) writer: Writer,
}

/// Reads a log's folder and cuts a torn tail. A log without a folder is empty.
pub(super) fn recover(core: &Core, key: LogKey, options: LogOptions) -> Result<Recovered> {
    let disk = &*core.disk;
    let dir = core.log_dir(key);
    let small = small_files(disk, &dir)?;
    let progress = core.progress.get(key);
    let (has_dir, mut segments) = list_segments(disk, key, &dir, &small.start)?;
    let mut synced_end = durable_end(&small, progress);
    if let Some(last) = segments.pop() {
        for (at, segment) in segments.iter().enumerate() {
            let next = segments.get(at + 1).unwrap_or(&last);
            load_sealed(disk, segment, next)?;
        }
        let known = load_last(disk, &last, synced_end)?;
        synced_end = synced_end.max(known).max(last.first_index);
        let empty = last.summary.lock().last.is_none();
        if empty || last.ends_by_start(&small.start) {
            // Nothing in it: the rest of a creation that was not finished, or purged.
            hit!("storage.recover.empty-segment");
            disk.remove_file(&last.path).at("remove", &last.path)?;
            disk.sync_dir(&dir).at("sync", &dir)?;
        } else {
            segments.push(last);
        }
    }
    if conflicts(&segments, &small.start) {
        // A restart behind `purged` was interrupted: what is here belongs to another history.
        hit!("storage.recover.other-history");
        files::remove_resume(disk, &dir)?;
        for segment in segments.drain(..).rev() {
            disk.remove_file(&segment.path)
                .at("remove", &segment.path)?;
        }
        disk.sync_dir(&dir).at("sync", &dir)?;
        synced_end = small.start.index();
    }
    let mut state = assemble(small, segments, options, progress);
    check_end(&state, &dir, synced_end)?;
    state.written_end = state.end();
    state.flushed_end = state.end();
    if make_durable(core, &dir, &state, synced_end)? {
        synced_end = state.end();
    }
    let writer = Writer {
        synced_end,
        has_dir,
        // A process that was killed may have removed files without making that durable.
        dir_dirty: has_dir,
        ..Writer::default()
    };
    Ok(Recovered { state, writer })
}

/// Syncs what a killed process may have left in the page cache only: whoever reads it here takes it for
/// durable. Says whether it is. A log whose durability is left to the system is left to it here
/// too, except that a sealed file must be durable, with its footer, before the next one is written.
fn make_durable(core: &Core, dir: &Path, state: &LogState, synced_end: u64) -> Result<bool> {
    let Some(last) = state.segments.last() else {
        return Ok(true);
    };
    let sealed = last.summary.lock().sealed;
    let durable = synced_end >= state.end();
    if !sealed && (durable || state.options.durability != Durability::Fsync) {
        return Ok(durable);
    }
    hit!("storage.recover.synced-again");
    let file = last.open(&*core.disk)?;
    core.engine.sync(&*file, &last.path)?;
    core.disk.sync_dir(dir).at("sync", dir)?;
    let logs_dir = &core.logs_dir;
    core.disk.sync_dir(logs_dir).at("sync", logs_dir)?;
    Ok(true)
}

/// Whether the entry that was purged has another term in the segments.
fn conflicts(segments: &[Arc<Segment>], start: &Start) -> bool {
    let Some(purged) = start.purged else {
        return false;
    };
    let at_purged = segments
        .iter()
        .rev()
        .find(|segment| segment.first_index <= purged.index);
    at_purged.is_some_and(|segment| {
        let summary = segment.summary.lock();
        let term = summary
            .epochs
            .iter()
            .rev()
            .find(|epoch| epoch.index <= purged.index);
        term.is_some_and(|epoch| epoch.term != purged.term)
    })
}

/// Index after the last entry that some file calls durable.
pub(crate) fn durable_end(small: &SmallFiles, progress: LogProgress) -> u64 {
    let checkpoint = small.checkpoint.as_ref().map_or(0, |(at, _)| at.index + 1);
    progress.synced_end.max(checkpoint)
}

/// Segments by name, oldest first, without those that were purged. Removes what a crash left over.
fn list_segments(
    disk: &dyn Disk,
    key: LogKey,
    dir: &Path,
    start: &Start,
) -> Result<(bool, Vec<Arc<Segment>>)> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((false, Vec::new())),
        Err(error) => return Err(error).at("list", dir),
    };
    for entry in entries
        .iter()
        .filter(|entry| file::is_temporary(&entry.name))
    {
        hit!("storage.recover.temporary-file");
        let path = dir.join(&entry.name);
        disk.remove_file(&path).at("remove", &path)?;
    }
    let (keep, purged) = split_purged(names_of(&entries), start);
    if !purged.is_empty() {
        // First the start that makes them superfluous, which a killed process may not have synced.
        hit!("storage.recover.purge-finished");
        disk.sync_dir(dir).at("sync", dir)?;
    }
    for (offset, index) in purged {
        let path = dir.join(segment::name_of(offset, index));
        disk.remove_file(&path).at("remove", &path)?;
    }
    let segments: Vec<_> = keep
        .into_iter()
        .map(|(offset, index)| Arc::new(Segment::new(key, dir, offset, index)))
        .collect();
    check_first(&segments, start)?;
    Ok((true, segments))
}

/// Base offset and first index of every segment in a listing, by index.
pub(crate) fn names_of(entries: &[crate::disk::DirEntry]) -> Vec<(Offset, u64)> {
    let mut names: Vec<_> = entries
        .iter()
        .filter_map(|entry| segment::parse_name(&entry.name))
        .collect();
    names.sort_by_key(|name| (name.1, name.0));
    names
}

/// Separates names of segments that a purge was about to remove: another begins at or before the start.
type Names = Vec<(Offset, u64)>;
pub(crate) fn split_purged(mut names: Names, start: &Start) -> (Names, Names) {
    let first = names
        .iter()
        .rposition(|name| name.1 <= start.index())
        .unwrap_or(0);
    let keep = names.split_off(first);
    (keep, names)
}

/// Checks that the first segment leaves no gap after the start.
pub(crate) fn check_first(segments: &[Arc<Segment>], start: &Start) -> Result<()> {
    let Some(first) = segments.first() else {
        return Ok(());
    };
    if first.first_index > start.index() {
        let what = format!(
            "the segments with entries {} to {} before this file are missing",
            start.index(),
            first.first_index - 1
        );
        return Err(StorageError::damaged(&first.path, 0, what));
    }
    Ok(())
}

/// Loads the summary of a segment that another follows.
fn load_sealed(disk: &dyn Disk, segment: &Arc<Segment>, next: &Segment) -> Result<()> {
    let file = open(disk, segment)?;
    let summary = match footer::read(&*file, &segment.path)? {
        Some(footer) => {
            *segment.index.lock() = None;
            footer.summary
        }
        None => {
            hit!("storage.recover.index-rebuilt");
            tracing::warn!(file = %segment.path.display(), "rebuild the index of a segment");
            let (summary, index) =
                segment.rebuild(&*file, u64::MAX, Some((next.first_index, next.base_offset)))?;
            *segment.index.lock() = Some(index);
            Summary {
                sealed: true,
                ..summary
            }
        }
    };
    check_joint(segment, &summary, next)?;
    *segment.summary.lock() = summary;
    Ok(())
}

/// Checks that `next` goes on where `summary` ends.
pub(crate) fn check_joint(segment: &Segment, summary: &Summary, next: &Segment) -> Result<()> {
    let end = summary
        .last
        .map_or(segment.first_index, |last| last.index + 1);
    if (end, summary.next_offset) == (next.first_index, next.base_offset) {
        return Ok(());
    }
    let what = format!(
        "the file ends before entry {end} at offset {}, the next file begins with entry {} at offset {}",
        summary.next_offset, next.first_index, next.base_offset
    );
    Err(StorageError::damaged(&segment.path, summary.end, what))
}

/// Loads the last segment, cutting a torn tail; returns the index up to which its Marks call it
/// durable.
fn load_last(disk: &dyn Disk, segment: &Arc<Segment>, synced_end: u64) -> Result<u64> {
    let file = disk
        .open(&segment.path, OpenMode::Write)
        .at("open", &segment.path)?;
    let len = file.len().at("read the length of", &segment.path)?;
    if is_unfinished(segment, &*file)? {
        // Created, and lost power before its first sync.
        hit!("storage.recover.unfinished-segment");
        return match judge_unfinished(segment, &*file, synced_end)? {
            Tail::Damaged(what) => Err(StorageError::damaged(&segment.path, 0, what)),
            Tail::Clean | Tail::Torn => Ok(0),
        };
    }
    segment.check_header(&*file)?;
    let footer = footer::read(&*file, &segment.path)?;
    let whole_by = |end: u64| {
        footer
            .as_ref()
            .is_some_and(|f| f.summary.end_index() <= end)
    };
    if whole_by(synced_end)
        && let Some(footer) = footer
    {
        *segment.index.lock() = None;
        *segment.summary.lock() = footer.summary;
        return Ok(synced_end);
    }
    let resume = match segment.path.parent() {
        Some(dir) => files::read_resume(disk, dir, segment)?,
        None => None,
    };
    let mut found = match resume.filter(|(summary, _)| summary.end <= len) {
        Some((summary, index)) => {
            hit!("storage.recover.resumed");
            Found::resume(segment, summary, index)
        }
        None => Found::new(segment),
    };
    let stop = found.run(&*file)?;
    let (end, next_index) = (found.summary.end, found.next_index());
    if stop == Stop::Footer
        && let Some(footer) = footer.filter(|footer| footer.summary.end == end)
    {
        // Sealed, but nothing says that this was synced: then the footer alone proves nothing.
        hit!("storage.recover.seal-unconfirmed");
        let known = found.synced_end;
        *segment.summary.lock() = footer.summary;
        *segment.index.lock() = Some(found.index);
        return Ok(known);
    }
    match judge_tail(segment, &*file, &stop, &found, synced_end)? {
        Tail::Damaged(what) => {
            hit!("storage.recover.damaged-tail");
            return Err(StorageError::damaged(&segment.path, end, what));
        }
        Tail::Clean => {}
        Tail::Torn if mutant::on(Mutant::TornTailAccepted) => found.summary.end = len,
        Tail::Torn if mutant::on(Mutant::TornTailDropsFrames) => {
            found = Found::new(segment);
            let _stop = found.run_to(&*file, end - end % 4096)?;
            cut_tail(segment, &*file, found.summary.end..len, next_index)?;
        }
        Tail::Torn => cut_tail(segment, &*file, end..len, next_index)?,
    }
    let known = found.synced_end;
    *segment.summary.lock() = found.summary;
    *segment.index.lock() = Some(found.index);
    Ok(known)
}

/// Cuts the rest of a write that no sync confirmed.
fn cut_tail(
    segment: &Segment,
    file: &dyn DiskFile,
    torn: Range<u64>,
    next_index: u64,
) -> Result<()> {
    hit!("storage.recover.torn-tail");
    tracing::info!(
        file = %segment.path.display(), position = torn.start, bytes = torn.end - torn.start,
        index = next_index, "cut a torn tail"
    );
    file.set_len(torn.start).at("cut", &segment.path)?;
    file.sync().at("sync", &segment.path)
}

/// Judges where the scan of a last segment stopped.
pub(crate) fn judge_tail(
    segment: &Segment,
    file: &dyn DiskFile,
    stop: &Stop,
    found: &Found<'_>,
    synced_end: u64,
) -> Result<Tail> {
    if mutant::on(Mutant::DamageCutInSilence) {
        return Ok(Tail::Torn);
    }
    let (end, next_index) = (found.summary.end, found.next_index());
    let judged = tail::judge(segment, file, stop, end, next_index)?;
    Ok(match judge_missing(segment, end, next_index, synced_end) {
        Err(StorageError::Damaged { what, .. }) => Tail::Damaged(what),
        _ => judged,
    })
}

/// A segment whose header was never written: the file was created and the power went.
pub(crate) fn is_unfinished(segment: &Segment, file: &dyn DiskFile) -> Result<bool> {
    let head = file
        .read_at(0, tail::SECTOR_LEN)
        .at("read", &segment.path)?;
    Ok(head.iter().all(|&byte| byte == 0))
}

/// Judges a file of which the beginning was never written, or was lost.
pub(crate) fn judge_unfinished(
    segment: &Segment,
    file: &dyn DiskFile,
    synced_end: u64,
) -> Result<Tail> {
    let judged = tail::judge(segment, file, &Stop::Zeros, 0, segment.first_index)?;
    Ok(
        match judge_missing(segment, 0, segment.first_index, synced_end) {
            Err(StorageError::Damaged { what, .. }) => Tail::Damaged(what),
            _ => judged,
        },
    )
}

/// Damage, if entries from `next_index` on are known to have been durable.
fn judge_missing(segment: &Segment, position: u64, next_index: u64, synced_end: u64) -> Result<()> {
    if synced_end <= next_index {
        return Ok(());
    }
    let what = format!("entry {next_index} is missing, but all below {synced_end} were durable",);
    Err(StorageError::damaged(&segment.path, position, what))
}

/// Checks a log that is read whole: nothing that was durable may be missing at its end.
fn check_end(state: &LogState, dir: &Path, synced_end: u64) -> Result<()> {
    let end = state.end();
    if synced_end <= end || mutant::on(Mutant::DamageCutInSilence) {
        return Ok(());
    }
    hit!("storage.recover.end-missing");
    let (file, position) = match state.segments.last() {
        Some(segment) => (segment.path.clone(), segment.summary.lock().end),
        None => (dir.to_owned(), 0),
    };
    let what = format!(
        "entries {end} to {} were durable and are missing",
        synced_end - 1
    );
    Err(StorageError::damaged(&file, position, what))
}

fn assemble(
    small: SmallFiles,
    segments: Vec<Arc<Segment>>,
    options: LogOptions,
    progress: LogProgress,
) -> LogState {
    let SmallFiles {
        start,
        checkpoint,
        boundary,
    } = small;
    let mut epochs: Vec<LogId> = Vec::new();
    for segment in &segments {
        for epoch in &segment.summary.lock().epochs {
            if epochs.last().is_none_or(|last| last.term != epoch.term) {
                epochs.push(*epoch);
            }
        }
    }
    let tail = segments.last().map(|segment| {
        let summary = segment.summary.lock();
        (summary.last, summary.next_offset)
    });
    let (last, next_offset) = match tail {
        Some((Some(last), next_offset)) => (Some(last), next_offset),
        _ => (start.purged, start.offset),
    };
    let mut state = LogState {
        options,
        start: Start {
            purged: None,
            offset: Offset(0),
        },
        floor: Offset(0),
        last,
        next_offset,
        tail: std::collections::VecDeque::new(),
        written_end: 0,
        flushed_end: 0,
        segments,
        epochs,
        cuts: 0,
        appended: 0,
        committed: progress.committed,
        checkpoint,
        boundary: boundary.map(|boundary| (boundary.log_id, boundary.next_offset)),
        queue: std::collections::VecDeque::new(),
        scheduled: false,
    };
    if let Some(purged) = start.purged {
        state.begin_after(purged, start.offset);
    }
    state
}

fn open(disk: &dyn Disk, segment: &Segment) -> Result<Arc<dyn DiskFile>> {
    let file = disk
        .open(&segment.path, OpenMode::Read)
        .at("open", &segment.path)?;
    segment.check_header(&*file)?;
    Ok(file)
}

impl Segment {
    /// Whether every entry lies before the log's start.
    fn ends_by_start(&self, start: &Start) -> bool {
        start
            .purged
            .is_some_and(|purged| self.ends_by(purged.index))
    }
}
