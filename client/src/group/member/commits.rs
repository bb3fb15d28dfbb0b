//! Commits: one at a time, of all partitions together, until they are stored.

use std::{collections::BTreeMap, mem, time::Duration};

use futures::future::BoxFuture;
use seriatim_proto::{ids::TopicPartition, v1};
use tokio::{sync::oneshot, time::Instant};

use super::Member;
use crate::{
    error::ClientError,
    group::{
        plan::{self, Chosen, OFFSETS_MAX, Planned},
        shared::CommitOffset,
        state::{State, Verdict, judge},
    },
    rt,
};

/// Commits of the application that wait at a time; more wait in the queue of commands.
const WAITERS_MAX: usize = 64;
/// Refusals in a row after which the coordinator is asked what this member owns.
const STALE_MAX: u32 = 3;

type Reply = oneshot::Sender<Result<(), ClientError>>;

/// What is to be committed, and the commit under way.
pub(super) struct Commits {
    interval: Option<Duration>,
    /// When what came back is committed next, without being asked to.
    due_at: Option<Instant>,
    due: bool,
    waiting: Vec<Waiter>,
    flight: Option<Flight>,
    /// Not before this, because the last one failed.
    retry_at: Option<Instant>,
    attempt: u32,
}

/// A commit that the application waits for.
struct Waiter {
    /// Empty: everything that came back.
    chosen: Chosen,
    reply: Reply,
    /// An attempt may have stored it.
    maybe_applied: bool,
}

impl Waiter {
    fn refuse(self, error: ClientError) {
        let error = match self.maybe_applied {
            true => error.or_applied_before(),
            false => error,
        };
        answer(self.reply, Err(error));
    }
}

struct Flight {
    begun: Begun,
    call: BoxFuture<'static, Result<(), ClientError>>,
}

/// What is to be sent.
struct Begun {
    planned: Vec<Planned>,
    waiters: Vec<Waiter>,
    /// Everything that came back is to be stored, whether somebody waits for it or not.
    due: bool,
}

impl Commits {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            due_at: interval.map(|interval| Instant::now() + interval),
            due: false,
            waiting: Vec::new(),
            flight: None,
            retry_at: None,
            attempt: 0,
        }
    }

    pub(super) const fn is_automatic(&self) -> bool {
        self.interval.is_some()
    }

    pub(super) const fn has_room(&self) -> bool {
        self.waiting.len() < WAITERS_MAX
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flight.is_none()
    }

    /// When to look again.
    pub(super) fn at(&self) -> Option<Instant> {
        match (&self.flight, self.retry_at) {
            (Some(_), _) => None,
            (None, Some(at)) => Some(at),
            (None, None) => self.due_at,
        }
    }

    pub(super) fn on_timer(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        if self.due_at.is_some_and(|at| at <= now) {
            self.due_at = self.interval.map(|interval| now + interval);
            self.due = true;
        }
    }

    /// Commits what came back without waiting for the time to come.
    pub(super) const fn hurry(&mut self) {
        self.due = true;
    }

    pub(super) fn ask(
        &mut self,
        state: &State,
        offsets: BTreeMap<TopicPartition, CommitOffset>,
        reply: Reply,
    ) {
        match plan::choose(state, offsets) {
            Ok(chosen) => self.waiting.push(Waiter {
                chosen,
                reply,
                maybe_applied: false,
            }),
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// The answer to the commit under way.
    pub(super) async fn answer(&mut self) -> Result<(), ClientError> {
        match &mut self.flight {
            Some(flight) => flight.call.as_mut().await,
            None => std::future::pending().await,
        }
    }

    /// Nobody's commit can succeed any more.
    pub(super) fn drop_waiters(&mut self, error: &ClientError) {
        for waiter in mem::take(&mut self.waiting) {
            waiter.refuse(error.clone());
        }
        let under_way = self.flight.take().map(|flight| flight.begun.waiters);
        for mut waiter in under_way.into_iter().flatten() {
            waiter.maybe_applied = true;
            waiter.refuse(error.clone());
        }
        self.retry_at = None;
        self.attempt = 0;
    }

    /// What to send, and for whom. Answers those for whom there is nothing to do.
    fn begin(&mut self, state: &mut State) -> Option<Begun> {
        if self.flight.is_some() || self.retry_at.is_some() {
            return None;
        }
        if !self.due && self.waiting.is_empty() {
            return None;
        }
        let due = mem::take(&mut self.due);
        let mut everything = due;
        let mut chosen = Chosen::new();
        let mut waiters = Vec::new();
        for waiter in mem::take(&mut self.waiting) {
            // Who gave up waiting does not want it any more.
            if waiter.reply.is_closed() {
                continue;
            }
            if let Err(error) = plan::still_mine(state, &waiter.chosen) {
                waiter.refuse(error);
                continue;
            }
            everything |= waiter.chosen.is_empty();
            chosen.extend(waiter.chosen.clone());
            waiters.push(waiter);
        }
        let planned = plan::plan(state, &chosen, everything);
        if planned.is_empty() {
            for waiter in waiters {
                answer(waiter.reply, Ok(()));
            }
            return None;
        }
        Some(Begun {
            planned,
            waiters,
            due,
        })
    }
}

impl Member {
    pub(super) fn start_commit(&mut self) {
        // Before its first assignment a member owns nothing.
        if !self.known {
            return;
        }
        let mut state = self.shared.state.lock();
        let Some(begun) = self.commits.begin(&mut state) else {
            return;
        };
        let request = v1::CommitOffsetsRequest {
            group: self.shared.group.clone(),
            member_id: state.member_id.clone(),
            generation: state.generation,
            offsets: plan::to_wire(&begun.planned),
            validate_only: false,
        };
        drop(state);
        let client = self.shared.client.clone();
        let call = Box::pin(async move { client.commit_once(request).await });
        self.commits.flight = Some(Flight { begun, call });
    }

    pub(super) fn on_committed(&mut self, stored: Result<(), ClientError>) {
        let Some(Flight {
            begun: mut sent, ..
        }) = self.commits.flight.take()
        else {
            return;
        };
        let Err(error) = stored else {
            return self.on_stored(sent);
        };
        for waiter in &mut sent.waiters {
            waiter.maybe_applied |= !error.has_no_side_effects();
        }
        let verdict = judge(&error);
        let keeps = error.code() != Some(v1::ErrorCode::OffsetWentBack);
        tracing::debug!(group = self.shared.group, %error, ?verdict, "commit");
        match verdict {
            Verdict::Retry => self.commits.again(sent.waiters, sent.due),
            Verdict::Outdated if keeps => {
                self.commits.again(sent.waiters, sent.due);
                if self.commits.attempt >= STALE_MAX {
                    self.resync();
                }
            }
            Verdict::Outdated => {
                refuse(sent.waiters, &error);
                self.commits.again(Vec::new(), sent.due);
                self.resync();
            }
            Verdict::Unknown => {
                refuse(sent.waiters, &error);
                self.on_broken(error);
            }
            Verdict::Fatal if error.code() == Some(v1::ErrorCode::MemberFenced) => {
                refuse(sent.waiters, &error);
                self.on_broken(error);
            }
            Verdict::Fatal => {
                tracing::warn!(group = self.shared.group, %error, "the commit is refused");
                refuse(sent.waiters, &error);
                self.commits.again(Vec::new(), sent.due);
            }
        }
    }

    fn on_stored(&mut self, sent: Begun) {
        let mut state = self.shared.state.lock();
        plan::stored(&mut state, &sent.planned);
        drop(state);
        self.commits.attempt = 0;
        if sent.planned.len() == OFFSETS_MAX {
            // There may be more than one commit holds.
            self.commits.due |= sent.due;
            self.commits.waiting.extend(sent.waiters);
            return;
        }
        for waiter in sent.waiters {
            answer(waiter.reply, Ok(()));
        }
    }
}

impl Commits {
    /// After a failure: the same once more, and nothing that nobody asked for.
    fn again(&mut self, waiters: Vec<Waiter>, due: bool) {
        self.due |= due;
        self.waiting.extend(waiters);
        self.retry_at = Some(Instant::now() + rt::backoff(self.attempt));
        self.attempt = self.attempt.saturating_add(1);
    }
}

fn refuse(waiters: Vec<Waiter>, error: &ClientError) {
    for waiter in waiters {
        waiter.refuse(error.clone());
    }
}

fn answer(reply: Reply, result: Result<(), ClientError>) {
    // Who asked may have given up.
    let _gone = reply.send(result);
}

#[cfg(test)]
mod tests {
    use seriatim_proto::ids::Offset;

    use super::*;
    use crate::group::part::Phase;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    /// A member of two partitions, of each of which ten records were processed.
    fn processed() -> State {
        let mut state = State::default();
        let assigned = [0, 1].map(|partition| v1::AssignedPartition {
            topic: "t".to_owned(),
            partition,
            granted_generation: 1,
            ..v1::AssignedPartition::default()
        });
        let _released = state.assign(&v1::Assignment {
            generation: 1,
            assigned: assigned.into(),
            ..v1::Assignment::default()
        });
        for partition in [0, 1] {
            let round = state.number();
            let part = state.parts.get_mut(&tp(partition)).unwrap();
            part.begin(round, 0, false);
            part.phase = Phase::Running;
            let tracker = part.tracker.as_mut().unwrap();
            tracker.hand_on(0, 10);
            tracker.finish(0, 10);
        }
        state
    }

    fn sent(begun: &Begun) -> Vec<(i32, i64)> {
        let wire = plan::to_wire(&begun.planned);
        wire.iter().map(|o| (o.partition, o.offset)).collect()
    }

    /// Seeds 179 and 557 of the simulator: after a failure everything that came back was committed.
    #[test]
    fn what_is_tried_again_is_what_was_asked_for() {
        let mut state = processed();
        let mut commits = Commits::new(None);
        let (reply, _answer) = oneshot::channel();
        let chosen = BTreeMap::from([(tp(0), CommitOffset::from(Offset(4)))]);
        commits.ask(&state, chosen, reply);
        for _attempt in 0..3 {
            let begun = commits.begin(&mut state).unwrap();
            assert_eq!(sent(&begun), [(0, 4)]);
            commits.again(begun.waiters, begun.due);
            commits.retry_at = None;
        }
        commits.waiting.clear();
        assert!(commits.begin(&mut state).is_none(), "nobody asks any more");
        commits.hurry();
        for _attempt in 0..2 {
            let begun = commits.begin(&mut state).unwrap();
            assert_eq!(sent(&begun), [(0, 10), (1, 10)]);
            commits.again(begun.waiters, begun.due);
            commits.retry_at = None;
        }
    }
}
