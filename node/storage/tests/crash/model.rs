//! What a data directory must hold: what was acknowledged, and what one step under way may add.

use bytes::Bytes;
use seriatim_proto::ids::{Offset, ReplicaId};
use seriatim_storage::{Boundary, Frame, Log, LogId, Storage, Vote};

use crate::common::*;

/// One log and its vote.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) purged: Option<LogId>,
    pub(crate) start_offset: i64,
    /// The entries behind `purged`.
    pub(crate) frames: Vec<Frame>,
    pub(crate) vote: Option<Vote>,
    pub(crate) checkpoint: Option<(LogId, Bytes)>,
    pub(crate) boundary: Option<Boundary>,
}

/// One thing that a replica does to its storage.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// So many appends of so many frames each, of about so many bytes; all are under way together.
    Append(u32, u32, usize),
    /// A leader with the next term writes its blank.
    Blank,
    /// Removes so many entries at the end, as far as allowed.
    Truncate(u64),
    /// Purges all but so many entries.
    Purge(u64),
    Checkpoint,
    /// A boundary at the middle of the log.
    Boundary,
    /// A boundary at all but so many entries, then a purge up to it, as retention does.
    Compact(u64),
    /// Seals the segment.
    Roll,
    /// A boundary so far behind the end, and the log restarts there.
    Restart(u64),
    /// A boundary of another leader's at all but so many entries, and the log restarts there.
    Conflict(u64),
    Vote,
    Sync,
}

impl State {
    pub(crate) fn last(&self) -> Option<LogId> {
        self.frames.last().map(Frame::log_id).or(self.purged)
    }

    pub(crate) fn end(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    pub(crate) fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    pub(crate) fn next_offset(&self) -> i64 {
        self.frames
            .last()
            .map_or(self.start_offset, |frame| frame.next_offset().0)
    }

    pub(crate) fn maker(&self, term: u64) -> Maker {
        Maker {
            term,
            index: self.end(),
            offset: self.next_offset(),
        }
    }

    /// The first entry that may be truncated.
    pub(crate) fn kept(&self) -> u64 {
        let checkpoint = self.checkpoint.as_ref().map_or(0, |(at, _)| at.index + 1);
        self.first().max(checkpoint)
    }

    pub(crate) fn truncate(&mut self, index: u64) {
        let keep = usize::try_from(index - self.first()).unwrap();
        self.frames.truncate(keep);
    }

    pub(crate) fn purge(&mut self, upto: LogId) {
        let gone = usize::try_from(upto.index + 1 - self.first()).unwrap();
        let after = self.frames.split_off(gone);
        self.start_offset = self.next_offset();
        self.frames = after;
        self.purged = Some(upto);
    }

    pub(crate) fn vote(term: u64) -> Vote {
        Vote {
            term,
            voted_for: Some(ReplicaId(term % 3)),
            committed: term.is_multiple_of(2),
        }
    }

    /// What is there now.
    pub(crate) async fn found(storage: &Storage, log: &Log) -> Self {
        let state = Self {
            purged: log.purged_log_id(),
            start_offset: log.log_start_offset().0,
            frames: all(log).await,
            vote: storage.votes().vote(log.key()),
            checkpoint: log.checkpoint(),
            boundary: log.boundary().await.unwrap(),
        };
        assert_eq!(state.last(), log.last_log_id());
        assert_eq!(Offset(state.next_offset()), log.next_offset());
        assert_eq!(log.flushed_index(), state.end().checked_sub(1));
        let mut offset = state.start_offset;
        for (index, frame) in (state.first()..).zip(&state.frames) {
            let id = frame.log_id();
            assert_eq!((id.index, frame.base_offset().0), (index, offset), "a gap");
            assert_eq!(log.term_at(index), Some(id.term));
            offset = frame.next_offset().0;
        }
        state
    }

    /// Whether everything is here that was found by a process: Raft takes it for durable.
    pub(crate) fn check_kept(&self, found: &Self) {
        assert_eq!(self.vote, found.vote);
        let of = |state: &Self, first| {
            let frames = state.frames.iter();
            let frames = frames.filter(|frame: &&Frame| frame.log_id().index >= first);
            frames.cloned().collect::<Vec<_>>()
        };
        let first = self.first().max(found.first());
        assert!(of(self, first).starts_with(&of(found, first)));
    }

    /// Whether this is what may be left after `acked` was acknowledged and the step to `next` was
    /// under way.
    pub(crate) fn check(&self, acked: &Self, next: &Self) {
        let either = |what: &str, is: bool| assert!(is, "{what}: {self:#?}\nafter {acked:#?}");
        either("vote", self.vote == acked.vote || self.vote == next.vote);
        let checkpoint = &self.checkpoint;
        either(
            "checkpoint",
            *checkpoint == acked.checkpoint || *checkpoint == next.checkpoint,
        );
        let boundary = &self.boundary;
        either(
            "boundary",
            *boundary == acked.boundary || *boundary == next.boundary,
        );
        let place = |state: &Self| (state.purged, state.start_offset);
        let ids = |state: &Self| state.frames.iter().map(Frame::log_id).collect::<Vec<_>>();
        if place(self) == place(acked) && place(self) == place(next) {
            // Appended or truncated: anything between the two.
            let (short, long) = if acked.frames.len() < next.frames.len() {
                (acked, next)
            } else {
                (next, acked)
            };
            assert!(long.frames.starts_with(&short.frames));
            let found = ids(self);
            assert!(
                self.frames.starts_with(&short.frames) && long.frames.starts_with(&self.frames),
                "found {found:?}, not between {:?} and {:?}",
                ids(short),
                ids(long)
            );
        } else if place(self) == place(acked) {
            assert_eq!(ids(self), ids(acked));
            assert_eq!(self.frames, acked.frames);
        } else {
            assert_eq!(place(self), place(next), "start");
            assert_eq!(ids(self), ids(next));
            assert_eq!(self.frames, next.frames);
        }
    }
}
