//! A coordinator that keeps the protocol of groups, and its groups in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use seriatim_proto::v1::{
    self, ErrorCode, member_request::Request as Said, member_response::Response as Say,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Fake, Node, failed, spawn};

/// What to do with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitFault {
    None,
    /// Store it, and break the connection without an answer.
    LoseAck,
    /// Do not store it, answer with this.
    Refuse(ErrorCode),
}

struct Member {
    join: v1::JoinGroup,
    heard: Instant,
    answers: Option<mpsc::Sender<Result<v1::MemberResponse, Status>>>,
}

struct Owned {
    member: String,
    /// Commits of earlier generations are from before it was this member's.
    since: u64,
    revoked: Option<Instant>,
}

/// One group; the tests use one at a time.
#[derive(Default)]
pub(super) struct Groups {
    node: usize,
    generation: u64,
    members: BTreeMap<String, Member>,
    partitions: i32,
    owned: BTreeMap<i32, Owned>,
    target: BTreeMap<i32, String>,
    offsets: BTreeMap<i32, (i64, String)>,
    /// Every offset stored, in order.
    log: Vec<(i32, i64)>,
    /// Heartbeats of nobody are heard or answered.
    deaf: bool,
    faults: Vec<CommitFault>,
    joins: Vec<v1::JoinGroup>,
}

impl Groups {
    /// Members whose session ran out, and partitions that were not let go of in time.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        let ms = |n: u32| Duration::from_millis(n.into());
        let gone: Vec<_> = self
            .members
            .iter()
            .filter(|(_, m)| m.heard + ms(m.join.session_timeout_ms) < now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &gone {
            self.remove(id);
        }
        let mut late = Vec::new();
        for (&partition, owned) in &self.owned {
            let timeout = self.members.get(&owned.member);
            let timeout = timeout.map_or(Duration::ZERO, |m| ms(m.join.rebalance_timeout_ms));
            if owned.revoked.is_some_and(|since| since + timeout < now) {
                late.push(partition);
            }
        }
        for partition in &late {
            let _taken = self.owned.remove(partition);
        }
        if !gone.is_empty() || !late.is_empty() {
            self.rebalance();
        }
    }

    fn remove(&mut self, id: &str) {
        let _member = self.members.remove(id);
        self.owned.retain(|_, owned| owned.member != id);
    }

    /// Moves as little as an even share allows, and tells everybody.
    fn rebalance(&mut self) {
        self.generation += 1;
        self.target.clear();
        let count = i32::try_from(self.members.len()).unwrap();
        let mut load: BTreeMap<String, i32> =
            self.members.keys().map(|id| (id.clone(), 0)).collect();
        let most = (self.partitions + count - 1)
            .checked_div(count)
            .unwrap_or(0);
        let mut open = BTreeSet::new();
        for partition in 0..self.partitions {
            let owner = self.owned.get(&partition).map(|o| o.member.clone());
            let place = owner.as_ref().and_then(|owner| load.get_mut(owner));
            match (owner, place) {
                (Some(owner), Some(load)) if *load < most => {
                    *load += 1;
                    let _new = self.target.insert(partition, owner);
                }
                _ => {
                    let _new = open.insert(partition);
                }
            }
        }
        for partition in open {
            let least = load.iter_mut().min_by_key(|(_, load)| **load);
            let Some((id, load)) = least else { break };
            *load += 1;
            let _new = self.target.insert(partition, id.clone());
        }
        self.settle();
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            self.tell(&id);
        }
    }

    fn settle(&mut self) {
        for (&partition, target) in &self.target {
            let owned = self.owned.entry(partition).or_insert_with(|| Owned {
                member: target.clone(),
                since: self.generation,
                revoked: None,
            });
            if owned.member == *target {
                owned.revoked = None;
            } else {
                let _since = owned.revoked.get_or_insert_with(Instant::now);
            }
        }
    }

    fn tell(&self, id: &str) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let mut assigned = Vec::new();
        let (mut revoke, mut pending) = (Vec::new(), Vec::new());
        for (&partition, owned) in &self.owned {
            let mine = owned.member == id;
            if mine && owned.revoked.is_none() {
                let stored = self.offsets.get(&partition).cloned();
                assigned.push(v1::AssignedPartition {
                    topic: "t".to_owned(),
                    partition,
                    committed_offset: stored.as_ref().map(|s| s.0),
                    metadata: stored.map(|s| s.1).unwrap_or_default(),
                    granted_generation: owned.since,
                });
            } else if mine {
                revoke.push(partition);
            } else if self.target.get(&partition).is_some_and(|t| t == id) {
                pending.push(partition);
            }
        }
        let of = |partitions| {
            let topic = "t".to_owned();
            vec![v1::TopicPartitions { topic, partitions }]
        };
        let assignment = v1::Assignment {
            generation: self.generation,
            assigned,
            revoke: of(revoke),
            pending: of(pending),
            session_timeout_ms: member.join.session_timeout_ms,
        };
        self.say(id, Say::Assignment(assignment));
    }

    fn say(&self, id: &str, response: Say) {
        let answers = self.members.get(id).and_then(|m| m.answers.as_ref());
        if let Some(answers) = answers {
            let response = Some(response);
            let _sent = answers.try_send(Ok(v1::MemberResponse { response }));
        }
    }

    fn join(
        &mut self,
        join: v1::JoinGroup,
        answers: mpsc::Sender<Result<v1::MemberResponse, Status>>,
    ) -> Result<(), v1::Error> {
        self.joins.push(join.clone());
        let id = join.member_id.clone();
        if join.rejoin && !self.members.contains_key(&id) {
            return Err(v1::Error::new(ErrorCode::UnknownMember, "not known"));
        }
        let twin = self.members.iter().find(|(other, m)| {
            **other != id && !join.instance_id.is_empty() && m.join.instance_id == join.instance_id
        });
        if let Some(twin) = twin.map(|(id, _)| id.clone()) {
            let fenced = v1::Error::new(ErrorCode::MemberFenced, "another has its instance id");
            self.say(&twin, Say::Error(fenced));
            let _gone = self.members.remove(&twin);
            for owned in self.owned.values_mut().filter(|o| o.member == twin) {
                owned.member.clone_from(&id);
                owned.since = self.generation + 1;
            }
        }
        let member = Member {
            join,
            heard: Instant::now(),
            answers: Some(answers),
        };
        if self.members.insert(id.clone(), member).is_some() {
            self.tell(&id);
        } else {
            self.rebalance();
        }
        Ok(())
    }

    fn hear(&mut self, id: &str, said: Said) {
        match said {
            Said::Heartbeat(v1::Heartbeat { sequence }) if !self.deaf => {
                if let Some(member) = self.members.get_mut(id) {
                    member.heard = Instant::now();
                }
                self.say(id, Say::Heartbeat(v1::HeartbeatAck { sequence }));
            }
            Said::Released(released) => {
                for partition in released.partitions.iter().flat_map(|t| &t.partitions) {
                    let owned = self.owned.get(partition);
                    if owned.is_some_and(|o| o.member == id && o.revoked.is_some()) {
                        let _free = self.owned.remove(partition);
                    }
                }
                self.rebalance();
            }
            Said::Leave(_) => {
                self.remove(id);
                self.rebalance();
            }
            Said::Heartbeat(_) | Said::Join(_) => {}
        }
    }

    fn commit(&mut self, request: &v1::CommitOffsetsRequest) -> Result<(), v1::Error> {
        let refused = |code, text: &str| Err(v1::Error::new(code, text));
        if request.member_id.is_empty() && !self.members.is_empty() {
            return refused(ErrorCode::GroupNotEmpty, "it has members");
        }
        if !request.member_id.is_empty() && !self.members.contains_key(&request.member_id) {
            return refused(ErrorCode::UnknownMember, "not known");
        }
        for offset in &request.offsets {
            let owned = self.owned.get(&offset.partition);
            let mine = owned
                .is_some_and(|o| o.member == request.member_id && o.since <= request.generation);
            if !request.member_id.is_empty() && !mine {
                return refused(ErrorCode::StaleGeneration, "not its partition");
            }
            let stored = self.offsets.get(&offset.partition).map(|s| s.0);
            if stored > Some(offset.offset) && !offset.allow_back {
                return refused(ErrorCode::OffsetWentBack, "behind what is stored");
            }
        }
        if request.validate_only {
            return Ok(());
        }
        for offset in &request.offsets {
            self.log.push((offset.partition, offset.offset));
            let stored = (offset.offset, offset.metadata.clone());
            let _before = self.offsets.insert(offset.partition, stored);
        }
        Ok(())
    }
}

impl Fake {
    pub(crate) fn committed(&self, partition: i32) -> Option<(i64, String)> {
        self.state.lock().groups.offsets.get(&partition).cloned()
    }

    /// Every offset that was stored of a partition, in order.
    pub(crate) fn commits(&self, partition: i32) -> Vec<i64> {
        let state = self.state.lock();
        let of = state.groups.log.iter().filter(|(p, _)| *p == partition);
        of.map(|(_, offset)| *offset).collect()
    }

    pub(crate) fn members(&self) -> usize {
        self.state.lock().groups.members.len()
    }

    pub(crate) fn joins(&self) -> Vec<v1::JoinGroup> {
        self.state.lock().groups.joins.clone()
    }

    pub(crate) fn deafen(&self, deaf: bool) {
        self.state.lock().groups.deaf = deaf;
    }

    /// Forgets every member, as after a session that ran out; their streams end.
    pub(crate) fn evict_all(&self) {
        let mut state = self.state.lock();
        for id in state.groups.members.keys().cloned().collect::<Vec<_>>() {
            let unknown = v1::Error::new(ErrorCode::UnknownMember, "its session ran out");
            state.groups.say(&id, Say::Error(unknown));
            state.groups.remove(&id);
        }
    }

    /// Another node coordinates; the streams of the old one end.
    pub(crate) fn coordinate(&self, node: usize) {
        let mut state = self.state.lock();
        state.groups.node = node;
        for member in state.groups.members.values_mut() {
            member.answers = None;
        }
    }

    /// What happens to the next commits, the first first.
    pub(crate) fn fail_commits(&self, mut faults: Vec<CommitFault>) {
        faults.reverse();
        self.state.lock().groups.faults = faults;
    }

    /// Somebody from outside of the group sets an offset, whether it has members or not.
    pub(crate) fn set_offset(&self, partition: i32, offset: i64) {
        let mut state = self.state.lock();
        let _before = state
            .groups
            .offsets
            .insert(partition, (offset, String::new()));
    }

    /// A partition goes to another member, which commits, and comes back, unheard of by the first.
    pub(crate) fn lend(&self, partition: i32, offset: i64) {
        self.set_offset(partition, offset);
        let groups = &mut self.state.lock().groups;
        groups.generation += 2;
        let generation = groups.generation;
        groups.owned.get_mut(&partition).expect("owned").since = generation;
    }
}

impl Node {
    fn coordinates(&self) -> Result<(), v1::Error> {
        let state = self.fake.state.lock();
        let node = state.groups.node;
        if node == self.at {
            return Ok(());
        }
        let mut error = v1::Error::new(ErrorCode::NotCoordinator, "another node does");
        error.leader = Some(v1::LeaderHint {
            node_id: node as u64 + 1,
            grpc_address: state.addresses[node].clone(),
            leader_epoch: 1,
            ..v1::LeaderHint::default()
        });
        Err(error)
    }
}

#[tonic::async_trait]
impl v1::groups_server::Groups for Node {
    async fn find_coordinators(
        &self,
        request: Request<v1::FindCoordinatorsRequest>,
    ) -> Result<Response<v1::FindCoordinatorsResponse>, Status> {
        let state = self.fake.state.lock();
        let node = state.groups.node;
        let one = |group| v1::Coordinator {
            group,
            error: None,
            node_id: node as u64 + 1,
            grpc_address: state.addresses[node].clone(),
        };
        let coordinators = request.into_inner().groups.into_iter().map(one).collect();
        Ok(Response::new(v1::FindCoordinatorsResponse { coordinators }))
    }

    type MemberStream = Answers<v1::MemberResponse>;

    async fn member(
        &self,
        request: Request<Streaming<v1::MemberRequest>>,
    ) -> Result<Response<Self::MemberStream>, Status> {
        self.coordinates().map_err(|e| failed(&e))?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|r| r.request);
        let Some(Said::Join(join)) = first else {
            return Err(Status::invalid_argument("join"));
        };
        let id = join.member_id.clone();
        let (sender, answers) = mpsc::channel(64);
        {
            let mut state = self.fake.state.lock();
            state.groups.partitions = i32::try_from(state.parts.len()).unwrap();
            state.groups.join(join, sender).map_err(|e| failed(&e))?;
        }
        let node = self.clone();
        let _listening = spawn(async move {
            while let Ok(Some(v1::MemberRequest {
                request: Some(said),
            })) = requests.message().await
            {
                if node.coordinates().is_err() {
                    return;
                }
                node.fake.state.lock().groups.hear(&id, said);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        self.coordinates().map_err(|e| failed(&e))?;
        let mut state = self.fake.state.lock();
        let fault = state.groups.faults.pop().unwrap_or(CommitFault::None);
        if let CommitFault::Refuse(code) = fault {
            let error = Some(v1::Error::new(code, "refused by the test"));
            return Ok(Response::new(v1::CommitOffsetsResponse { error }));
        }
        let error = state.groups.commit(&request.into_inner()).err();
        if fault == CommitFault::LoseAck {
            return Err(Status::unavailable("broken by the test"));
        }
        Ok(Response::new(v1::CommitOffsetsResponse { error }))
    }

    async fn fetch_offsets(
        &self,
        _request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        self.coordinates().map_err(|e| failed(&e))?;
        let state = self.fake.state.lock();
        let one = |(&partition, stored): (&i32, &(i64, String))| v1::CommittedOffset {
            topic: "t".to_owned(),
            partition,
            offset: Some(stored.0),
            metadata: stored.1.clone(),
            committed_at_ms: 1,
        };
        let offsets = state.groups.offsets.iter().map(one).collect();
        Ok(Response::new(v1::FetchOffsetsResponse {
            error: None,
            offsets,
        }))
    }

    async fn list_groups(
        &self,
        _request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }

    async fn describe_group(
        &self,
        _request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }

    async fn delete_group(
        &self,
        _request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }
}
