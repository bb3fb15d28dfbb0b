//! The write path of one log, run by a disk thread that holds the log: begin (write), sync, finish.

use std::{io::IoSlice, sync::Arc};

use seriatim_proto::settings::Durability;
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
};

use super::{
    AppendDone, LogInner, files,
    state::{LogState, Op},
};
use crate::{
    LogId, Result, StorageError,
    bin::{len_usize, len64},
    cache,
    disk::DiskFile,
    engine::Begun,
    error::IoContext,
    frame::Frame,
    progress::LogProgress,
    segment::{self, Segment, footer},
};

/// Most bytes of one round; a single append may exceed it.
const ROUND_BYTES_MAX: u64 = 8 << 20;

/// Where segments are small a round is at most half of one, so that none becomes much larger than it
/// should; but never less than this.
const SMALL_SEGMENT_ROUND_BYTES: u64 = 256 << 10;

/// Rounds up to this size profit from a file written ahead.
const SMALL_ROUND_BYTES: u64 = 64 << 10;

/// Small rounds in a row after which the file is written ahead.
const SMALL_ROUNDS_MIN: u32 = 4;

/// How far the file is written ahead, aligned to this.
const AHEAD_BYTES: u64 = 256 << 10;

/// Written ahead again when less than this is left.
const AHEAD_BYTES_MIN: u64 = 64 << 10;

/// Distance between two writes of the resume file of a young segment.
const RESUME_BYTES: u64 = 1 << 20;

/// The writer's side of a log; only the disk thread that holds the log touches it.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) active: Option<Active>,
    /// Every entry below is durable.
    pub(crate) synced_end: u64,
    /// Whether the log's folder is known to exist.
    pub(crate) has_dir: bool,
    /// The log's folder has a new name that is not synced yet.
    pub(crate) dir_dirty: bool,
    /// The folder of all logs has the new name of this log's folder, not synced yet.
    pub(crate) parent_dirty: bool,
}

/// The segment that is written to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next round goes: the end of the last frame.
    pub(crate) position: u64,
    /// The file's blocks up to here were written at some time.
    pub(crate) ahead: u64,
    small_rounds: u32,
    /// Up to where the resume file knows the segment.
    resumable: u64,
    /// Whether bytes were written since the last sync.
    pub(crate) dirty: bool,
}

impl Active {
    /// A segment opened for writing at `position`, whose file has `len` bytes.
    pub(crate) fn new(
        segment: Arc<Segment>,
        file: Arc<dyn DiskFile>,
        position: u64,
        len: u64,
    ) -> Self {
        Self {
            segment,
            file,
            position,
            ahead: len.max(position),
            small_rounds: 0,
            resumable: 0,
            dirty: false,
        }
    }

    /// Whether so much was written since the resume file that recovery would take long.
    fn wants_resume(&self, segment_bytes: u64) -> bool {
        // The file grows with the segment, so it is written less often then.
        let distance = (segment_bytes / 8).min(RESUME_BYTES).max(self.position / 8);
        !self.dirty && self.position - self.resumable >= distance
    }
}

/// One round of a log between its steps.
pub(crate) struct Round {
    /// Whether the log's folder was created; the engine then syncs the folder above.
    pub(crate) created_dir: bool,
    /// Index after the last entry written.
    end: u64,
    bytes: u64,
    cached: u64,
    dones: Vec<AppendDone>,
    sync: bool,
    failed: Option<StorageError>,
}

impl Round {
    /// Makes the round a failure.
    pub(crate) fn fail(&mut self, error: StorageError) {
        let _ = self.failed.get_or_insert(error);
    }
}

/// What is next in a log's queue.
enum Next {
    Append(Appends),
    Control(Op),
    Nothing,
}

struct Appends {
    frames: Vec<Frame>,
    dones: Vec<AppendDone>,
    /// Sizes, to put the operations back.
    ops: Vec<(u64, u64)>,
    /// Base offset of the first frame.
    durability: Durability,
    segment_bytes: u64,
    before: LogId,
}

impl LogInner {
    /// Writes what is pending. Called by the disk thread that holds the log.
    pub(crate) fn begin(self: &Arc<Self>) -> Begun<Round> {
        let mut writer = self.writer.lock();
        if let Some(error) = self.poison.get() {
            // Appends may have been put back on a full disk after the queue was refused.
            drop(writer);
            self.refuse_queued(error);
            return Begun::Done;
        }
        let next = self.state.lock().next_op();
        match next {
            Next::Nothing => Begun::Idle,
            Next::Control(op) => self.control(&mut writer, op),
            Next::Append(appends) => self.begin_appends(&mut writer, appends),
        }
    }

    fn begin_appends(self: &Arc<Self>, writer: &mut Writer, appends: Appends) -> Begun<Round> {
        let mut round = Round {
            created_dir: false,
            end: appends.ops.last().map_or(0, |op| op.0),
            bytes: appends.ops.iter().map(|op| op.1).sum(),
            cached: appends.frames.iter().map(cache::cost).sum(),
            dones: Vec::new(),
            sync: appends.durability == Durability::Fsync,
            failed: None,
        };
        match self.write_frames(writer, &appends) {
            Ok(()) => {
                self.core.space.note(false);
                round.created_dir = std::mem::take(&mut writer.parent_dirty);
            }
            Err(error) if error.is_no_space() => {
                // Nothing of it counts as written; the same bytes go to the same place later.
                hit!("storage.write.disk-full");
                self.core.space.note(true);
                self.state.lock().put_back(appends);
                return Begun::Full;
            }
            Err(error) => round.fail(error),
        }
        round.dones = appends.dones;
        Begun::Round(round)
    }

    /// Writes the frames of a round behind a Mark, and publishes their places.
    fn write_frames(&self, writer: &mut Writer, appends: &Appends) -> Result<()> {
        let Some(first) = appends.frames.first() else {
            return Ok(());
        };
        self.ready_segment(writer, appends.segment_bytes, first)?;
        let synced_end = writer.synced_end;
        let Some(active) = &mut writer.active else {
            return Ok(());
        };
        let mark = segment::mark(appends.before, first.base_offset(), synced_end);
        let frames = || std::iter::once(&mark).chain(&appends.frames);
        let mut slices: Vec<_> = frames()
            .flat_map(|frame| frame.slices())
            .filter(|slice| !slice.is_empty())
            .map(IoSlice::new)
            .collect();
        let path = &active.segment.path;
        active
            .file
            .write_at(active.position, &mut slices)
            .at("write", path)?;
        let start = active.position;
        {
            let mut summary = active.segment.summary.lock();
            let mut index = active.segment.index.lock();
            let index = index.get_or_insert_default();
            for frame in frames() {
                let at = active.position;
                Segment::note(&mut summary, index, at, frame);
                active.position = summary.end;
            }
        }
        let bytes = active.position - start;
        active.dirty = true;
        active.ahead = active.ahead.max(active.position);
        active.small_rounds = if bytes <= SMALL_ROUND_BYTES {
            active.small_rounds + 1
        } else {
            0
        };
        self.core.engine.metrics.rounds.increment(1);
        self.core.engine.metrics.written_bytes.increment(bytes);
        Ok(())
    }

    /// Sees to it that there is a segment to write `first` to.
    fn ready_segment(&self, writer: &mut Writer, segment_bytes: u64, first: &Frame) -> Result<()> {
        if let Some(active) = &mut writer.active {
            if active.position < segment_bytes {
                return Ok(());
            }
            self.seal(active)?;
            hit!("storage.write.rolled");
            // Sealed, synced: everything in it is durable before the next file exists.
            writer.synced_end = first.log_id().index;
            if writer.dir_dirty && !mutant::on(Mutant::DirNotSynced) {
                self.core.disk.sync_dir(&self.dir).at("sync", &self.dir)?;
                writer.dir_dirty = false;
            }
            writer.active = None;
            self.core.rolled.note(self.key);
        } else if self.reopen(writer)? {
            return self.ready_segment(writer, segment_bytes, first);
        }
        if !writer.has_dir {
            self.core
                .disk
                .create_dir_all(&self.dir)
                .at("create", &self.dir)?;
            writer.has_dir = true;
            writer.parent_dirty = true;
        }
        let base = first.base_offset();
        let segment = Arc::new(Segment::new(
            self.key,
            &self.dir,
            base,
            first.log_id().index,
        ));
        writer.dir_dirty = true;
        let file = segment.create(&*self.core.disk).inspect_err(|_| {
            // Half made on a full disk, it must not be taken for a segment if the log is cut before the
            // next attempt, or if the process ends.
            hit!("storage.write.segment-undone");
            drop(self.core.disk.remove_file(&segment.path));
        })?;
        self.state.lock().segments.push(Arc::clone(&segment));
        let position = segment::HEADER_BYTES;
        writer.active = Some(Active::new(segment, file, position, position));
        Ok(())
    }

    /// Opens the last segment for writing, if it is not sealed; says whether there is one.
    pub(crate) fn reopen(&self, writer: &mut Writer) -> Result<bool> {
        let segment = {
            let state = self.state.lock();
            state.segments.last().cloned()
        };
        let Some(segment) = segment else {
            return Ok(false);
        };
        let (sealed, position) = {
            let summary = segment.summary.lock();
            (summary.sealed, summary.end)
        };
        if sealed {
            return Ok(false);
        }
        let file = segment.open(&*self.core.disk)?;
        let len = file.len().at("read the length of", &segment.path)?;
        let mut active = Active::new(segment, file, position, len);
        // An earlier process may have written or cut it, and not synced.
        active.dirty = true;
        writer.has_dir = true;
        writer.active = Some(active);
        Ok(true)
    }

    /// Writes the footer and syncs the segment, which is never written again.
    pub(super) fn seal(&self, active: &mut Active) -> Result<()> {
        let segment = &active.segment;
        let footer = {
            let summary = segment.summary.lock();
            let index = segment.index.lock();
            footer::encode(&summary, index.as_deref().unwrap_or_default())
        };
        let path = &segment.path;
        active
            .file
            .write_at(active.position, &mut [IoSlice::new(&footer)])
            .at("write", path)?;
        // The trailer is found at the end of the file, so what was written ahead goes.
        active
            .file
            .set_len(active.position + len64(footer.len()))
            .at("cut", path)?;
        self.core.engine.sync(&*active.file, path)?;
        segment.summary.lock().sealed = true;
        Ok(())
    }

    /// Makes the round durable, unless the log's durability leaves that to the system.
    pub(crate) fn sync(&self, round: &mut Round) {
        if round.failed.is_some() || !round.sync || mutant::on(Mutant::AckBeforeFsync) {
            return;
        }
        let mut writer = self.writer.lock();
        if let Some(error) = self.poison.get() {
            // Retired meanwhile: its file was closed, and nobody may take the round for durable.
            hit!("storage.write.retired");
            round.fail((**error).clone());
            return;
        }
        match self.sync_all(&mut writer) {
            Ok(()) => writer.synced_end = round.end,
            Err(error) => round.fail(error),
        }
    }

    /// Syncs what is dirty of the log: file, then folder.
    pub(crate) fn sync_all(&self, writer: &mut Writer) -> Result<()> {
        if let Some(active) = &mut writer.active
            && active.dirty
        {
            self.core.engine.sync(&*active.file, &active.segment.path)?;
            active.dirty = false;
        }
        if writer.dir_dirty && !mutant::on(Mutant::DirNotSynced) {
            self.core.disk.sync_dir(&self.dir).at("sync", &self.dir)?;
            writer.dir_dirty = false;
        }
        Ok(())
    }

    /// Completes a round: publishes it, tells the callers, remembers the progress.
    pub(crate) fn finish(self: &Arc<Self>, round: Round) {
        self.core.pending_remove(round.bytes);
        if let Some(error) = round.failed {
            let error = self.poison(error);
            for done in round.dones {
                done(Err(Arc::clone(&error)));
            }
            return;
        }
        // Counted before any of it may be evicted.
        self.core.cache.charge(round.cached);
        let committed = {
            let mut state = self.state.lock();
            state.written_end = round.end;
            state.flushed_end = round.end;
            state.committed
        };
        self.flushed.notify_waiters();
        for done in round.dones {
            done(Ok(()));
        }
        self.core.cache.add(Arc::downgrade(self), round.end);
        let synced_end = {
            let mut writer = self.writer.lock();
            self.save_resume(&mut writer);
            writer.synced_end
        };
        self.save_progress(LogProgress {
            synced_end,
            committed,
        });
    }

    /// Writes the resume file, if it is time: recovery then begins there instead of reading the
    /// active segment from its beginning. It is a hint too.
    fn save_resume(&self, writer: &mut Writer) {
        let segment_bytes = self.state.lock().options.segment_bytes;
        let Some(active) = &mut writer.active else {
            return;
        };
        if !active.wants_resume(segment_bytes) {
            return;
        }
        let segment = &active.segment;
        let (summary, index) = {
            let summary = segment.summary.lock();
            let index = segment.index.lock();
            (summary.clone(), index.clone().unwrap_or_default())
        };
        let disk = &*self.core.disk;
        match files::write_resume(disk, &self.dir, segment, &summary, &index) {
            Ok(()) => active.resumable = active.position,
            Err(error) => {
                tracing::debug!(log = %self.key, %error, "cannot write where recovery may begin");
            }
        }
    }

    /// Writes the progress, unsynced. It is a hint: failing to write it costs nothing but the hint.
    pub(crate) fn save_progress(&self, progress: LogProgress) {
        if let Err(error) = self.core.progress.put(self.key, progress) {
            tracing::debug!(log = %self.key, %error, "cannot write the progress of a log");
        }
    }

    /// Whether the log has more to do; if not, it is no longer scheduled. With `quiet` the time is
    /// used to write the file ahead.
    pub(crate) fn has_more(&self, quiet: bool) -> bool {
        if quiet && self.state.lock().queue.is_empty() {
            self.write_ahead();
        }
        let mut state = self.state.lock();
        state.scheduled = !state.queue.is_empty();
        state.scheduled
    }

    /// Fills the file with zeros ahead of small writes, because a sync that only overwrites blocks
    /// costs half of one that must also record a new length.
    fn write_ahead(&self) {
        let mut writer = self.writer.lock();
        let segment_bytes = self.state.lock().options.segment_bytes;
        let Some(active) = &mut writer.active else {
            return;
        };
        let wanted = active.small_rounds >= SMALL_ROUNDS_MIN
            && active.ahead < active.position + AHEAD_BYTES_MIN
            && active.ahead < segment_bytes
            && !active.dirty
            && self.poison.get().is_none();
        if !wanted || self.core.space.is_full() {
            return;
        }
        let from = active.ahead;
        // Not beyond where the segment will be sealed.
        let to = (active.position + AHEAD_BYTES).next_multiple_of(AHEAD_BYTES);
        let to = to.min(segment_bytes.next_multiple_of(AHEAD_BYTES_MIN));
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut slices = Vec::new();
        let mut left = len_usize(to - from);
        while left > 0 {
            let part = ZEROS.get(..left).unwrap_or(&ZEROS);
            slices.push(IoSlice::new(part));
            left -= part.len();
        }
        // Zeros behind the last frame change nothing; without room there are none.
        match active.file.write_at(from, &mut slices) {
            Ok(()) => active.ahead = to,
            Err(error) => {
                tracing::debug!(log = %self.key, %error, "cannot write a segment ahead");
                active.small_rounds = 0;
                return;
            }
        }
        let result = self.core.engine.sync(&*active.file, &active.segment.path);
        drop(writer);
        if let Err(error) = result {
            drop(self.poison(error));
        }
    }

    /// The engine stopped while the log waited for space.
    pub(crate) fn abandon(&self) {
        drop(self.poison(StorageError::Closed));
    }

    /// Stops the log for good; the first error stays. Everything queued is refused.
    pub(crate) fn poison(&self, error: StorageError) -> Arc<StorageError> {
        let mut first = false;
        let error = self.poison.get_or_init(|| {
            first = true;
            Arc::new(error)
        });
        let error = Arc::clone(error);
        if first {
            hit!("storage.log.stopped");
            tracing::error!(log = %self.key, error = %seriatim_proto::error::chain(&error), "the log stops");
            self.core.engine.metrics.poisoned.increment(1);
            let _ = self.core.failed.lock().insert(self.key, Arc::clone(&error));
            self.stopped.notify_waiters();
        }
        self.refuse_queued(&error);
        error
    }

    /// Answers everything in the queue with an error.
    pub(crate) fn refuse_queued(&self, error: &Arc<StorageError>) {
        let queue = std::mem::take(&mut self.state.lock().queue);
        for op in queue {
            if let Op::Append { bytes, .. } = &op {
                self.core.pending_remove(*bytes);
            }
            op.refuse(error);
        }
    }
}

impl LogState {
    /// Takes the appends at the front of the queue, up to a size, or the control operation there.
    fn next_op(&mut self) -> Next {
        match self.queue.front() {
            None => return Next::Nothing,
            Some(Op::Append { .. }) => {}
            Some(_) => return self.queue.pop_front().map_or(Next::Nothing, Next::Control),
        }
        let most = (self.options.segment_bytes / 2).max(SMALL_SEGMENT_ROUND_BYTES);
        let most = most.min(ROUND_BYTES_MAX);
        let mut dones = Vec::new();
        let mut ops = Vec::new();
        let mut total = 0;
        while let Some(op) = self.queue.pop_front() {
            match op {
                Op::Append { end, bytes, done } if total == 0 || total + bytes <= most => {
                    total += bytes;
                    ops.push((end, bytes));
                    dones.push(done);
                }
                other => {
                    self.queue.push_front(other);
                    break;
                }
            }
        }
        let end = ops.last().map_or(self.written_end, |op| op.0);
        let from = self
            .tail_position(self.written_end)
            .unwrap_or(self.tail.len());
        let to = self.tail_position(end).unwrap_or(self.tail.len());
        let before = self.written_end.checked_sub(1).map(|index| LogId {
            term: self.term_at(index).unwrap_or_default(),
            index,
        });
        Next::Append(Appends {
            frames: self.tail.range(from..to).cloned().collect(),
            dones,
            ops,
            durability: self.options.durability,
            segment_bytes: self.options.segment_bytes,
            before: before.unwrap_or_default(),
        })
    }

    /// Puts appends back that could not be written.
    fn put_back(&mut self, appends: Appends) {
        let ops = appends.ops.into_iter().zip(appends.dones);
        for ((end, bytes), done) in ops.rev() {
            self.queue.push_front(Op::Append { end, bytes, done });
        }
    }
}
