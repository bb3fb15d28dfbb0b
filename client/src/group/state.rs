//! What a member owns, and what follows from what it is told. No clock, no network.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
};

use seriatim_proto::{
    ids::TopicPartition,
    v1::{self, ErrorCode},
};

use super::{
    lease::Lease,
    part::{Part, Phase, flatten},
};
use crate::{
    consumer::{ConsumedBatch, TopicKey},
    error::ClientError,
};

/// Failures that wait for the application.
const ERRORS: usize = 256;

/// Partitions, and which acquisition of each is meant.
pub(super) type Acquired = Vec<(TopicPartition, u64)>;

/// A batch that came back, and has not been [taken note](State::note_returned) of.
#[derive(Debug)]
pub(super) struct Returned {
    partition: TopicPartition,
    round: u64,
    from: i64,
    until: i64,
}

/// Everything a member and its consumer share.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) parts: BTreeMap<TopicPartition, Part>,
    pub(super) member_id: String,
    pub(super) generation: u64,
    pub(super) lease: Lease,
    /// Batches dropped since the application last came to the consumer. At most one for each batch
    /// that was handed on.
    pub(super) returned: Vec<Returned>,
    /// Partitions taken away of which the application was not told yet.
    pub(super) lost: BTreeSet<TopicPartition>,
    /// Failures that the application gets: at most one of each partition, and one of the member.
    pub(super) errors: VecDeque<ClientError>,
    /// No more partitions are read.
    pub(super) closing: bool,
    /// The member is gone.
    pub(super) ended: bool,
    /// The consumer was dropped.
    pub(super) abandoned: bool,
    /// The application hears what comes and goes.
    tells: bool,
    numbers: u64,
}

impl State {
    /// Nothing yet, of an application that hears what comes and goes, or does not.
    pub(super) fn new(tells: bool) -> Self {
        Self {
            tells,
            ..Self::default()
        }
    }

    /// A number that no acquisition, reader or round has had.
    pub(super) const fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A partition of a certain acquisition, if it is still that.
    pub(super) fn acquired(&mut self, tp: &TopicPartition, number: u64) -> Option<&mut Part> {
        self.parts
            .get_mut(tp)
            .filter(|part| part.acquired == number)
    }

    /// A partition in a certain round, if it is still in it.
    pub(super) fn in_round(&mut self, tp: &TopicPartition, round: u64) -> Option<&mut Part> {
        self.parts.get_mut(tp).filter(|part| part.round == round)
    }

    pub(super) fn keep_returned(&mut self, tp: &TopicPartition, round: u64, range: (i64, i64)) {
        if self.in_round(tp, round).is_some() {
            self.returned.push(Returned {
                partition: tp.clone(),
                round,
                from: range.0,
                until: range.1,
            });
        }
    }

    /// The application came back to the consumer: what it dropped before is processed. Tells whether
    /// there was anything.
    pub(super) fn note_returned(&mut self) -> bool {
        let returned = mem::take(&mut self.returned);
        for batch in &returned {
            let part = self.in_round(&batch.partition, batch.round);
            if let Some(tracker) = part.and_then(|part| part.tracker.as_mut()) {
                tracker.finish(batch.from, batch.until);
            }
        }
        !returned.is_empty()
    }

    /// Takes over what the coordinator says is this member's. Returns what was to be let go of and
    /// is, which the coordinator has not heard.
    pub(super) fn assign(&mut self, news: &v1::Assignment) -> Vec<TopicPartition> {
        self.generation = news.generation;
        let mut named = BTreeSet::new();
        for assigned in &news.assigned {
            let tp = TopicPartition::new(assigned.topic.clone(), assigned.partition);
            self.keep_or_gain(&tp, assigned.granted_generation, assigned.committed_offset);
            let _new = named.insert(tp);
        }
        let mut released = Vec::new();
        for tp in flatten(&news.revoke) {
            if self.revoke(&tp) {
                released.push(tp.clone());
            }
            let _new = named.insert(tp);
        }
        let gone: Vec<_> = self
            .parts
            .keys()
            .filter(|tp| !named.contains(tp))
            .cloned()
            .collect();
        for tp in gone {
            self.lose(&tp);
        }
        released
    }

    /// The same while the member closes: it may lose partitions, and gains none.
    pub(super) fn assign_no_more(&mut self, news: &v1::Assignment) {
        self.generation = news.generation;
        let mut kept: BTreeSet<(TopicPartition, u64)> = BTreeSet::new();
        for assigned in &news.assigned {
            let tp = TopicPartition::new(assigned.topic.clone(), assigned.partition);
            let _new = kept.insert((tp, assigned.granted_generation));
        }
        let revoked: BTreeSet<_> = flatten(&news.revoke).collect();
        let mine = |tp: &TopicPartition, part: &Part| {
            revoked.contains(tp) || kept.contains(&(tp.clone(), part.granted))
        };
        let parts = self.parts.iter();
        let gone = parts.filter(|(tp, part)| !mine(tp, part));
        for tp in gone.map(|(tp, _)| tp.clone()).collect::<Vec<_>>() {
            self.lose(&tp);
        }
    }

    fn keep_or_gain(&mut self, tp: &TopicPartition, granted: u64, stored: Option<i64>) {
        if let Some(part) = self.parts.get_mut(tp) {
            let mine = part.granted == granted;
            if mine {
                part.learn(stored);
            }
            match part.phase {
                Phase::Assigned | Phase::Announcing | Phase::Locating | Phase::Running if mine => {
                    return;
                }
                // It stays after all, and the application has not heard that it was to go: the reader
                // goes on where it stopped.
                Phase::Draining | Phase::Drained if mine => {
                    part.phase = Phase::Locating;
                    return;
                }
                Phase::Leaving | Phase::Released if mine && !self.tells => {
                    part.phase = Phase::Locating;
                    return;
                }
                // It has, and may have dropped what was not committed: it hears that it has it again,
                // and begins at the committed offset.
                Phase::Leaving | Phase::Released => {}
                _ => self.lose(tp),
            }
        }
        let number = self.number();
        let _before = self
            .parts
            .insert(tp.clone(), Part::new(number, granted, stored));
    }

    /// Begins to let go of a partition; tells whether that is done already.
    fn revoke(&mut self, tp: &TopicPartition) -> bool {
        let Some(part) = self.parts.get_mut(tp) else {
            return true;
        };
        match part.phase {
            // The application has never heard of it.
            Phase::Assigned => {
                part.phase = Phase::Released;
                true
            }
            Phase::Announcing | Phase::Locating | Phase::Running => {
                part.stop();
                part.phase = Phase::Draining;
                false
            }
            Phase::Draining | Phase::Drained | Phase::Leaving => false,
            Phase::Released => true,
        }
    }

    /// A partition is not this member's any more.
    fn lose(&mut self, tp: &TopicPartition) {
        let Some(part) = self.parts.remove(tp) else {
            return;
        };
        if !matches!(
            part.phase,
            Phase::Assigned | Phase::Leaving | Phase::Released
        ) {
            let _new = self.lost.insert(tp.clone());
        }
    }

    /// Nothing is this member's any more.
    pub(super) fn lose_all(&mut self) {
        self.lease.end();
        for tp in self.parts.keys().cloned().collect::<Vec<_>>() {
            self.lose(&tp);
        }
    }

    /// Begins to let go of everything, without waiting for what is with the application.
    pub(super) fn close(&mut self) {
        self.closing = true;
        for part in self.parts.values_mut() {
            part.stop();
            part.phase = match part.phase {
                Phase::Assigned | Phase::Released => Phase::Released,
                phase @ (Phase::Drained | Phase::Leaving) => phase,
                _ => Phase::Draining,
            };
        }
    }

    /// Partitions in one phase.
    pub(super) fn in_phase(&self, phase: Phase) -> Acquired {
        let of = self.parts.iter().filter(|(_, part)| part.phase == phase);
        of.map(|(tp, part)| (tp.clone(), part.acquired)).collect()
    }

    /// Moves partitions on to a phase, as far as they are still what they were.
    pub(super) fn enter(&mut self, of: &[(TopicPartition, u64)], from: Phase, to: Phase) {
        for (tp, number) in of {
            if let Some(part) = self.acquired(tp, *number)
                && part.phase == from
            {
                part.phase = to;
            }
        }
    }

    /// Lets partitions go of which everything came back and, if they are to be committed, is. Tells
    /// whether one waits for a commit.
    pub(super) fn drain(&mut self, auto_commit: bool) -> bool {
        let closing = self.closing;
        let mut waits = false;
        for part in self.parts.values_mut() {
            if part.phase != Phase::Draining || !(closing || part.is_drained()) {
                continue;
            }
            if auto_commit && part.to_commit().is_some() {
                waits = true;
            } else {
                part.phase = Phase::Drained;
            }
        }
        waits
    }

    /// What a reader hands over: `None` if it is of no interest (any more).
    pub(super) fn deliver(
        &mut self,
        key: &TopicKey,
        delivery: Result<ConsumedBatch, ClientError>,
    ) -> Option<Result<Handed, ClientError>> {
        let part = self.parts.get_mut(key.tp.as_ref())?;
        if part.reader != key.generation || part.phase != Phase::Running {
            return None;
        }
        match delivery {
            Err(error) => {
                part.stop();
                Some(Err(error))
            }
            Ok(batch) if part.paused => {
                part.parked.push_back(batch);
                None
            }
            Ok(batch) => {
                let number = self.number();
                let part = self.parts.get_mut(key.tp.as_ref())?;
                Some(Ok(hand_on(part, batch, number)))
            }
        }
    }

    /// A batch of a partition that was paused and is not any more.
    pub(super) fn unpark(&mut self) -> Option<Handed> {
        let number = self.number();
        let waiting = |part: &&mut Part| {
            part.phase == Phase::Running && !part.paused && !part.parked.is_empty()
        };
        let part = self.parts.values_mut().find(waiting)?;
        let batch = part.parked.pop_front()?;
        Some(hand_on(part, batch, number))
    }

    /// A failure that the application gets with the next batch.
    pub(super) fn report(&mut self, error: ClientError) {
        if self.errors.len() < ERRORS {
            self.errors.push_back(error);
        } else {
            tracing::warn!(%error, "a failure that the application does not come for");
        }
    }

    /// The member cannot go on.
    pub(super) fn fail(&mut self, error: ClientError) {
        self.errors.push_back(error);
        self.ended = true;
    }
}

/// A batch for the application, and the round that it belongs to.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) batch: ConsumedBatch,
    pub(super) round: u64,
    pub(super) granted: u64,
}

fn hand_on(part: &mut Part, batch: ConsumedBatch, number: u64) -> Handed {
    if let Some(reading) = &part.reading {
        reading.credit.give_back(batch.bytes());
    }
    let (from, to) = (batch.first_offset().0, batch.next_offset().0);
    // The offset that was wanted lay beyond the end, and the reset policy went back.
    let back = part.tracker.as_ref().is_none_or(|t| from < t.position());
    if back {
        part.begin(number, from, true);
    }
    if let Some(tracker) = &mut part.tracker {
        tracker.hand_on(from, to);
    }
    Handed {
        batch,
        round: part.round,
        granted: part.granted,
    }
}

/// What to do about a failure that a coordinator told a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The member goes on; the same may succeed later or elsewhere.
    Retry,
    /// The group does not know the member: it begins anew.
    Unknown,
    /// What this member believes to own is out of date; the coordinator has to say it again.
    Outdated,
    /// It is over.
    Fatal,
}

pub(super) fn judge(error: &ClientError) -> Verdict {
    match error.code() {
        Some(ErrorCode::UnknownMember) => Verdict::Unknown,
        Some(ErrorCode::StaleGeneration | ErrorCode::OffsetWentBack) => Verdict::Outdated,
        _ if error.is_retryable() => Verdict::Retry,
        _ => Verdict::Fatal,
    }
}
