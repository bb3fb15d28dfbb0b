//! Truncation and purge: the rare operations that take bytes away. They run on the disk thread that holds the
//! log, in order with its appends, and nothing is pending before them.

use std::sync::Arc;

use seriatim_proto::ids::Offset;
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
};

use super::{
    LogInner,
    files::{self, Place},
    state::Op,
    unlink,
    write::{Active, Round, Writer},
};
use crate::{
    LogId, Result, StorageError, cache,
    engine::Begun,
    error::IoContext,
    progress::LogProgress,
    segment::{HEADER_BYTES, Segment},
};

impl LogInner {
    /// Runs one control operation and answers it. An error that leaves the files in doubt stops
    /// the log. On a full disk the operation waits at the front of the queue: what needs room comes
    /// first in each of them, when nothing is changed yet.
    pub(super) fn control(self: &Arc<Self>, writer: &mut Writer, op: Op) -> Begun<Round> {
        let result = match &op {
            // Appends go through rounds; see `LogState::next_op`.
            Op::Append { .. } => Err(StorageError::Closed),
            Op::Sync(_) => self.sync_now(writer),
            Op::Truncate(index, _) => self.truncate_now(writer, *index),
            Op::Purge(upto, _) => self.purge_now(writer, *upto),
            Op::Roll(_) => self.roll_now(writer),
        };
        if result.as_ref().is_err_and(StorageError::is_no_space) {
            self.core.space.note(true);
            self.state.lock().queue.push_front(op);
            return Begun::Full;
        }
        let reply = match op {
            Op::Append { done, .. } => {
                done(Err(Arc::new(StorageError::Closed)));
                return Begun::Done;
            }
            Op::Sync(reply) | Op::Truncate(_, reply) | Op::Purge(_, reply) | Op::Roll(reply) => {
                reply
            }
        };
        let result = result.map_err(|error| match error {
            refused @ (StorageError::OutOfRange { .. } | StorageError::Busy { .. }) => refused,
            error => (*self.poison(error)).clone(),
        });
        // The caller may have stopped waiting; the operation is done all the same.
        drop(reply.send(result));
        Begun::Done
    }

    fn sync_now(&self, writer: &mut Writer) -> Result<()> {
        let end = self.state.lock().written_end;
        if writer.active.is_none() && writer.synced_end < end {
            let _open = self.reopen(writer)?;
        }
        self.sync_all(writer)?;
        writer.synced_end = writer.synced_end.max(end);
        Ok(())
    }

    /// Seals the segment that is written to, if there is anything in it: the next append begins
    /// another.
    fn roll_now(&self, writer: &mut Writer) -> Result<()> {
        if writer.active.is_none() {
            let _open = self.reopen(writer)?;
        }
        let Some(active) = &mut writer.active else {
            return Ok(());
        };
        if active.segment.summary.lock().last.is_none() {
            return Ok(());
        }
        self.seal(active)?;
        writer.active = None;
        self.sync_all(writer)?;
        writer.synced_end = writer.synced_end.max(self.state.lock().written_end);
        Ok(())
    }

    fn truncate_now(&self, writer: &mut Writer, index: u64) -> Result<()> {
        {
            let state = self.state.lock();
            if index >= state.end() {
                return Ok(());
            }
            let first = state.start.index();
            let kept = state
                .checkpoint
                .as_ref()
                .map_or(first, |(at, _)| at.index + 1);
            if index < first || index < kept {
                let end = state.end();
                return Err(StorageError::OutOfRange {
                    index,
                    first: kept.max(first),
                    end,
                });
            }
        }
        let (place, segment) = self.place_of(index)?;
        if writer.dir_dirty {
            // A file whose removal is undone by a power loss would not fit behind one that is cut now.
            self.core.disk.sync_dir(&self.dir).at("sync", &self.dir)?;
            writer.dir_dirty = false;
        }
        // First the hint: old ones must not claim afterwards that the removed entries are durable.
        writer.synced_end = writer.synced_end.min(index);
        self.lower_progress(writer.synced_end)?;
        files::remove_resume(&*self.core.disk, &self.dir)?;
        writer.active = None;
        let cut_here = index > segment.first_index;
        let removed = self.forget_from(index, &place, &segment, cut_here);
        if !removed.is_empty() {
            hit!("storage.truncate.files");
        }
        // From the last to the first, each durable before the next, so that a crash leaves no gap.
        for removed in removed.iter().rev() {
            self.remove_file(removed)?;
        }
        if cut_here {
            hit!("storage.truncate.inside");
            let file = segment.open(&*self.core.disk)?;
            file.set_len(place.position).at("cut", &segment.path)?;
            self.core.engine.sync(&*file, &segment.path)?;
            let position = place.position;
            writer.active = Some(Active::new(segment, file, position, position));
        }
        Ok(())
    }

    /// Takes the entries from `index` on out of memory, so that no reader meets the files while they
    /// change; returns the segments that go as a whole.
    fn forget_from(
        &self,
        index: u64,
        place: &Place,
        segment: &Arc<Segment>,
        cut_here: bool,
    ) -> Vec<Arc<Segment>> {
        let offset = place.base_offset;
        let mut state = self.state.lock();
        let freed = state.truncate(index, offset);
        self.core.cache.remove(freed);
        let keep_from = |other: &Arc<Segment>| {
            other.first_index < index && (cut_here || !Arc::ptr_eq(other, segment))
        };
        let keep = state
            .segments
            .iter()
            .take_while(|other| keep_from(other))
            .count();
        let removed = state.segments.split_off(keep);
        if cut_here {
            let last = state.last.filter(|last| last.index >= segment.first_index);
            let mut summary = segment.summary.lock();
            summary.end = place.position;
            summary.last = last;
            summary.next_offset = offset;
            summary.epochs.retain(|epoch| epoch.index < index);
            summary.sealed = false;
            if let Some(entries) = &mut *segment.index.lock() {
                entries.retain(|entry| entry.index < index);
            }
        }
        removed
    }

    /// The files go later, beside the log's own work: whoever waits for a purge may be a leader
    /// whose heartbeats wait too. What a crash leaves of them lies before `start`, and recovery
    /// removes it.
    fn purge_now(self: &Arc<Self>, writer: &mut Writer, upto: LogId) -> Result<()> {
        let (end, term, purged) = {
            let state = self.state.lock();
            (state.end(), state.term_at(upto.index), state.start.purged)
        };
        if purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        if term != Some(upto.term) {
            return self.restart_after(writer, upto, end);
        }
        let offset = self.offset_of(upto.index + 1)?;
        files::write_start(&*self.core.disk, &self.dir, upto, offset)?;
        let removed = {
            let mut state = self.state.lock();
            state.begin_after(upto, offset);
            let freed = state.evict(upto.index + 1);
            self.core.cache.remove(freed);
            // The last segment stays, so that its writer can go on.
            let sealed = state.segments.len().saturating_sub(1);
            let gone = state.segments.iter().take(sealed);
            let mut gone = gone
                .take_while(|segment| segment.ends_by(upto.index))
                .count();
            if mutant::on(Mutant::PurgeOneTooMany) {
                gone = sealed.min(gone + 1);
            }
            state.segments.drain(..gone).collect::<Vec<_>>()
        };
        self.core.engine.metrics.purged(&removed);
        unlink::submit(self, removed);
        Ok(())
    }

    /// The log does not hold `upto`: it is emptied and goes on behind it, at the offset of the boundary.
    fn restart_after(&self, writer: &mut Writer, upto: LogId, end: u64) -> Result<()> {
        let offset = {
            let state = self.state.lock();
            match state.boundary {
                Some((at, next_offset)) if at == upto => next_offset,
                _ => {
                    let first = state.start.index();
                    return Err(StorageError::OutOfRange {
                        index: upto.index,
                        first,
                        end,
                    });
                }
            }
        };
        writer.active = None;
        hit!("storage.purge.restarted");
        // Until the files are gone, the hint must be true of them as well.
        self.lower_progress(writer.synced_end.min(upto.index + 1))?;
        self.ensure_dir(writer)?;
        files::remove_resume(&*self.core.disk, &self.dir)?;
        files::write_start(&*self.core.disk, &self.dir, upto, offset)?;
        let removed = {
            let mut state = self.state.lock();
            let removed = std::mem::take(&mut state.segments);
            let freed = state.reset(upto, offset);
            self.core.cache.remove(freed);
            removed
        };
        self.flushed.notify_waiters();
        // From the last to the first: what a crash leaves begins at or before `upto`, so that recovery
        // finds it and knows by its term that it belongs to another history.
        for segment in removed.iter().rev() {
            self.remove_file(segment)?;
        }
        writer.synced_end = upto.index + 1;
        Ok(())
    }

    /// Creates the log's folder if need be; durable on return.
    pub(super) fn ensure_dir(&self, writer: &mut Writer) -> Result<()> {
        if writer.has_dir && !writer.parent_dirty {
            return Ok(());
        }
        self.core
            .disk
            .create_dir_all(&self.dir)
            .at("create", &self.dir)?;
        self.core
            .disk
            .sync_dir(&self.core.logs_dir)
            .at("sync", &self.core.logs_dir)?;
        writer.has_dir = true;
        writer.parent_dirty = false;
        Ok(())
    }

    /// Writes a progress that claims less than before, durably.
    fn lower_progress(&self, synced_end: u64) -> Result<()> {
        let committed = self.state.lock().committed;
        self.core.progress.put(
            self.key,
            LogProgress {
                synced_end,
                committed,
            },
        )?;
        self.core.progress.sync()
    }

    fn remove_file(&self, segment: &Segment) -> Result<()> {
        self.unlink(segment)?;
        self.core.disk.sync_dir(&self.dir).at("sync", &self.dir)
    }

    pub(super) fn unlink(&self, segment: &Segment) -> Result<()> {
        drop(segment.reader.lock().take());
        self.core
            .disk
            .remove_file(&segment.path)
            .at("remove", &segment.path)
    }

    /// Base offset of the entry at `index`, or of the index after the last. Blocks for a read where
    /// the entry is not in memory.
    pub(super) fn offset_of(&self, index: u64) -> Result<Offset> {
        {
            let state = self.state.lock();
            if index == state.end() {
                return Ok(state.next_offset);
            }
            if index == state.start.index() {
                return Ok(state.start.offset);
            }
            let frame = state.tail_position(index).and_then(|at| state.tail.get(at));
            if let Some(frame) = frame {
                return Ok(frame.base_offset());
            }
        }
        Ok(self.place_of(index)?.0.base_offset)
    }

    /// Where in which file an entry lies.
    fn place_of(&self, index: u64) -> Result<(Place, Arc<Segment>)> {
        let segment = {
            let state = self.state.lock();
            let after = state
                .segments
                .partition_point(|segment| segment.first_index <= index);
            let segment = after.checked_sub(1).and_then(|at| state.segments.get(at));
            segment.cloned().ok_or(StorageError::OutOfRange {
                index,
                first: state.start.index(),
                end: state.end(),
            })?
        };
        let place = files::place_of(&self.core, &segment, index)?;
        debug_assert!(place.position >= HEADER_BYTES);
        Ok((place, segment))
    }

    /// Drops frames below `end` from memory for the cache; returns what they counted.
    pub(crate) fn evict(&self, end: u64) -> u64 {
        self.state.lock().evict(end)
    }

    /// What the written frames in memory count.
    pub(super) fn cached(&self) -> u64 {
        let state = self.state.lock();
        let written = state
            .tail
            .iter()
            .take_while(|f| f.log_id().index < state.written_end);
        written.map(cache::cost).sum()
    }
}
