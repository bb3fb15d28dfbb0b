//! The task that sends a producer's batches: it gathers what is ready, one request per leader, and
//! takes care of the answers.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use seriatim_proto::{ids::Offset, v1};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    Shared,
    delivery::Completion,
    init_session,
    lane::{Lane, Session, Step},
    link::{Event, Link},
    queue::Queue,
};
use crate::{client::Client, error::ClientError, metadata::Leader, rt};

/// How often late batches and silent leaders are looked for, while anything is outstanding.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// A leader that is silent for so long may be none any more: others are asked.
const SILENCE: Duration = Duration::from_millis(400);
/// How long a partition without a leader waits, if no news comes before.
const NO_LEADER_WAIT: Duration = Duration::from_millis(100);
/// Batches of several partitions share a request up to this size.
const REQUEST_BYTES: usize = 8 << 20;
const EVENTS: usize = 1024;

/// What a handle asks of the sender.
pub(super) enum Command {
    /// Send everything now and name what is outstanding.
    Flush(oneshot::Sender<Vec<Arc<Completion>>>),
}

struct Request {
    link: u64,
    leader: Leader,
    sent: Instant,
    /// The lane and the id of each batch, in the order of the request.
    batches: Vec<(usize, u64)>,
}

/// A batch that is about to be sent.
struct Outgoing {
    lane: usize,
    id: u64,
    leader: Leader,
    batch: v1::PartitionBatch,
}

pub(super) struct Sender {
    shared: Arc<Shared>,
    client: Client,
    session: Option<Session>,
    lanes: BTreeMap<usize, Lane>,
    links: HashMap<Arc<str>, Link>,
    requests: BTreeMap<u64, Request>,
    /// When to look at a lane again. Entries may be stale.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    sweep_at: Option<Instant>,
    next_id: u64,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    sessions: (mpsc::Sender<NewSession>, mpsc::Receiver<NewSession>),
    session_tasks: HashMap<usize, rt::Task>,
    leaders: watch::Receiver<u64>,
}

type NewSession = (usize, Session);

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, client: Client, session: Option<Session>) -> Self {
        let leaders = client.metadata().changes();
        Self {
            shared,
            client,
            session,
            lanes: BTreeMap::new(),
            links: HashMap::new(),
            requests: BTreeMap::new(),
            timers: BinaryHeap::new(),
            sweep_at: None,
            next_id: 1,
            events: mpsc::channel(EVENTS),
            sessions: mpsc::channel(16),
            session_tasks: HashMap::new(),
            leaders,
        }
    }

    /// Runs until the producer is dropped.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut look_at = BTreeSet::new();
        loop {
            let shared = Arc::clone(&self.shared);
            let timer = self.next_timer();
            let wait = async {
                match timer {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(event) = self.events.1.recv() => self.on_event(event, &mut look_at),
                Some((lane, session)) = self.sessions.1.recv() => {
                    self.on_session(lane, session);
                    let _new = look_at.insert(lane);
                }
                command = commands.recv() => match command {
                    Some(Command::Flush(reply)) => self.flush(reply, &mut look_at),
                    None => return,
                },
                Ok(()) = self.leaders.changed() => self.on_leaders(&mut look_at),
                () = shared.wake.notified() => {}
                () = wait => self.on_timer(&mut look_at),
            }
            while let Ok(event) = self.events.1.try_recv() {
                self.on_event(event, &mut look_at);
            }
            self.take_dirty(&mut look_at);
            self.pump(std::mem::take(&mut look_at));
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let lane = self.timers.peek().map(|Reverse((at, _))| *at);
        [lane, self.sweep_at].into_iter().flatten().min()
    }

    fn lane_of(&mut self, queue: &Arc<Queue>) -> &mut Lane {
        let session = self.session;
        let new = || Lane::new(Arc::clone(queue), session);
        self.lanes.entry(queue.id).or_insert_with(new)
    }

    fn take_dirty(&mut self, look_at: &mut BTreeSet<usize>) {
        let dirty = std::mem::take(&mut *self.shared.dirty.lock());
        for queue in dirty {
            queue.dirty.store(false, Ordering::Release);
            let _lane = self.lane_of(&queue);
            let _new = look_at.insert(queue.id);
        }
        if !look_at.is_empty() && self.sweep_at.is_none() {
            self.sweep_at = Some(Instant::now() + SWEEP_INTERVAL);
        }
    }

    fn on_timer(&mut self, look_at: &mut BTreeSet<usize>) {
        let now = Instant::now();
        while let Some(Reverse((at, lane))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            let _due = self.timers.pop();
            let _new = look_at.insert(lane);
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep(now, look_at);
        }
    }

    fn sweep(&mut self, now: Instant, look_at: &mut BTreeSet<usize>) {
        let rules = self.shared.rules;
        let mut busy = false;
        for (&id, lane) in &mut self.lanes {
            if lane.has_work() {
                busy = true;
                lane.expire(now, rules);
                let _new = look_at.insert(id);
            }
        }
        if self.requests.values().any(|r| r.sent + SILENCE <= now) {
            self.client.metadata().want_refresh();
        }
        self.sweep_at = busy.then(|| now + SWEEP_INTERVAL);
    }

    /// Sends what is ready in these lanes: in each round one batch of each, gathered by leader.
    fn pump(&mut self, mut look_at: BTreeSet<usize>) {
        while !look_at.is_empty() {
            let mut by_leader: BTreeMap<Arc<str>, Vec<Outgoing>> = BTreeMap::new();
            look_at.retain(|&id| match self.next_of(id) {
                Some(outgoing) => {
                    let address = Arc::clone(&outgoing.leader.address);
                    by_leader.entry(address).or_default().push(outgoing);
                    true
                }
                None => false,
            });
            for (address, outgoing) in by_leader {
                self.send_all(&address, outgoing, &mut look_at);
            }
        }
    }

    fn next_of(&mut self, id: usize) -> Option<Outgoing> {
        let now = Instant::now();
        let rules = self.shared.rules;
        let lane = self.lanes.get_mut(&id)?;
        self.shared.give_back(lane.take_freed());
        if lane.wants_session() {
            self.request_session(id);
            return None;
        }
        let step = lane.next(now, rules, &mut self.next_id);
        let batch_id = match step {
            Step::Send(batch_id) => batch_id,
            Step::WaitUntil(at) => {
                self.timers.push(Reverse((at, id)));
                return None;
            }
            Step::Idle => return None,
        };
        let (topic, partition) = (Arc::clone(&lane.queue.topic), lane.queue.partition);
        let metadata = self.client.metadata();
        let leader = metadata.leader(&topic, partition);
        let leader = leader.filter(|leader| leader.may_lead(lane.log()));
        let Some(leader) = leader else {
            // It may have been forgotten, and created anew since.
            metadata.follow(&topic);
            lane.partition_is(metadata.missing(&topic, partition), now);
            metadata.want_refresh();
            self.timers.push(Reverse((now + NO_LEADER_WAIT, id)));
            return None;
        };
        lane.partition_is(None, now);
        if lane.log_is(leader.log) {
            // What is left of the batches has other sequences.
            self.timers.push(Reverse((now, id)));
            return None;
        }
        let log_id = lane.log();
        let batch = lane.batch_mut(batch_id)?;
        // Taken for this round; `send_all` names the request.
        batch.request = Some(0);
        let batch = v1::PartitionBatch {
            topic: topic.as_ref().to_owned(),
            partition,
            record_batch: batch.bytes.clone(),
            expected_end_offset: None,
            log_id,
        };
        Some(Outgoing {
            lane: id,
            id: batch_id,
            leader,
            batch,
        })
    }

    fn send_all(
        &mut self,
        address: &Arc<str>,
        outgoing: Vec<Outgoing>,
        look_at: &mut BTreeSet<usize>,
    ) {
        let mut part: Vec<Outgoing> = Vec::with_capacity(outgoing.len());
        let mut bytes = 0;
        for next in outgoing {
            bytes += next.batch.record_batch.len();
            if bytes > REQUEST_BYTES && !part.is_empty() {
                bytes = next.batch.record_batch.len();
                self.send_one(address, std::mem::take(&mut part), look_at);
            }
            part.push(next);
        }
        self.send_one(address, part, look_at);
    }

    fn send_one(&mut self, address: &Arc<str>, part: Vec<Outgoing>, look_at: &mut BTreeSet<usize>) {
        let Some(leader) = part.first().map(|first| first.leader.clone()) else {
            return;
        };
        let correlation_id = self.next_id;
        self.next_id += 1;
        let batches: Vec<_> = part.iter().map(|out| (out.lane, out.id)).collect();
        let timeout = self
            .shared
            .rules
            .delivery_timeout
            .min(Duration::from_secs(30));
        let request = v1::ProduceRequest {
            correlation_id,
            acks: self.shared.acks.into(),
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            batches: part.into_iter().map(|out| out.batch).collect(),
        };
        let link = self.link(address);
        let generation = link.generation;
        let sent = link.send(request);
        for &(lane, id) in &batches {
            let batch = self.lanes.get_mut(&lane).and_then(|l| l.batch_mut(id));
            if let Some(batch) = batch {
                batch.request = sent.then_some(correlation_id);
            }
            if !sent {
                let _there = look_at.remove(&lane);
                let again = Instant::now() + Duration::from_millis(10);
                self.timers.push(Reverse((again, lane)));
            }
        }
        if sent {
            let request = Request {
                link: generation,
                leader,
                sent: Instant::now(),
                batches,
            };
            let _new = self.requests.insert(correlation_id, request);
        }
    }

    fn link(&mut self, address: &Arc<str>) -> &Link {
        let generation = self.next_id;
        self.next_id += 1;
        let metadata = self.client.metadata();
        let open = || {
            let events = self.events.0.clone();
            Link::open(
                Arc::clone(metadata),
                Arc::clone(address),
                generation,
                events,
            )
        };
        self.links.entry(Arc::clone(address)).or_insert_with(open)
    }

    fn on_event(&mut self, event: Event, look_at: &mut BTreeSet<usize>) {
        match event {
            Event::Answer(answer) => {
                let Some(request) = self.requests.remove(&answer.correlation_id) else {
                    return;
                };
                let mut results = answer.results.into_iter();
                for (lane, id) in request.batches {
                    let result = results.next().ok_or_else(|| {
                        ClientError::invalid("a node answered with too few results")
                    });
                    let result = result.and_then(|r| match r.error {
                        Some(error) => Err(ClientError::server(error)),
                        None => Ok(Offset(r.base_offset)),
                    });
                    self.on_result(lane, (answer.correlation_id, id), result, &request.leader);
                    let _new = look_at.insert(lane);
                }
            }
            Event::Broken { generation, error } => {
                self.links.retain(|_, link| link.generation != generation);
                self.client.metadata().want_refresh();
                let broken = self.requests.extract_if(.., |_, r| r.link == generation);
                let broken: Vec<_> = broken.collect();
                for (correlation_id, request) in broken {
                    for (lane, id) in request.batches {
                        let error = Err(error.clone());
                        self.on_result(lane, (correlation_id, id), error, &request.leader);
                        let _new = look_at.insert(lane);
                    }
                }
            }
        }
    }

    fn on_result(
        &mut self,
        lane: usize,
        (correlation_id, id): (u64, u64),
        result: Result<Offset, ClientError>,
        asked: &Leader,
    ) {
        let Some(lane) = self.lanes.get_mut(&lane) else {
            return;
        };
        let error = match result {
            Ok(offset) => return lane.stored(id, offset),
            Err(error) => error,
        };
        if lane
            .batch_mut(id)
            .is_none_or(|batch| batch.request != Some(correlation_id))
        {
            // The failure of an attempt that was given up.
            return;
        }
        let metadata = self.client.metadata();
        let (topic, partition) = (Arc::clone(&lane.queue.topic), lane.queue.partition);
        metadata.heed(&topic, partition, lane.log(), &error);
        let leader = metadata.leader(&topic, partition);
        let elsewhere = leader.is_some_and(|leader| leader.took_over_from(asked));
        if !elsewhere && error.is_retryable() {
            metadata.want_refresh();
        }
        tracing::debug!(topic = %topic, partition, %error, "produce attempt failed");
        lane.failed(id, error, Instant::now(), elsewhere);
    }

    /// Somebody leads something new: attempts with a node that does not lead any more are given up,
    /// which is safe because the new leader knows what was stored.
    fn on_leaders(&mut self, look_at: &mut BTreeSet<usize>) {
        let metadata = self.client.metadata();
        for (&correlation_id, request) in &self.requests {
            for &(id, batch_id) in &request.batches {
                let Some(lane) = self.lanes.get_mut(&id) else {
                    continue;
                };
                let leader = metadata.leader(&lane.queue.topic, lane.queue.partition);
                let old = &request.leader;
                let moved = leader.is_some_and(|leader| leader.took_over_from(old));
                let current = lane.batch_mut(batch_id);
                let current = current.is_some_and(|b| b.request == Some(correlation_id));
                if moved && current && lane.is_idempotent() {
                    lane.abandon(batch_id);
                }
            }
        }
        for (&id, lane) in &mut self.lanes {
            if lane.has_work() {
                let leader = metadata.leader(&lane.queue.topic, lane.queue.partition);
                lane.leader_is(leader.map_or((0, i32::MIN), |leader| leader.term()));
                let _new = look_at.insert(id);
            }
        }
    }

    fn flush(
        &mut self,
        reply: oneshot::Sender<Vec<Arc<Completion>>>,
        look_at: &mut BTreeSet<usize>,
    ) {
        self.take_dirty(look_at);
        let mut outstanding = Vec::new();
        for (&id, lane) in &self.lanes {
            outstanding.extend(lane.completions());
            let mut batches = lane.queue.batches.lock();
            batches.seal();
            outstanding.extend(batches.sealed.iter().map(|b| Arc::clone(&b.completion)));
            let _new = look_at.insert(id);
        }
        // Whoever asked may have gone away.
        let _gone = reply.send(outstanding);
    }

    fn request_session(&mut self, lane: usize) {
        let (client, sessions) = (self.client.clone(), self.sessions.0.clone());
        let _running = self.session_tasks.entry(lane).or_insert_with(|| {
            rt::Task::spawn(async move {
                let mut attempt = 0;
                let session = loop {
                    match init_session(&client).await {
                        Ok(session) => break session,
                        Err(error) => tracing::debug!(%error, "no new producer session yet"),
                    }
                    tokio::time::sleep(rt::backoff(attempt)).await;
                    attempt += 1;
                };
                // The sender may be gone.
                let _gone = sessions.send((lane, session)).await;
            })
        });
    }

    fn on_session(&mut self, id: usize, session: Session) {
        let _done = self.session_tasks.remove(&id);
        if let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.wants_session()) {
            lane.renew(session);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.abandon_all();
        }
        self.shared.close();
    }
}
