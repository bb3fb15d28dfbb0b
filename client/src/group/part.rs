//! One partition that this member owns.

use std::collections::VecDeque;

use seriatim_proto::v1;

use super::tracker::Tracker;
use crate::{
    consumer::{ConsumedBatch, Credit, Watermark},
    rt,
};

/// How far a partition has come between being assigned and being let go of.
///
/// ```text
///  Assigned -> Announcing -> Locating -> Running
///     |            |            |         |   ^
///     |            +------------+---------+   | the coordinator leaves it here after all
///     |                         v             |
///     |                      Draining --------+
///     |                         v             |
///     |                      Drained ---------+
///     |                         v             | if the application is not told of changes
///     |                      Leaving -> Released
///     +------------------------------------^
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The application has not been told yet.
    Assigned,
    /// It is being told.
    Announcing,
    /// Where to begin is looked for.
    Locating,
    /// Its records are handed on (or it has failed, and waits for a seek).
    Running,
    /// To be let go of: nothing is handed on, what was comes back and is committed.
    Draining,
    /// All came back and is committed; the application has not been told yet.
    Drained,
    /// It is being told.
    Leaving,
    /// The coordinator knows, or will.
    Released,
}

/// What is read ahead of a partition.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) credit: Credit,
    pub(super) watermark: Watermark,
    pub(super) _task: rt::Task,
}

/// A partition as this member has it.
#[derive(Debug)]
pub(super) struct Part {
    /// Which acquisition of the partition this is.
    pub(super) acquired: u64,
    /// The generation in which the coordinator granted it. Under another one it was lost and granted
    /// again, perhaps unheard of.
    pub(super) granted: u64,
    /// Which reader reads it: batches of others are dropped, they are from before a seek.
    pub(super) reader: u64,
    /// Which tracker counts: batches of others that come back mean nothing any more.
    pub(super) round: u64,
    pub(super) phase: Phase,
    /// Invariant: `None` until it is known where to begin.
    pub(super) tracker: Option<Tracker>,
    /// What the coordinator holds, as far as this member knows.
    pub(super) committed: Option<i64>,
    /// The highest offset that this member has sent; it may have been stored without an answer.
    pub(super) sent: Option<i64>,
    /// The application sought back, so a commit below `committed` is meant.
    pub(super) allow_back: bool,
    /// Somebody is looking for where to begin.
    pub(super) looking: bool,
    pub(super) paused: bool,
    /// Batches that came while it was paused, within its share of the prefetch.
    pub(super) parked: VecDeque<ConsumedBatch>,
    pub(super) reading: Option<Reading>,
}

impl Part {
    pub(super) const fn new(acquired: u64, granted: u64, committed: Option<i64>) -> Self {
        Self {
            acquired,
            granted,
            reader: acquired,
            round: acquired,
            phase: Phase::Assigned,
            tracker: None,
            committed,
            sent: None,
            allow_back: false,
            looking: false,
            paused: false,
            parked: VecDeque::new(),
            reading: None,
        }
    }

    /// Hands on nothing more.
    pub(super) fn stop(&mut self) {
        self.reading = None;
        self.parked.clear();
    }

    /// Nothing of it is with the application.
    pub(super) fn is_drained(&self) -> bool {
        self.tracker.as_ref().is_none_or(Tracker::is_drained)
    }

    /// The offset to commit, if there is something new: what came back as a contiguous part.
    pub(super) fn to_commit(&self) -> Option<i64> {
        if self.phase == Phase::Released {
            return None;
        }
        let released = self.tracker.as_ref().and_then(Tracker::released)?;
        let news = match self.committed {
            None => true,
            Some(committed) => released > committed || (self.allow_back && released != committed),
        };
        news.then_some(released)
    }

    /// An offset is stored.
    pub(super) fn stored(&mut self, offset: i64, sought_since: bool) {
        self.committed = Some(offset);
        self.sent = None;
        self.allow_back &= sought_since;
    }

    /// The coordinator says what it holds, perhaps as of before the last commit.
    pub(super) fn learn(&mut self, stored: Option<i64>) {
        if !self.allow_back {
            self.committed = self.committed.max(stored);
        }
    }

    /// Begins to count anew at an offset.
    pub(super) fn begin(&mut self, round: u64, offset: i64, allow_back: bool) {
        self.round = round;
        self.tracker = Some(Tracker::new(offset));
        let stored = self.committed.max(self.sent);
        self.allow_back = allow_back && stored.is_some_and(|stored| offset < stored);
    }
}

/// The key of a partition in a message.
pub(super) fn flatten(
    all: &[v1::TopicPartitions],
) -> impl Iterator<Item = seriatim_proto::ids::TopicPartition> + '_ {
    let of = |topic: &v1::TopicPartitions| {
        let name = topic.topic.clone();
        let make = move |&partition: &i32| {
            seriatim_proto::ids::TopicPartition::new(name.clone(), partition)
        };
        topic.partitions.iter().map(make).collect::<Vec<_>>()
    };
    all.iter().flat_map(of)
}
