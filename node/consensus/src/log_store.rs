//! openraft's log storage over [`Log`] and the node's hard state.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds, RangeInclusive},
};

use futures::{Stream, stream};
use openraft::{
    EntryPayload, OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
};
use seriatim_storage::{Log, LogId, Storage};

use crate::{
    codec,
    raft::{
        RaftEntry, RaftLogId, RaftVote, Types, from_raft, io_error, to_raft, vote_from_raft,
        vote_to_raft,
    },
    refusals::Refusals,
};

/// Entries that one read for apply returns at most; heads are small.
const APPLY_CHUNK: u64 = 1024;

/// One group's log as openraft sees it.
#[derive(Clone)]
pub(crate) struct LogStore {
    pub(crate) storage: Storage,
    pub(crate) log: Log,
    pub(crate) refusals: Refusals,
    /// Most bytes that one read for replication returns (at least one entry).
    pub(crate) max_read_bytes: usize,
}

impl LogStore {
    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => self.log.first_index(),
        };
        let after_last = self.log.last_log_id().map_or(0, |last| last.index + 1);
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => after_last,
        };
        (start, end.min(after_last))
    }

    async fn entries(&self, start: u64, end: u64, bytes: usize) -> io::Result<Vec<RaftEntry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let frames = self.log.read(start..end, bytes).await.map_err(io_error)?;
        let entries = frames.iter().map(codec::to_entry);
        entries.collect::<Result<_, _>>().map_err(io_error)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.bounds(&range);
        let log = self.log.clone();
        let chunks = stream::unfold(start, move |at| {
            let log = log.clone();
            async move {
                if at >= end {
                    return None;
                }
                let stop = end.min(at + APPLY_CHUNK);
                let heads = log.read_heads(at..stop).await;
                let items: Vec<io::Result<RaftEntry>> = match heads {
                    Ok(heads) if heads.is_empty() => vec![Err(missing(at))],
                    Ok(heads) => heads
                        .into_iter()
                        .map(|head| codec::head_entry(head).map_err(io_error))
                        .collect(),
                    Err(error) => vec![Err(io_error(error))],
                };
                let failed = items.iter().any(Result::is_err);
                let next = if failed {
                    end
                } else {
                    at + u64::try_from(items.len()).unwrap_or(APPLY_CHUNK)
                };
                Some((stream::iter(items), next))
            }
        });
        Box::pin(futures::StreamExt::flatten(chunks))
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.bounds(&range);
        // What was purged is left out, as openraft expects of this call and of no other.
        let mut at = start.max(self.log.first_index());
        let mut all = Vec::new();
        // openraft expects the whole range here; it asks for small ranges only.
        while at < end {
            let some = self.entries(at, end, self.max_read_bytes).await?;
            if some.is_empty() {
                return Err(missing(at));
            }
            at += u64::try_from(some.len()).unwrap_or_default();
            all.extend(some);
        }
        Ok(all)
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.storage.votes().vote(self.log.key()).map(vote_to_raft))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        match self.entries(start, end, self.max_read_bytes).await {
            // Purged while a follower was to be sent it: an empty answer makes openraft look again,
            // an error would stop the group.
            Err(_purged) if start < self.log.first_index() => {
                hit!("consensus.read.purged");
                Ok(Vec::new())
            }
            result => result,
        }
    }

    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<RaftLogId>,
    ) -> io::Result<Vec<RaftLogId>> {
        // The trait's documentation asks for the first id of each leader; openraft's `LogIdList`,
        // which keeps the answer as it is, holds the last of each. With the first ones it takes
        // the entries of a term for those of the next.
        let (first, last) = range.into_inner();
        let epochs = self.log.epochs();
        let ends = epochs.iter().zip(epochs.iter().skip(1));
        let mut ids: Vec<RaftLogId> = ends
            .map(|(epoch, next)| {
                to_raft(LogId {
                    term: epoch.term,
                    index: next.index.saturating_sub(1),
                })
            })
            .filter(|id| id.index >= first.index && id.index < last.index)
            .collect();
        ids.push(last);
        Ok(ids)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let purged = self.log.purged_log_id().map(to_raft);
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: self.log.last_log_id().map(to_raft).or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        // The engine counts votes and entries in one order: a vote that is saved tells it that every entry
        // that was appended before is durable, and it says so to the leader. Votes have a file of their own,
        // which may be faster.
        if let Some(last) = self.log.last_log_id() {
            if self.log.flushed_index() < Some(last.index) {
                hit!("consensus.vote.waited");
            }
            self.log.flushed(last.index).await.map_err(io_error)?;
        }
        let votes = self.storage.votes();
        let saved = votes.save_vote(self.log.key(), vote_from_raft(vote)).await;
        saved.map_err(io_error)
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        if let Some(id) = committed {
            self.log.save_committed(from_raft(&id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        // The file is not synced: it may name an entry that a power loss took.
        let last = self.log.last_log_id();
        if mutant::on(Mutant::LogEndTakenForCommitted) {
            return Ok(last.map(to_raft));
        }
        let known = self.log.committed().filter(|id| Some(*id) <= last);
        Ok(known.map(to_raft))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut next = self.log.next_offset();
        let mut frames = Vec::new();
        for mut entry in entries {
            if self.refusals.leave_no_place(&entry.payload) {
                hit!("consensus.propose.void");
                entry.payload = EntryPayload::Blank;
            }
            let frame = codec::to_frame(entry, next)
                .ok_or_else(|| io::Error::other("an entry without records cannot be appended"))?;
            next = frame.next_offset();
            frames.push(frame);
        }
        let done = Box::new(move |result: Result<(), _>| {
            callback.io_completed(result.map_err(io_error));
        });
        self.log.append(frames, done).map_err(io_error)
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> io::Result<()> {
        hit!("consensus.conflict.truncated");
        let mut from = last.map_or(0, |id| id.index + 1);
        if mutant::on(Mutant::TruncateOneTooMany) {
            from = from.saturating_sub(1);
        }
        self.log.truncate_from(from).await.map_err(io_error)
    }

    async fn purge(&mut self, upto: RaftLogId) -> io::Result<()> {
        self.log.purge(from_raft(&upto)).await.map_err(io_error)
    }
}

fn missing(index: u64) -> io::Error {
    io::Error::other(format!("the log has no entry {index}"))
}
