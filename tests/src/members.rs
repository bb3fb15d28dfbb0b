//! Members of consumer groups over plain gRPC, without the client library.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, bail, ensure};
use seriatim_proto::v1::{
    self, ErrorCode, member_request::Request, member_response::Response as Answer,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use crate::{cluster::Cluster, grpc::Api, wait};

const LIMIT: Duration = Duration::from_secs(30);

/// How often a member says that it lives.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// A partition of a topic.
pub type Tp = (String, i32);

/// A connection to the node that coordinates a group, once one does.
///
/// # Errors
/// If none does in time.
pub async fn coordinator(cluster: &Cluster, group: &str) -> anyhow::Result<Api> {
    let (api, _node) = coordinator_of(cluster, group).await?;
    Ok(api)
}

/// The same, and which node it is.
///
/// # Errors
/// If none does in time.
pub async fn coordinator_of(cluster: &Cluster, group: &str) -> anyhow::Result<(Api, u64)> {
    wait::until("the group has a coordinator", LIMIT, async || {
        let mut failure = None;
        for node in cluster.nodes().iter().filter(|node| node.is_running()) {
            match ask(&node.addresses.grpc, group).await {
                Ok(found) => return Ok(Some(found)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("no node runs")?)
    })
    .await
}

async fn ask(address: &str, group: &str) -> anyhow::Result<(Api, u64)> {
    let request = v1::FindCoordinatorsRequest {
        groups: vec![group.to_owned()],
    };
    let found = Api::connect(address)
        .await?
        .groups
        .find_coordinators(request)
        .await?;
    let mut coordinators = found.into_inner().coordinators;
    let found = coordinators.pop().context("no answer")?;
    ensure!(found.error.is_none(), "{:?}", found.error);
    let mut api = Api::connect(&found.grpc_address).await?;
    // It may have heard of another leader since, or be about to become one.
    let request = v1::FetchOffsetsRequest {
        group: group.to_owned(),
        partitions: Vec::new(),
    };
    let fetched = api.groups.fetch_offsets(request).await?.into_inner();
    ensure!(fetched.error.is_none(), "{:?}", fetched.error);
    Ok((api, found.node_id))
}

/// A member of a group.
#[derive(Debug)]
pub struct Member {
    /// Its id.
    pub id: String,
    group: String,
    /// What it was told last.
    pub assignment: v1::Assignment,
    requests: mpsc::Sender<v1::MemberRequest>,
    answers: mpsc::Receiver<Answer>,
    /// Ends with the member.
    _tasks: JoinSet<()>,
}

/// A request to join with default timeouts.
pub fn join(group: &str, member: &str, topics: &[&str]) -> v1::JoinGroup {
    v1::JoinGroup {
        group: group.to_owned(),
        member_id: member.to_owned(),
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        client_id: "e2e".to_owned(),
        ..v1::JoinGroup::default()
    }
}

impl Member {
    /// Opens a stream and sends a request to join; waits for nothing. The member says that it lives
    /// for as long as it is held.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn open(api: &Api, join: v1::JoinGroup) -> anyhow::Result<Self> {
        let (id, group) = (join.member_id.clone(), join.group.clone());
        let (requests, outgoing) = mpsc::channel(16);
        requests.send(request(Request::Join(join))).await?;
        let stream = ReceiverStream::new(outgoing);
        let mut incoming = api.groups.clone().member(stream).await?.into_inner();
        let (sender, answers) = mpsc::channel(1_000);
        let mut tasks = JoinSet::new();
        let _reading = tasks.spawn(async move {
            while let Ok(Some(v1::MemberResponse { response })) = incoming.message().await {
                let Some(answer) = response else { return };
                if sender.send(answer).await.is_err() {
                    return;
                }
            }
        });
        let heart = requests.clone();
        let _beating = tasks.spawn(async move {
            let mut sequence = 0;
            loop {
                let beat = Request::Heartbeat(v1::Heartbeat { sequence });
                if heart.send(request(beat)).await.is_err() {
                    return;
                }
                sequence += 1;
                tokio::time::sleep(HEARTBEAT).await;
            }
        });
        Ok(Self {
            id,
            group,
            assignment: v1::Assignment::default(),
            requests,
            answers,
            _tasks: tasks,
        })
    }

    /// Joins and waits for the first assignment.
    ///
    /// # Errors
    /// If it is refused or not in time.
    pub async fn join(api: &Api, join: v1::JoinGroup) -> anyhow::Result<Self> {
        let mut member = Self::open(api, join).await?;
        let _first = member.told().await?;
        Ok(member)
    }

    /// The next assignment, error or end (`None`) of the stream.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn next(&mut self) -> anyhow::Result<Option<Answer>> {
        let next = async {
            loop {
                match self.answers.recv().await {
                    Some(Answer::Heartbeat(_)) => {}
                    other => return other,
                }
            }
        };
        let answer = tokio::time::timeout(LIMIT, next).await;
        answer.context("the member was told nothing")
    }

    /// The next assignment.
    ///
    /// # Errors
    /// If the stream ends, or there is none in time.
    pub async fn told(&mut self) -> anyhow::Result<&v1::Assignment> {
        match self.next().await? {
            Some(Answer::Assignment(assignment)) => self.assignment = assignment,
            other => bail!("member {}: {other:?} instead of an assignment", self.id),
        }
        Ok(&self.assignment)
    }

    /// Waits for an assignment like this.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn until(
        &mut self,
        like: impl Fn(&v1::Assignment) -> bool,
    ) -> anyhow::Result<&v1::Assignment> {
        let wait = async {
            while !like(&self.assignment) {
                let _next = self.told().await?;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(LIMIT, wait).await {
            Ok(told) => told?,
            Err(_late) => bail!("member {} was last told {:?}", self.id, self.assignment),
        }
        Ok(&self.assignment)
    }

    /// Waits for the error that ends the stream.
    ///
    /// # Errors
    /// If it ends otherwise, or not in time.
    pub async fn refused(&mut self) -> anyhow::Result<v1::Error> {
        loop {
            match self.next().await? {
                Some(Answer::Error(error)) => {
                    ensure!(!error.message.is_empty(), "no message");
                    ensure!(self.next().await?.is_none(), "an error is the last message");
                    return Ok(error);
                }
                Some(_) => {}
                None => bail!("member {}: the stream ended without an error", self.id),
            }
        }
    }

    /// What it owns and keeps.
    pub fn owned(&self) -> BTreeSet<Tp> {
        let assigned = self.assignment.assigned.iter();
        assigned
            .map(|of| (of.topic.clone(), of.partition))
            .collect()
    }

    /// Lets go of what it was told to.
    ///
    /// # Errors
    /// If the stream has ended.
    pub async fn release(&self) -> anyhow::Result<()> {
        let released = v1::Released {
            partitions: self.assignment.revoke.clone(),
            generation: self.assignment.generation,
        };
        self.send(Request::Released(released)).await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the stream has ended.
    pub async fn send(&self, message: Request) -> anyhow::Result<()> {
        self.requests.send(request(message)).await?;
        Ok(())
    }

    /// Leaves, and waits until the stream ends without an error.
    ///
    /// # Errors
    /// If it ends otherwise.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        self.send(Request::Leave(v1::Leave {})).await?;
        loop {
            match self.next().await? {
                None => return Ok(()),
                Some(Answer::Error(error)) => bail!("{error:?}"),
                Some(_) => {}
            }
        }
    }

    /// Commits one offset in the generation that it was told last.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn commit(
        &self,
        api: &Api,
        tp: &Tp,
        offset: i64,
    ) -> anyhow::Result<Option<v1::Error>> {
        let mut request = commit(&self.group, tp, offset);
        request.member_id.clone_from(&self.id);
        request.generation = self.assignment.generation;
        let committed = api.groups.clone().commit_offsets(request).await?;
        Ok(committed.into_inner().error)
    }
}

fn request(message: Request) -> v1::MemberRequest {
    v1::MemberRequest {
        request: Some(message),
    }
}

/// A commit of one offset from outside of the group.
pub fn commit(group: &str, (topic, partition): &Tp, offset: i64) -> v1::CommitOffsetsRequest {
    v1::CommitOffsetsRequest {
        group: group.to_owned(),
        offsets: vec![v1::OffsetCommit {
            topic: topic.clone(),
            partition: *partition,
            offset,
            ..v1::OffsetCommit::default()
        }],
        ..v1::CommitOffsetsRequest::default()
    }
}

/// The offsets of a group, without metadata and time.
///
/// # Errors
/// If they cannot be read.
pub async fn offsets(api: &Api, group: &str) -> anyhow::Result<Vec<(Tp, i64)>> {
    let request = v1::FetchOffsetsRequest {
        group: group.to_owned(),
        partitions: Vec::new(),
    };
    let fetched = api
        .groups
        .clone()
        .fetch_offsets(request)
        .await?
        .into_inner();
    if let Some(error) = fetched.error {
        bail!("{error:?}");
    }
    let offsets = fetched.offsets.into_iter();
    let offset = |at: v1::CommittedOffset| {
        let offset = at.offset.context("an offset that was never committed")?;
        anyhow::Ok(((at.topic, at.partition), offset))
    };
    offsets.map(offset).collect()
}

/// Describes a group.
///
/// # Errors
/// If the call fails.
pub async fn describe(api: &Api, group: &str) -> anyhow::Result<v1::DescribeGroupResponse> {
    let request = v1::DescribeGroupRequest {
        group: group.to_owned(),
    };
    let described = api.groups.clone().describe_group(request).await?;
    Ok(described.into_inner())
}

/// The code of a refusal.
///
/// # Errors
/// If there is none, or one without a message.
pub fn code(error: Option<v1::Error>) -> anyhow::Result<ErrorCode> {
    let error = error.context("it was accepted")?;
    ensure!(!error.message.is_empty(), "no message");
    ensure!(!error.maybe_applied, "{error:?}");
    Ok(error.code())
}
