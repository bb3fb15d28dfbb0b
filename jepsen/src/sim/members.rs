//! Members of a consumer group, by the bare protocol: they process (only count), commit, and leave in
//! every way there is. What they do with a partition is fenced by the coordinator alone; they may die,
//! sleep beyond their session, and commit what they no longer own.

use std::{collections::BTreeMap, time::Duration};

use seriatim_proto::v1;
use seriatim_runtime::{
    clock::{self, Instant},
    rng, sim,
};
use tokio::sync::mpsc;
use v1::{member_request::Request, member_response::Response};

use super::{
    client::{Client, PATIENCE, TOPIC, key},
    rpc::{Answer, Call},
};
use crate::history::{Action, Commit, Committed, Process};

/// The group of the workload.
pub const GROUP: &str = "workers";

/// The shortest that is allowed, so that a short run sees sessions end.
const SESSION: Duration = Duration::from_secs(3);

/// How often a member does something.
const TICK: Duration = Duration::from_millis(150);

/// Messages between a member and its coordinator, each way.
const MESSAGES: usize = 64;

/// What a member holds of a partition.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// The generation in which it was granted.
    granted: u64,
    /// The next record to process.
    position: i64,
    /// Told to let go of it.
    revoked: bool,
}

/// What a member let go of and commits once more, later: it never is allowed to.
struct LetGo {
    held: BTreeMap<i32, Held>,
    /// The generation in which it let go of them.
    generation: u64,
    /// When it commits them.
    at: Instant,
}

/// One life of a member, from its first join to its end.
struct Member<'a> {
    client: &'a Client,
    process: Process,
    id: u64,
    joined: bool,
    generation: u64,
    held: BTreeMap<i32, Held>,
    let_go: Option<LetGo>,
    /// How far it came with what it let go of. It may have it again before the coordinator hears of
    /// that, with an offset that was read before its last commit.
    reached: BTreeMap<i32, i64>,
}

/// How a commit ended, after its last attempt.
enum Ended {
    /// Stored, as this node said.
    Stored(u64),
    /// Certainly not stored.
    Refused(String),
    /// May or may not have been stored.
    Unknown(String),
}

/// A connection to the coordinator.
struct Stream {
    requests: mpsc::Sender<v1::MemberRequest>,
    responses: mpsc::Receiver<v1::MemberResponse>,
}

/// Why a stream ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Look for the coordinator and go on.
    Reconnect,
    /// This member is no more.
    Dead,
}

/// A seat in the group: one member after the other, each with an id of its own, until the run ends.
pub async fn seat(client: Client) {
    while !client.stopping() {
        let mut member = Member {
            client: &client,
            process: client.recorder.process(),
            id: rng::u64(),
            joined: false,
            generation: 0,
            held: BTreeMap::new(),
            let_go: None,
            reached: BTreeMap::new(),
        };
        member.live().await;
        client.pause(Duration::from_secs(2)).await;
    }
}

/// The node that coordinates the group, or any.
async fn coordinator(client: &Client) -> u64 {
    let node = client.any_node();
    let call = Call::FindCoordinators(v1::FindCoordinatorsRequest {
        groups: vec![GROUP.to_owned()],
    });
    let found = client.rpc.call(node, call, PATIENCE).await;
    tracing::debug!(node, ?found, "who coordinates the group?");
    let Ok(Answer::Coordinators(found)) = found else {
        return client.any_node();
    };
    let first = found.coordinators.first();
    if let Some(found) = first.filter(|it| it.error.is_none() && it.grpc_address.is_empty()) {
        client.note_impossible(format!(
            "node {node} named a coordinator nowhere: {found:?}"
        ));
    }
    first
        .map(|found| found.node_id)
        .filter(|&node| node != 0)
        .unwrap_or_else(|| client.any_node())
}

impl Member<'_> {
    async fn live(&mut self) {
        while !self.client.stopping() {
            if let Some(mut stream) = self.join().await
                && self.serve(&mut stream).await == End::Dead
            {
                return;
            }
            self.client.pause(Duration::from_millis(200)).await;
        }
    }

    async fn join(&self) -> Option<Stream> {
        let node = coordinator(self.client).await;
        let join = v1::JoinGroup {
            group: GROUP.to_owned(),
            member_id: self.id.to_string(),
            topics: vec![TOPIC.to_owned()],
            session_timeout_ms: u32::try_from(SESSION.as_millis()).unwrap_or(u32::MAX),
            // Shorter than the session, so that a slow member loses single partitions too.
            rebalance_timeout_ms: 1500,
            rejoin: self.joined,
            ..v1::JoinGroup::default()
        };
        let (requests, inbox) = mpsc::channel(MESSAGES);
        let (outbox, responses) = mpsc::channel(MESSAGES);
        let call = Call::Member {
            join,
            requests: inbox,
            responses: outbox,
        };
        match self.client.rpc.call(node, call, PATIENCE).await {
            Ok(Answer::Joined) => Some(Stream {
                requests,
                responses,
            }),
            Ok(_) | Err(_) => None,
        }
    }

    async fn serve(&mut self, stream: &mut Stream) -> End {
        let mut next_beat = clock::now();
        loop {
            if self.client.stopping() {
                return End::Dead;
            }
            let message = clock::timeout(TICK, stream.responses.recv()).await;
            match message {
                Ok(None) => return End::Reconnect,
                Ok(Some(message)) => match message.response {
                    Some(Response::Assignment(assignment)) => self.assigned(&assignment),
                    Some(Response::Error(error)) => return self.ended(&error),
                    Some(Response::Heartbeat(_)) | None => continue,
                },
                Err(_elapsed) => {
                    if let Some(end) = self.whim(stream).await {
                        return end;
                    }
                }
            }
            if clock::now() >= next_beat {
                next_beat = clock::now() + SESSION / 4;
                let beat = Request::Heartbeat(v1::Heartbeat::default());
                if !send(stream, beat).await {
                    return End::Reconnect;
                }
            }
            self.work().await;
            self.commit_too_late().await;
            if !self.release(stream).await {
                return End::Reconnect;
            }
        }
    }

    fn assigned(&mut self, assignment: &v1::Assignment) {
        if assignment.generation < self.generation {
            self.client.note_impossible(format!(
                "member {} was told generation {} after {}",
                self.id, assignment.generation, self.generation
            ));
        }
        self.joined = true;
        self.generation = assignment.generation;
        let mut held = BTreeMap::new();
        for got in &assignment.assigned {
            let reached = self.reached.get(&got.partition).copied();
            let fresh = Held {
                granted: got.granted_generation,
                position: got.committed_offset.max(reached).unwrap_or(0),
                revoked: false,
            };
            let before = self.held.get(&got.partition).copied();
            let kept = before.filter(|before| before.granted == fresh.granted);
            let now = kept.map_or(fresh, |kept| Held {
                revoked: false,
                ..kept
            });
            let _none = held.insert(got.partition, now);
        }
        for partition in assignment.revoke.iter().flat_map(|of| &of.partitions) {
            if let Some(before) = self.held.get(partition) {
                let revoked = Held {
                    revoked: true,
                    ..*before
                };
                let _none = held.insert(*partition, revoked);
            }
        }
        self.held = held;
    }

    fn ended(&self, error: &v1::Error) -> End {
        match error.code() {
            v1::ErrorCode::UnknownMember => End::Dead,
            _ if error.retryable => End::Reconnect,
            _ => {
                let id = self.id;
                self.client
                    .note_impossible(format!("member {id} was told {error:?}"));
                End::Dead
            }
        }
    }

    /// Now and then something else than work.
    async fn whim(&mut self, stream: &Stream) -> Option<End> {
        // What they do to their group is no recovery of ours (seed 500).
        if self.client.board.lock().calm {
            return None;
        }
        match rng::below(200) {
            // Dies without a word.
            0 => Some(End::Dead),
            1 => {
                let _gone = send(stream, Request::Leave(v1::Leave {})).await;
                Some(End::Dead)
            }
            // Stands still, perhaps beyond its session, and goes on as if nothing had happened.
            2 | 3 => {
                clock::sleep(rng::duration_below(SESSION * 2)).await;
                None
            }
            // The line breaks.
            4 => Some(End::Reconnect),
            _ => None,
        }
    }

    /// Processes a few records of everything, and commits.
    async fn work(&mut self) {
        for held in self.held.values_mut().filter(|held| !held.revoked) {
            held.position += i64::try_from(rng::below(4)).unwrap_or_default();
        }
        let due = rng::below(3) == 0 || self.held.values().any(|held| held.revoked);
        if due && !self.held.is_empty() {
            let generation = self.generation;
            let _stored = self.commit_all(self.held.clone(), generation).await;
        }
    }

    /// Commits what it let go of a while ago, as if it had gone on.
    async fn commit_too_late(&mut self) {
        let due = self.let_go.take_if(|let_go| let_go.at <= clock::now());
        let Some(mut let_go) = due else { return };
        // What is its own again would go back.
        let_go
            .held
            .retain(|partition, _| !self.held.contains_key(partition));
        if let_go.held.is_empty() {
            return;
        }
        if self
            .commit_all(let_go.held.clone(), let_go.generation)
            .await
        {
            for (partition, held) in let_go.held {
                let _before = self.reached.insert(partition, held.position);
            }
        }
    }

    /// Whether it may have been stored.
    async fn commit_all(&mut self, held: BTreeMap<i32, Held>, generation: u64) -> bool {
        let of = held
            .iter()
            .map(|(&partition, held)| (key(TOPIC, partition), held));
        let commit = Commit {
            group: GROUP.to_owned(),
            member: self.id.to_string(),
            granted: of.clone().map(|(key, held)| (key, held.granted)).collect(),
            offsets: of.map(|(key, held)| (key, held.position)).collect(),
        };
        let action = Action::Commit(commit);
        let from = sim::clock::time();
        let recorder = &self.client.recorder;
        let pending = recorder.invoke(self.process, None, action.clone());
        match self.commit(&held, generation).await {
            Ended::Stored(node) => {
                recorder.ok(pending.at(node), action);
                let mut board = self.client.board.lock();
                for partition in held.into_keys() {
                    let latest = board.committed.entry(partition).or_default();
                    *latest = from.max(*latest);
                }
            }
            Ended::Refused(why) => {
                recorder.fail(pending, action, why);
                return false;
            }
            Ended::Unknown(why) => self.process = recorder.info(pending, action, why),
        }
        true
    }

    async fn commit(&self, offsets: &BTreeMap<i32, Held>, generation: u64) -> Ended {
        let (mut tainted, mut why) = (false, String::new());
        for _attempt in 0..3 {
            let offsets = offsets.iter().map(|(&partition, held)| v1::OffsetCommit {
                topic: TOPIC.to_owned(),
                partition,
                offset: held.position,
                ..v1::OffsetCommit::default()
            });
            let request = v1::CommitOffsetsRequest {
                group: GROUP.to_owned(),
                member_id: self.id.to_string(),
                generation,
                offsets: offsets.collect(),
                validate_only: false,
            };
            let node = coordinator(self.client).await;
            let answer = self.client.rpc.call(node, Call::Commit(request), PATIENCE);
            match answer.await {
                Ok(Answer::Committed(response)) => match response.error {
                    None => return Ended::Stored(node),
                    Some(error) if error.retryable => {
                        tainted |= error.maybe_applied;
                        why = error.message;
                    }
                    Some(error) => {
                        self.expect_fenced(&error);
                        why = error.message;
                        break;
                    }
                },
                Ok(_) | Err(super::rpc::Lost::Unanswered) => {
                    tainted = true;
                    "no answer".clone_into(&mut why);
                }
                Err(super::rpc::Lost::Unsent) => "not sent".clone_into(&mut why),
            }
            self.client.pause(Duration::from_millis(100)).await;
        }
        if tainted {
            Ended::Unknown(why)
        } else {
            Ended::Refused(why)
        }
    }

    /// A member of this kind is only ever refused for what it no longer owns.
    fn expect_fenced(&self, error: &v1::Error) {
        let fenced = matches!(
            error.code(),
            v1::ErrorCode::StaleGeneration
                | v1::ErrorCode::UnknownMember
                | v1::ErrorCode::UnknownGroup
        );
        if !fenced {
            let id = self.id;
            self.client
                .note_impossible(format!("a commit of member {id} failed: {error:?}"));
        }
    }

    /// Lets go of what it was told to let go of; it has been committed, or that failed for good.
    async fn release(&mut self, stream: &Stream) -> bool {
        let mut gone = self.held.clone();
        gone.retain(|_, held| held.revoked);
        let partitions: Vec<i32> = gone.keys().copied().collect();
        if partitions.is_empty() {
            return true;
        }
        self.held.retain(|_, held| !held.revoked);
        self.remember(gone);
        let released = v1::Released {
            partitions: vec![v1::TopicPartitions {
                topic: TOPIC.to_owned(),
                partitions,
            }],
            generation: self.generation,
        };
        send(stream, Request::Released(released)).await
    }

    /// Keeps in mind how far it came, and now and then commits more of it later.
    fn remember(&mut self, mut gone: BTreeMap<i32, Held>) {
        let came = gone
            .iter()
            .map(|(&partition, held)| (partition, held.position));
        self.reached.extend(came);
        if self.let_go.is_some() || rng::below(2) == 0 {
            return;
        }
        // Further than its successor may be, which would be refused for going back.
        for held in gone.values_mut() {
            held.position += i64::try_from(rng::below(40)).unwrap_or_default();
        }
        self.let_go = Some(LetGo {
            held: gone,
            generation: self.generation,
            at: clock::now() + rng::duration_below(Duration::from_secs(4)),
        });
    }
}

async fn send(stream: &Stream, request: Request) -> bool {
    let message = v1::MemberRequest {
        request: Some(request),
    };
    stream.requests.send(message).await.is_ok()
}

/// Asks where the group is, over and over.
pub async fn watch(client: Client, pause: Duration) {
    let process = client.recorder.process();
    while !client.stopping() {
        let _answered = ask(&client, process).await;
        client.pause(pause).await;
    }
}

/// Asks until there is an answer: at the end of a run.
pub async fn settle(client: Client) {
    let process = client.recorder.process();
    while !client.stopping() && !ask(&client, process).await {
        client.pause(Duration::from_millis(100)).await;
    }
}

async fn ask(client: &Client, process: Process) -> bool {
    let request = v1::FetchOffsetsRequest {
        group: GROUP.to_owned(),
        partitions: vec![v1::TopicPartitions {
            topic: TOPIC.to_owned(),
            partitions: (0..client.partitions).collect(),
        }],
    };
    let mut committed = Committed {
        group: GROUP.to_owned(),
        ..Committed::default()
    };
    let (recorder, node) = (&client.recorder, coordinator(client).await);
    let asked = Action::Committed(committed.clone());
    let pending = recorder.invoke(process, Some(node), asked.clone());
    let answer = client.rpc.call(node, Call::Offsets(request), PATIENCE);
    let response = match answer.await {
        Ok(Answer::Offsets(response)) => response,
        Ok(Answer::Failed(error)) => {
            recorder.fail(pending, asked, error.message);
            return false;
        }
        Ok(_) | Err(_) => {
            recorder.fail(pending, asked, "no answer");
            return false;
        }
    };
    if let Some(error) = response.error {
        recorder.fail(pending, asked, error.message);
        return false;
    }
    let seen = response.offsets.into_iter();
    committed.offsets = seen
        .map(|seen| (key(TOPIC, seen.partition), seen.offset))
        .collect();
    recorder.ok(pending, Action::Committed(committed));
    true
}

/// Waits until some member, none of which has whims any more, has committed every partition anew.
pub async fn progress(client: Client) {
    client.board.lock().calm = true;
    let from = sim::clock::time();
    while !client.stopping() {
        let moved = {
            let board = client.board.lock();
            let anew = |partition| {
                board
                    .committed
                    .get(&partition)
                    .is_some_and(|at| *at >= from)
            };
            (0..client.partitions).all(anew)
        };
        if moved {
            return;
        }
        client.pause(TICK).await;
    }
}
