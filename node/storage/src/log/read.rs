//! The read path: from the tail in memory at once, else from the files.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use seriatim_proto::ids::Offset;
use seriatim_runtime::mutant::{self, Mutant};

use super::{
    Log, LogInner,
    files::{self, From},
};
use crate::{Frame, FrameHead, FrameKind, Result, StorageError, segment::Segment};

/// Bytes that one step of [`Log::read_heads`] keeps in memory.
const HEADS_STEP_BYTES: usize = 4 << 20;

/// Bytes read at a time in search of a timestamp.
const TIME_STEP_BYTES: usize = 1 << 20;

/// Collects frames up to a number of bytes, at least one.
struct Taken {
    frames: Vec<Frame>,
    bytes: usize,
    max_bytes: usize,
}

impl Taken {
    fn new(max_bytes: usize) -> Self {
        Self {
            frames: Vec::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Takes the frame if there is room; says so.
    fn take(&mut self, frame: Frame) -> bool {
        let bytes = frame.total_bytes();
        if !self.frames.is_empty() && self.bytes.saturating_add(bytes) > self.max_bytes {
            return false;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.frames.push(frame);
        true
    }

    fn is_full(&self) -> bool {
        !self.frames.is_empty() && self.bytes >= self.max_bytes
    }

    fn room(&self) -> usize {
        self.max_bytes.saturating_sub(self.bytes)
    }
}

/// Where a read goes on.
enum Source {
    /// Everything that was wanted was in memory.
    Memory,
    /// In this file.
    Segment(Arc<Segment>),
    /// There is no more.
    End,
}

impl Log {
    /// Entries of a range of indexes, at least one and then up to `max_bytes`; fewer where the log
    /// ends. An index that was purged or does not exist yet is an error, unless the range is empty.
    pub async fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Frame>> {
        loop {
            let cuts = self.0.cuts();
            let frames = self.read_once(range.clone(), max_bytes).await;
            if self.0.cuts() == cuts {
                return frames;
            }
        }
    }

    async fn read_once(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Frame>> {
        let mut taken = Taken::new(max_bytes);
        let mut next = range.start;
        while next < range.end && !taken.is_full() {
            match self.0.entries_from_memory(next, range.end, &mut taken) {
                Ok(Source::Memory | Source::End) => break,
                Ok(Source::Segment(segment)) => {
                    let inner = Arc::clone(&self.0);
                    let end = range.end;
                    let read = move || inner.entries_of(&segment, next..end, taken);
                    let more;
                    (taken, more) = self.0.core.blocking("read", read).await?;
                    if !more {
                        break;
                    }
                }
                Err(StorageError::OutOfRange { .. }) if !taken.frames.is_empty() => break,
                Err(error) => return Err(error),
            }
            next = taken
                .frames
                .last()
                .map_or(next, |frame| frame.log_id().index + 1);
        }
        Ok(taken.frames)
    }

    /// The same without records and without a limit of bytes.
    pub async fn read_heads(&self, range: Range<u64>) -> Result<Vec<FrameHead>> {
        let mut heads: Vec<FrameHead> = Vec::new();
        let mut next = range.start;
        while next < range.end {
            let frames = match self.read(next..range.end, HEADS_STEP_BYTES).await {
                Err(StorageError::OutOfRange { .. }) if !heads.is_empty() => break,
                result => result?,
            };
            heads.extend(frames.iter().map(Frame::to_head));
            next = heads
                .last()
                .map_or(range.end, |head| head.header.log_id.index + 1);
        }
        Ok(heads)
    }

    /// Whole batches from the one that contains `from`, as long as their base offset is below
    /// `before`, at least one and then up to `max_bytes`. A batch may come as two pieces: the
    /// pieces one after the other are the batches. Empty if there is none in this range.
    pub async fn read_batches(
        &self,
        from: Offset,
        before: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>> {
        loop {
            let cuts = self.0.cuts();
            let batches = self.read_batches_once(from, before, max_bytes).await;
            if self.0.cuts() == cuts {
                return batches;
            }
        }
    }

    async fn read_batches_once(
        &self,
        from: Offset,
        before: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>> {
        let mut taken = Taken::new(max_bytes);
        let mut next = from;
        while next < before && !taken.is_full() {
            match self.0.batches_from_memory(next, before, &mut taken) {
                Source::Memory | Source::End => break,
                Source::Segment(segment) => {
                    let inner = Arc::clone(&self.0);
                    let read = move || inner.batches_of(&segment, next, before, taken);
                    let more;
                    (taken, more) = self.0.core.blocking("fetch", read).await?;
                    if !more {
                        break;
                    }
                    if mutant::on(Mutant::SegmentBoundarySkips)
                        && let Some(last) = taken.frames.last()
                    {
                        next = Offset(last.next_offset().0 + 1);
                        continue;
                    }
                }
            }
            let after = taken.frames.last().map_or(next, Frame::next_offset);
            if after == next {
                break;
            }
            next = after;
        }
        Ok(taken
            .frames
            .iter()
            .filter_map(Frame::batch_parts)
            .flatten()
            .collect())
    }

    /// Base offset of the entry at `index`; of the index after the last, the next offset.
    pub async fn offset_at(&self, index: u64) -> Result<Offset> {
        let inner = Arc::clone(&self.0);
        {
            let state = self.0.state.lock();
            let (first, end) = (state.start.index(), state.end());
            if index < first || index > end {
                return Err(StorageError::OutOfRange { index, first, end });
            }
            if index >= state.tail_start() || index == end {
                drop(state);
                return inner.offset_of(index);
            }
        }
        self.0
            .core
            .blocking("offset of an index", move || {
                let cuts = inner.cuts();
                inner.judge_read(cuts, inner.offset_of(index))
            })
            .await
    }

    /// Index of the batch that contains `offset`; `None` outside the log.
    pub async fn index_at(&self, offset: Offset) -> Result<Option<u64>> {
        let mut taken = Taken::new(1);
        let before = Offset(offset.0.saturating_add(1));
        let segment = match self.0.batches_from_memory(offset, before, &mut taken) {
            Source::Segment(segment) => segment,
            Source::Memory | Source::End => {
                return Ok(taken.frames.first().map(|frame| frame.log_id().index));
            }
        };
        let inner = Arc::clone(&self.0);
        let read = move || inner.batches_of(&segment, offset, before, taken);
        let (taken, _) = self.0.core.blocking("index of an offset", read).await?;
        Ok(taken.frames.first().map(|frame| frame.log_id().index))
    }

    /// The first batch with a record of time `timestamp_ms` or later, of those that reach beyond the
    /// start of `within` and begin before its end: its base offset and its largest timestamp.
    pub async fn offset_for_time(
        &self,
        timestamp_ms: i64,
        within: Range<Offset>,
    ) -> Result<Option<(Offset, i64)>> {
        let inner = Arc::clone(&self.0);
        let look = move || inner.offset_for_time(timestamp_ms, &within);
        self.0.core.blocking("offset of a time", look).await
    }
}

impl LogInner {
    /// Takes entries from the tail, or says where `index` is instead.
    fn entries_from_memory(&self, index: u64, end: u64, taken: &mut Taken) -> Result<Source> {
        let state = self.state.lock();
        let (first, log_end) = (state.start.index(), state.end());
        if index < first || index >= log_end {
            return Err(StorageError::OutOfRange {
                index,
                first,
                end: log_end,
            });
        }
        if let Some(at) = state.tail_position(index) {
            let wanted = state
                .tail
                .range(at..)
                .take_while(|frame| frame.log_id().index < end);
            for frame in wanted {
                if !taken.take(frame.clone()) {
                    break;
                }
            }
            return Ok(Source::Memory);
        }
        let after = state
            .segments
            .partition_point(|segment| segment.first_index <= index);
        let segment = after.checked_sub(1).and_then(|at| state.segments.get(at));
        Ok(segment.map_or(Source::End, |segment| Source::Segment(Arc::clone(segment))))
    }

    fn batches_from_memory(&self, from: Offset, before: Offset, taken: &mut Taken) -> Source {
        let state = self.state.lock();
        if from >= state.next_offset || from < state.start_offset() {
            return Source::End;
        }
        if state
            .tail
            .front()
            .is_some_and(|frame| frame.base_offset() <= from)
        {
            let at = state
                .tail
                .partition_point(|frame| frame.next_offset() <= from);
            let wanted = state
                .tail
                .range(at..)
                .take_while(|frame| frame.base_offset() < before);
            for frame in wanted.filter(|frame| frame.kind() == FrameKind::Batch) {
                if !taken.take(frame.clone()) {
                    break;
                }
            }
            return Source::Memory;
        }
        // The last segment that begins at or before the offset. Of several with one base offset, only the last
        // can have records.
        let after = state
            .segments
            .partition_point(|segment| segment.base_offset <= from);
        let segment = after.checked_sub(1).and_then(|at| state.segments.get(at));
        segment.map_or(Source::End, |segment| Source::Segment(Arc::clone(segment)))
    }

    /// Takes entries from a file; says whether more may follow elsewhere.
    fn entries_of(
        &self,
        segment: &Arc<Segment>,
        range: Range<u64>,
        mut taken: Taken,
    ) -> Result<(Taken, bool)> {
        let before = taken.frames.len();
        let cuts = self.cuts();
        let mut room = true;
        let chunk = taken.room();
        let from = From::Index(range.start);
        let scanned = files::scan_entries(&self.core, segment, from, chunk, &mut |_, frame| {
            room = frame.log_id().index < range.end && taken.take(frame);
            room && !taken.is_full()
        });
        self.judge_read(cuts, scanned)?;
        // A file that ends before the entry can only be one that a truncation cut meanwhile.
        let more = room && !taken.is_full() && taken.frames.len() > before;
        Ok((taken, more))
    }

    fn batches_of(
        &self,
        segment: &Arc<Segment>,
        from: Offset,
        before: Offset,
        mut taken: Taken,
    ) -> Result<(Taken, bool)> {
        let cuts = self.cuts();
        let mut room = true;
        let chunk = taken.room();
        let from = From::Offset(from);
        let scanned = files::scan_entries(&self.core, segment, from, chunk, &mut |_, frame| {
            if frame.kind() != FrameKind::Batch {
                return true;
            }
            room = frame.base_offset() < before && taken.take(frame);
            room && !taken.is_full()
        });
        self.judge_read(cuts, scanned)?;
        let more = room && !taken.is_full();
        Ok((taken, more))
    }

    /// How often entries were taken away; see [`super::state::LogState::cuts`].
    pub(super) fn cuts(&self) -> u64 {
        self.state.lock().cuts
    }

    /// Damage met by a reader stops the log, so that it is rebuilt; unless entries were taken away
    /// since `cuts`, for then the file may have changed under the reader.
    pub(super) fn judge_read<T>(&self, cuts: u64, scanned: Result<T>) -> Result<T> {
        scanned.map_err(|error| {
            if !error.is_damage() {
                return error;
            }
            if self.cuts() != cuts || self.is_gone(&error) {
                let state = self.state.lock();
                let (first, end) = (state.start.index(), state.end());
                return StorageError::OutOfRange {
                    index: first.saturating_sub(1),
                    first,
                    end,
                };
            }
            self.core.engine.metrics.damaged.increment(1);
            drop(self.poison(error.clone()));
            error
        })
    }

    /// Whether the file of an error has left the log meanwhile, by a purge.
    fn is_gone(&self, error: &StorageError) -> bool {
        let StorageError::Damaged { file, .. } = error else {
            return false;
        };
        let state = self.state.lock();
        !state.segments.iter().any(|segment| segment.path == *file)
    }

    fn offset_for_time(&self, time: i64, within: &Range<Offset>) -> Result<Option<(Offset, i64)>> {
        loop {
            let (segments, start, written_end, cuts) = {
                let state = self.state.lock();
                let late = |segment: &&Arc<Segment>| segment.summary.lock().max_timestamp >= time;
                let segments: Vec<_> = state.segments.iter().filter(late).cloned().collect();
                let start = state.start_offset().max(within.start);
                (segments, start, state.written_end, state.cuts)
            };
            for segment in segments {
                let mut found = None;
                let from = From::Time(time);
                let mut look = |_, frame: Frame| {
                    if frame.kind() == FrameKind::Batch && frame.next_offset() > start {
                        found = Some((frame.base_offset(), frame.max_timestamp()));
                    }
                    found.is_none()
                };
                let scanned =
                    files::scan_entries(&self.core, &segment, from, TIME_STEP_BYTES, &mut look);
                self.judge_read(cuts, scanned)?;
                if found.is_some() {
                    return Ok(found.filter(|(offset, _)| *offset < within.end));
                }
            }
            let state = self.state.lock();
            // What was not in the files then is in the tail now, unless it was written and dropped
            // meanwhile; then the files have it.
            if state.tail_start() <= written_end {
                let rest = state
                    .tail
                    .iter()
                    .filter(|f| f.log_id().index >= written_end);
                let found = rest
                    .filter(|f| f.kind() == FrameKind::Batch && f.next_offset() > start)
                    .find(|f| f.max_timestamp() >= time)
                    .map(|frame| (frame.base_offset(), frame.max_timestamp()));
                return Ok(found.filter(|(offset, _)| *offset < within.end));
            }
        }
    }
}
