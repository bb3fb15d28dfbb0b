//! Commands to the controller: the node that leads the metadata group.
//!
//! Any node may ask. The asker finds the controller, retries until its deadline, and every request
//! is made so that a repetition does no harm: a topic remembers the request that created it, a
//! deletion names the topic's identity, the rest sets what it says.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use seriatim_consensus::{Group, LaneService, Proposal, ProposeError, Reply as RaftReply, Role};
use seriatim_proto::{ids::NodeId, internal::v1 as wire};
use seriatim_runtime::{clock, hit};
use tokio::time::Instant;
use wire::{
    control_reply::Reply as Answer, control_request::Request, meta_command::Command,
    meta_reply::Reply,
};

use crate::{
    apply,
    cluster::Inner,
    command::{self, Refusal},
    error::ClusterError,
    image::{Image, Topic},
    intents,
};

/// Lane message kind of [`wire::ControlRequest`].
const KIND: u16 = 0x0101;

/// Longest time that one attempt waits for its answer.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How long the founders of a cluster may take to register before topics are placed without them;
/// less than an attempt.
const REGISTRATION: Duration = Duration::from_secs(3);

/// The identity of no topic.
const NO_TOPIC: &str = "none";

/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// What the metadata group decided, and whether an earlier attempt of the same request was lost
/// with unknown effect.
pub(crate) struct Decided {
    pub(crate) reply: Result<Reply, Refusal>,
    pub(crate) repeated: bool,
    /// Where the command stands in the metadata log; 0 where the controller does not tell.
    pub(crate) index: u64,
}

/// Sends a command to the controller.
pub(crate) async fn command(
    inner: &Arc<Inner>,
    command: Command,
    deadline: Instant,
) -> Result<Reply, ClusterError> {
    Ok(decide(inner, command, deadline).await?.reply?)
}

/// Sends a command to the controller and tells whether it was repeated.
pub(crate) async fn decide(
    inner: &Arc<Inner>,
    command: Command,
    deadline: Instant,
) -> Result<Decided, ClusterError> {
    ask(
        inner,
        Request::Command(command::versioned(command)),
        deadline,
    )
    .await
}

/// Has the controller place and create a topic.
pub(crate) async fn create_topic(
    inner: &Arc<Inner>,
    intent: wire::CreateTopicIntent,
    deadline: Instant,
) -> Result<Topic, ClusterError> {
    match ask(inner, Request::CreateTopic(intent), deadline)
        .await?
        .reply?
    {
        Reply::Topic(topic) => Ok(topic.into()),
        _ => Err(unexpected()),
    }
}

/// Has a topic deleted. Which one has the name is asked of the controller first: this node may be behind and
/// know one that was deleted before, and then could not tell that from what an attempt whose answer was lost
/// has done.
pub(crate) async fn delete_topic(
    inner: &Arc<Inner>,
    name: &str,
    deadline: Instant,
) -> Result<(), ClusterError> {
    let delete = |topic_id: &str| decide(inner, deletion(name, topic_id), deadline);
    loop {
        let topic_id = match delete(NO_TOPIC).await?.reply {
            Err(Refusal::OtherTopic { topic_id, .. }) => topic_id,
            reply => {
                // There is none, or the controller's version does not tell which one there is.
                let known = inner.machine.image().topics.get(name).cloned();
                match (known, reply) {
                    (Some(known), _) => known.id.clone(),
                    (None, Err(refusal)) => return Err(refusal.into()),
                    (None, Ok(_)) => return Err(unexpected()),
                }
            }
        };
        let decided = delete(&topic_id).await?;
        match decided.reply {
            Ok(_) => return Ok(()),
            // An attempt whose answer was lost has deleted it.
            Err(Refusal::UnknownTopic { .. } | Refusal::OtherTopic { .. }) if decided.repeated => {
                return Ok(());
            }
            // Somebody else has, and created another one.
            Err(Refusal::OtherTopic { .. }) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
}

fn deletion(name: &str, topic_id: &str) -> Command {
    Command::DeleteTopic(wire::DeleteTopic {
        name: name.to_owned(),
        topic_id: topic_id.to_owned(),
    })
}

/// Waits until this node's image is as new as the controller's was when it was asked; `false`: it is not
/// by the deadline.
pub(crate) async fn catch_up(inner: &Arc<Inner>, deadline: Instant) -> bool {
    // Deletes nothing: where it stands in the metadata log tells how far the image has to be.
    let Ok(decided) = decide(inner, deletion("", NO_TOPIC), deadline).await else {
        return false;
    };
    let applied = clock::timeout_at(deadline, inner.machine.applied(decided.index)).await;
    matches!(applied, Ok(Ok(())))
}

/// The answer does not fit the request.
pub(crate) fn unexpected() -> ClusterError {
    Refusal::Malformed {
        what: "the controller answered another question".to_owned(),
    }
    .into()
}

/// The node that leads the metadata group, as far as this node knows.
pub(crate) fn controller(inner: &Inner) -> Option<NodeId> {
    let group = inner.control.get()?;
    let state = group.state().borrow().clone();
    state.leader.map(|(_, node)| node)
}

pub(crate) async fn ask(
    inner: &Arc<Inner>,
    request: Request,
    deadline: Instant,
) -> Result<Decided, ClusterError> {
    let request = wire::ControlRequest {
        request: Some(request),
    };
    let mut repeated = false;
    let mut hint = None;
    let mut pause = Duration::from_millis(10);
    for attempt in 0_usize.. {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            break;
        }
        let timeout = left.min(ATTEMPT);
        let target = hint.take().or_else(|| target(inner, attempt));
        let answer = match target {
            Some(node) if node == inner.me() => answer(inner, request.clone(), timeout).await,
            Some(node) => call(inner, node, &request, timeout).await,
            None => Answer::Controller(0),
        };
        match answer {
            Answer::Done(reply) => {
                let index = reply.index;
                let reply = command::decode_reply(reply);
                if reply == Err(Refusal::NotFounded) {
                    clock::sleep(pause.min(left)).await;
                    continue;
                }
                return Ok(Decided {
                    reply,
                    repeated,
                    index,
                });
            }
            Answer::Controller(node) if node != 0 && Some(NodeId(node)) != target => {
                hint = Some(NodeId(node));
                continue;
            }
            Answer::Controller(_) => {}
            Answer::Uncertain(why) => {
                hit!("cluster.command.repeated");
                tracing::debug!(why, "no answer of the controller");
                repeated = true;
            }
        }
        clock::sleep(pause.min(left)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    Err(ClusterError::NoController {
        maybe_applied: repeated,
    })
}

/// Whom to ask: the leader that this node knows of, else one known node after the other.
fn target(inner: &Inner, attempt: usize) -> Option<NodeId> {
    if let Some(leader) = controller(inner) {
        return Some(leader);
    }
    let image = inner.machine.image();
    let mut nodes: BTreeSet<NodeId> = image.nodes.keys().copied().collect();
    nodes.extend(inner.founding.peers());
    let _ = nodes.remove(&inner.me());
    let count = nodes.len();
    nodes.into_iter().nth(attempt.checked_rem(count)?)
}

async fn call(
    inner: &Inner,
    node: NodeId,
    request: &wire::ControlRequest,
    timeout: Duration,
) -> Answer {
    let body = Bytes::from(request.encode_to_vec());
    let bytes = match inner.lane.call(node, KIND, body, timeout).await {
        Ok(bytes) => bytes,
        Err(error) => return Answer::Uncertain(error.to_string()),
    };
    match wire::ControlReply::decode(bytes) {
        Ok(reply) => reply.reply.unwrap_or(Answer::Controller(0)),
        Err(error) => Answer::Uncertain(error.to_string()),
    }
}

/// Answers requests of other nodes.
#[derive(Debug)]
struct Service(Weak<Inner>);

/// Starts to answer requests of other nodes.
pub(crate) fn serve(inner: &Arc<Inner>) {
    inner
        .lane
        .register(KIND, Arc::new(Service(Arc::downgrade(inner))));
}

#[async_trait]
impl LaneService for Service {
    async fn call(&self, _from: NodeId, body: Bytes) -> Result<Bytes, String> {
        let inner = self.0.upgrade().ok_or("shutting down")?;
        let request = wire::ControlRequest::decode(body).map_err(|error| error.to_string())?;
        let reply = wire::ControlReply {
            reply: Some(answer(&inner, request, ATTEMPT).await),
        };
        Ok(reply.encode_to_vec().into())
    }
}

/// Decides a request if this node is the controller.
async fn answer(inner: &Arc<Inner>, request: wire::ControlRequest, timeout: Duration) -> Answer {
    let Some(group) = inner.control.get() else {
        return Answer::Controller(0);
    };
    let state = group.state().borrow().clone();
    if state.role != Role::Leader {
        return Answer::Controller(state.leader.map_or(0, |(_, node)| node.0));
    }
    let decide = async {
        match request.request {
            Some(Request::CreateTopic(intent)) => place_topic(inner, &group, &intent).await,
            Some(Request::Command(command)) => {
                match command::allowed(&inner.machine.image(), command.version) {
                    Ok(()) => submit(&group, command.encode_to_vec().into()).await,
                    Err(refusal) => refused(refusal),
                }
            }
            Some(Request::Move(intent)) => intents::moves(inner, &group, &intent).await,
            Some(Request::Leave(intent)) => intents::leave(inner, &group, &intent).await,
            Some(Request::AddPartitions(intent)) => {
                intents::add_partitions(inner, &group, &intent).await
            }
            None => refused(Refusal::UnknownCommand { version: 0 }),
        }
    };
    match clock::timeout(timeout, decide).await {
        Ok(answer) => answer,
        Err(_elapsed) => Answer::Uncertain("no majority of the metadata group answered".into()),
    }
}

pub(crate) fn refused(refusal: Refusal) -> Answer {
    Answer::Done(command::encode_reply(Err(refusal)))
}

async fn place_topic(
    inner: &Arc<Inner>,
    group: &Group,
    intent: &wire::CreateTopicIntent,
) -> Answer {
    founders_registered(inner, group).await;
    let _one_at_a_time = inner.placing.lock().await;
    // A new controller may not have applied everything that was decided before it.
    if group.read_barrier().await.is_err() {
        return Answer::Controller(0);
    }
    let image = inner.machine.image();
    if !is_founded(&image, &voters(group)) {
        return refused(Refusal::NotFounded);
    }
    let create = match apply::plan_topic(&image, intent, crate::new_id()) {
        Ok(create) => Command::CreateTopic(create),
        Err(refusal) => return refused(refusal),
    };
    if intent.validate_only {
        let mut copy = Image::clone(&image);
        let reply = apply::apply(&mut copy, create, &mut apply::Touched::default());
        return Answer::Done(command::encode_reply(reply));
    }
    submit(group, command::encode(create)).await
}

/// Waits until every voter of the metadata group has registered, for a while: a topic that is
/// created while a cluster forms would be refused for want of nodes, or get fewer replicas than
/// are meant where their number is left to the cluster.
async fn founders_registered(inner: &Inner, group: &Group) {
    let voters = voters(group);
    let mut image = inner.machine.watch();
    let complete = image.wait_for(|image| voters.iter().all(|node| image.nodes.contains_key(node)));
    if clock::timeout(REGISTRATION, complete).await.is_err() {
        tracing::warn!("placing a topic although not every founder has registered");
    }
}

/// Whether there are nodes to place topics on. A majority of the voters runs, or there were no
/// controller: they are about to register.
fn is_founded(image: &Image, voters: &BTreeSet<NodeId>) -> bool {
    let registered = voters.iter().filter(|node| image.nodes.contains_key(node));
    registered.count() * 2 > voters.len()
}

/// The nodes that vote in a group.
fn voters(group: &Group) -> BTreeSet<NodeId> {
    let members = group.status().membership.into_iter();
    let voters = members.filter(|member| member.voter);
    voters.map(|member| member.node).collect()
}

/// Proposes a command to the group that this node leads and waits for its answer.
pub(crate) async fn submit(group: &Group, command: Bytes) -> Answer {
    let term = group.state().borrow().term;
    let applied = match group.submit(Proposal::Command(command), term).await {
        Ok(pending) => pending.await,
        Err(error) => Err(error),
    };
    match applied.map(|applied| (applied.reply, applied.log_id.index)) {
        Ok((RaftReply::Command(bytes), index)) => match wire::MetaReply::decode(bytes) {
            Ok(reply) => Answer::Done(wire::MetaReply { index, ..reply }),
            Err(error) => Answer::Uncertain(error.to_string()),
        },
        Ok(_) => Answer::Uncertain("the command was applied as something else".to_owned()),
        Err(ProposeError::NotLeader {
            leader,
            maybe_applied: false,
        }) => Answer::Controller(leader.map_or(0, |node| node.0)),
        Err(error) => Answer::Uncertain(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::NodeInfo;

    /// A topic was refused for want of nodes, for good, while those that vote were about to register
    /// (simulator seed 7562).
    #[test]
    fn topics_wait_until_a_majority_of_the_voters_has_registered() {
        let node = |id| (NodeId(id), Arc::new(NodeInfo::default()));
        let voters: BTreeSet<NodeId> = (1..=3).map(NodeId).collect();
        for (registered, founded) in [
            (vec![], false),
            (vec![1], false),
            // Not one of those who vote.
            (vec![1, 4], false),
            (vec![1, 3], true),
            (vec![1, 2, 3], true),
        ] {
            let image = Image {
                nodes: registered.iter().copied().map(node).collect(),
                ..Image::default()
            };
            assert_eq!(is_founded(&image, &voters), founded, "{registered:?}");
        }
        assert!(
            !is_founded(&Image::default(), &BTreeSet::new()),
            "nobody votes yet"
        );
    }
}
