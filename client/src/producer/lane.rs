//! What the sender knows of one partition: the batches that are not acknowledged, their sequences
//! and their order. No input, no output: every decision is made here.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use seriatim_proto::{
    batch::{BatchHeader, HEADER_BYTES},
    ids::{Offset, ProducerId},
    record::ProducerStamp,
    v1::ErrorCode,
};
use tokio::time::Instant;

use super::{
    delivery::{Completion, Delivered},
    queue::{OpenBatch, Queue},
};
use crate::{error::ClientError, metadata::Term, rt, unknown::Unknown};

/// A producer session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) id: ProducerId,
    pub(super) epoch: i16,
}

/// What the options say about sending.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) linger: Duration,
    pub(super) max_in_flight: usize,
    pub(super) delivery_timeout: Duration,
}

/// A finished batch that is not acknowledged.
#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) id: u64,
    pub(super) bytes: Bytes,
    records: u32,
    sequence: i32,
    /// Its number in the lane.
    ordinal: u64,
    completion: Arc<Completion>,
    reserved: usize,
    created: Instant,
    /// The request that carries it now.
    pub(super) request: Option<u64>,
    /// When it was last sent, a batch before it was still unacknowledged: a gap that the leader saw
    /// may have been that batch's, even if its answer came first.
    behind: bool,
    /// An earlier attempt may have stored it.
    maybe_applied: bool,
    last: Option<ClientError>,
}

/// What to do next for a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send the batch with this id.
    Send(u64),
    /// Look again then.
    WaitUntil(Instant),
    /// Nothing, until something happens.
    Idle,
}

/// One partition of one producer.
///
/// Invariants:
/// - `unacked` is in the order of sequences, which have no gaps.
/// - No batch begins its way `max_in_flight` or more batches after one that is not acknowledged,
///   also if those between are: a leader recognises no more than that many last batches.
/// - A batch is sent only when every batch before it is on its way, so the leader sees a partition's
///   batches in order or refuses them.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) queue: Arc<Queue>,
    session: Option<Session>,
    next_sequence: i32,
    next_ordinal: u64,
    pub(super) unacked: VecDeque<Unacked>,
    retry_at: Option<Instant>,
    attempts: u32,
    /// The latest term in which a leader was heard of.
    leader_term: Term,
    /// The log that the batches are for, 0 while none is known.
    log: u64,
    /// A batch failed for good after it got a sequence: the session cannot go on. Nothing is sent
    /// until the batches in flight are back and there is a new session.
    broken: bool,
    unknown: Unknown,
    /// Bytes of the budget to return.
    freed: usize,
}

impl Lane {
    pub(super) fn new(queue: Arc<Queue>, session: Option<Session>) -> Self {
        Self {
            queue,
            session,
            next_sequence: 0,
            next_ordinal: 0,
            unacked: VecDeque::new(),
            retry_at: None,
            attempts: 0,
            leader_term: (0, i32::MIN),
            log: 0,
            broken: false,
            unknown: Unknown::default(),
            freed: 0,
        }
    }

    pub(super) const fn is_idempotent(&self) -> bool {
        self.session.is_some()
    }

    pub(super) fn has_work(&self) -> bool {
        let waiting = || {
            let batches = self.queue.batches.lock();
            batches.open.is_some() || !batches.sealed.is_empty()
        };
        !self.unacked.is_empty() || waiting()
    }

    /// A new session is needed and nothing is in flight any more.
    pub(super) fn wants_session(&self) -> bool {
        self.broken && self.in_flight() == 0
    }

    pub(super) fn take_freed(&mut self) -> usize {
        std::mem::take(&mut self.freed)
    }

    fn in_flight(&self) -> usize {
        self.unacked.iter().filter(|b| b.request.is_some()).count()
    }

    pub(super) fn completions(&self) -> impl Iterator<Item = Arc<Completion>> {
        self.unacked.iter().map(|b| Arc::clone(&b.completion))
    }

    pub(super) fn batch_mut(&mut self, id: u64) -> Option<&mut Unacked> {
        self.unacked.iter_mut().find(|b| b.id == id)
    }

    /// Decides what to send next; a batch that has no sequence yet gets one now.
    pub(super) fn next(&mut self, now: Instant, rules: Rules, next_id: &mut u64) -> Step {
        if self.broken {
            return Step::Idle;
        }
        if let Some(at) = self.retry_at.filter(|&at| at > now) {
            return Step::WaitUntil(at);
        }
        let in_flight = self.in_flight();
        if in_flight >= rules.max_in_flight {
            return Step::Idle;
        }
        let again = self.unacked.iter().position(|b| b.request.is_none());
        if let Some((at, batch)) = again.and_then(|at| Some((at, self.unacked.get_mut(at)?))) {
            batch.behind = at > 0;
            return Step::Send(batch.id);
        }
        let window = u64::try_from(rules.max_in_flight).unwrap_or(u64::MAX);
        if self
            .unacked
            .front()
            .is_some_and(|b| self.next_ordinal - b.ordinal >= window)
        {
            return Step::Idle;
        }
        match self.take_queued(now, rules, in_flight) {
            Ok(Some(open)) => self.finish(open, next_id),
            Ok(None) => Step::Idle,
            Err(at) => Step::WaitUntil(at),
        }
    }

    /// The next batch to begin with: a full one, or an open one that lingered long enough while
    /// nothing is in flight, so that batches grow while the leader is busy.
    fn take_queued(
        &self,
        now: Instant,
        rules: Rules,
        in_flight: usize,
    ) -> Result<Option<OpenBatch>, Instant> {
        let mut batches = self.queue.batches.lock();
        if let Some(full) = batches.sealed.pop_front() {
            return Ok(Some(full));
        }
        let Some(open) = &batches.open else {
            return Ok(None);
        };
        let ripe = open.created + rules.linger;
        if ripe > now {
            return Err(ripe);
        }
        Ok(if in_flight == 0 {
            batches.open.take()
        } else {
            None
        })
    }

    fn finish(&mut self, open: OpenBatch, next_id: &mut u64) -> Step {
        let records = open.builder.record_count();
        let sequence = self.next_sequence;
        let stamp = self.session.map(|session| ProducerStamp {
            id: session.id,
            epoch: session.epoch,
            base_sequence: sequence,
        });
        let bytes = match open.builder.finish(stamp) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.freed += open.reserved;
                open.completion
                    .complete(Err(ClientError::Records(Arc::new(error))));
                return Step::WaitUntil(open.created);
            }
        };
        self.next_sequence = advance(sequence, records);
        let id = *next_id;
        *next_id += 1;
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        self.unacked.push_back(Unacked {
            id,
            bytes,
            records,
            sequence,
            ordinal,
            completion: open.completion,
            reserved: open.reserved,
            created: open.created,
            request: None,
            behind: !self.unacked.is_empty(),
            maybe_applied: false,
            last: None,
        });
        Step::Send(id)
    }

    /// A batch was stored.
    pub(super) fn stored(&mut self, id: u64, offset: Offset) {
        let Some(at) = self.unacked.iter().position(|b| b.id == id) else {
            return;
        };
        let Some(batch) = self.unacked.remove(at) else {
            return;
        };
        let partition = self.queue.partition;
        self.freed += batch.reserved;
        batch
            .completion
            .complete(Ok(Delivered { partition, offset }));
        self.attempts = 0;
        self.retry_at = None;
    }

    /// An attempt failed: the batch is tried again or fails. `elsewhere`: another leader is known,
    /// so there is no need to wait.
    pub(super) fn failed(&mut self, id: u64, error: ClientError, now: Instant, elsewhere: bool) {
        let Some(at) = self.unacked.iter().position(|b| b.id == id) else {
            return;
        };
        let idempotent = self.is_idempotent();
        let Some(batch) = self.unacked.get_mut(at) else {
            return;
        };
        batch.request = None;
        batch.maybe_applied |= !error.has_no_side_effects();
        let sequence_gap = matches!(
            error.code(),
            Some(ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer)
        );
        let deleted = error.code() == Some(ErrorCode::TopicDeleted);
        if deleted && !batch.maybe_applied {
            // If there is a new topic of that name, it goes there.
            batch.last = Some(error);
            self.retry_at = Some(now + rt::backoff(self.attempts));
            self.attempts += 1;
        } else if sequence_gap && idempotent && (at > 0 || batch.behind) {
            // It overtook a batch before it, which is still to come or came meanwhile.
            batch.last = Some(error);
        } else if sequence_gap && idempotent && !batch.maybe_applied {
            // The session is not known any more; a new one can carry what was never stored.
            batch.last = Some(error);
            self.broken = true;
        } else if error.is_retryable() && (idempotent || !batch.maybe_applied) {
            batch.last = Some(error);
            self.retry_at = (!elsewhere).then(|| now + rt::backoff(self.attempts));
            self.attempts += 1;
        } else {
            let unsure = batch.maybe_applied;
            self.give_up(
                at,
                if unsure {
                    error.or_applied_before()
                } else {
                    error
                },
            );
        }
    }

    /// Another node leads in a later term: there is no need to wait any longer.
    pub(super) fn leader_is(&mut self, term: Term) {
        if term > self.leader_term {
            self.leader_term = term;
            self.retry_at = None;
        }
    }

    /// The log that batches are for; 0: whichever the leader has.
    pub(super) const fn log(&self) -> u64 {
        self.log
    }

    /// Who leads the partition leads this log. If that is another one than before, the topic was deleted
    /// and created anew: what the old one may have stored fails, and the rest goes to the new one, which
    /// has seen no sequence of this session. Tells whether there is a rest that changed.
    pub(super) fn log_is(&mut self, log: u64) -> bool {
        if log <= self.log {
            return false;
        }
        if std::mem::replace(&mut self.log, log) == 0 {
            return false;
        }
        for batch in &mut self.unacked {
            if batch.request.take().is_some() {
                batch.maybe_applied = true;
            }
        }
        self.begin_anew(self.session);
        true
    }

    /// The request of a batch is not waited for any more, because another node leads.
    pub(super) fn abandon(&mut self, id: u64) {
        if let Some(batch) = self.batch_mut(id) {
            batch.request = None;
            batch.maybe_applied = true;
            self.retry_at = None;
        }
    }

    /// A batch fails for good.
    fn give_up(&mut self, at: usize, error: ClientError) {
        let Some(batch) = self.unacked.remove(at) else {
            return;
        };
        self.freed += batch.reserved;
        batch.completion.complete(Err(error));
        if !self.is_idempotent() {
            return;
        }
        let last = at == self.unacked.len();
        if last && !batch.maybe_applied && batch.request.is_none() {
            // Nobody saw the sequence.
            self.next_sequence = batch.sequence;
        } else {
            self.broken = true;
        }
    }

    /// Why nodes know of no such partition, if they do not; its topic may have been created just now.
    /// Where that is so for a while, everything fails.
    pub(super) fn partition_is(&mut self, missing: Option<ClientError>, now: Instant) {
        let Some(error) = missing else {
            self.unknown.known();
            return;
        };
        if self.unknown.is_believed(now) {
            self.fail_all(&error);
        }
    }

    fn fail_all(&mut self, error: &ClientError) {
        while let Some(batch) = self.unacked.back() {
            let unsure = batch.maybe_applied || batch.request.is_some();
            let error = error.clone();
            let error = if unsure {
                error.or_applied_before()
            } else {
                error
            };
            self.give_up(self.unacked.len() - 1, error);
        }
        let mut batches = self.queue.batches.lock();
        batches.seal();
        for batch in batches.sealed.drain(..) {
            self.freed += batch.reserved;
            batch.completion.complete(Err(error.clone()));
        }
    }

    /// Fails what has waited too long.
    pub(super) fn expire(&mut self, now: Instant, rules: Rules) {
        let late = |created: Instant| created + rules.delivery_timeout <= now;
        let timeout = |maybe_applied, last: Option<ClientError>| ClientError::Timeout {
            what: "produce",
            after: rules.delivery_timeout,
            maybe_applied,
            last: last.map(Box::new),
        };
        while let Some(at) = self.unacked.iter().rposition(|b| late(b.created)) {
            let Some(batch) = self.unacked.get_mut(at) else {
                break;
            };
            let unsure = batch.maybe_applied || batch.request.is_some();
            let last = batch.last.take();
            self.give_up(at, timeout(unsure, last));
        }
        let mut batches = self.queue.batches.lock();
        let mut expired = Vec::new();
        while batches.sealed.front().is_some_and(|b| late(b.created)) {
            expired.extend(batches.sealed.pop_front());
        }
        if batches.sealed.is_empty() && batches.open.as_ref().is_some_and(|b| late(b.created)) {
            expired.extend(batches.open.take());
        }
        drop(batches);
        for batch in expired {
            self.freed += batch.reserved;
            let last = self.unacked.front().and_then(|b| b.last.clone());
            batch.completion.complete(Err(timeout(false, last)));
        }
    }

    /// Goes on with a new session. A batch that the old one may have stored cannot be repeated
    /// under the new one; it fails.
    pub(super) fn renew(&mut self, session: Session) {
        self.begin_anew(Some(session));
    }

    fn begin_anew(&mut self, session: Option<Session>) {
        let renewed = std::mem::take(&mut self.unacked);
        self.session = session;
        self.next_sequence = 0;
        self.broken = false;
        self.retry_at = None;
        for mut batch in renewed {
            if batch.maybe_applied {
                self.freed += batch.reserved;
                let last = batch.last.take().unwrap_or(ClientError::Abandoned {
                    maybe_applied: true,
                });
                batch.completion.complete(Err(last.or_applied_before()));
                continue;
            }
            batch.sequence = self.next_sequence;
            if let Some(session) = session {
                batch.bytes = restamp(&batch.bytes, session, batch.sequence);
            }
            self.next_sequence = advance(batch.sequence, batch.records);
            self.unacked.push_back(batch);
        }
    }

    /// Ends: nothing is waited for any more.
    pub(super) fn abandon_all(&mut self) {
        for batch in self.unacked.drain(..) {
            let maybe_applied = batch.maybe_applied || batch.request.is_some();
            batch
                .completion
                .complete(Err(ClientError::Abandoned { maybe_applied }));
        }
    }
}

/// Sequences wrap from the largest to 0.
const fn advance(sequence: i32, records: u32) -> i32 {
    sequence.wrapping_add(records.cast_signed()) & i32::MAX
}

fn restamp(bytes: &Bytes, session: Session, sequence: i32) -> Bytes {
    let Ok(mut header) = BatchHeader::parse(bytes) else {
        return bytes.clone();
    };
    header.producer_id = session.id;
    header.producer_epoch = session.epoch;
    header.base_sequence = sequence;
    let body = bytes.slice(HEADER_BYTES..);
    header.crc = header.compute_crc(&body);
    let mut out = BytesMut::with_capacity(bytes.len());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(&body);
    out.freeze()
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
