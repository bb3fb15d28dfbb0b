//! Calls from the simulated clients to the simulated nodes: the messages of the public API without
//! gRPC, over mailboxes that lose, delay and never lie.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use seriatim_proto::v1;
use seriatim_runtime::{clock, rng};
use tokio::sync::{mpsc, oneshot};

/// Calls that wait at one node.
pub const MAILBOX: usize = 1024;

/// One way between client and node, at most.
const LATENCY_MAX: Duration = Duration::from_millis(3);

/// A request.
#[derive(Debug)]
pub enum Call {
    /// Append one batch.
    Produce(v1::ProduceRequest),
    /// Read one partition.
    Fetch(v1::FetchRequest),
    /// Remove the records of one partition below an offset.
    Trim(v1::TrimPartitionRequest),
    /// A new producer session.
    InitProducer,
    /// A new topic, complete with leaders.
    CreateTopic(v1::CreateTopicRequest),
    /// Nodes and topics.
    Describe(v1::DescribeRequest),
    /// Move a partition, or turn its move round.
    Reassign(v1::ReassignRequest),
    /// Who coordinates a group.
    FindCoordinators(v1::FindCoordinatorsRequest),
    /// A member's stream, answered once it has begun.
    Member {
        /// Its first message.
        join: v1::JoinGroup,
        /// The further ones; broken when either side is gone.
        requests: mpsc::Receiver<v1::MemberRequest>,
        /// What the member is told.
        responses: mpsc::Sender<v1::MemberResponse>,
    },
    /// Store offsets of a group.
    Commit(v1::CommitOffsetsRequest),
    /// Where a group is.
    Offsets(v1::FetchOffsetsRequest),
    /// Stop as if told by a signal: hand over what is led, end what is under way. Only the harness asks.
    Stop,
    /// A number that stands for the bytes of this node's committed log of a partition between two
    /// offsets; only the harness asks.
    Digest {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the compared part begins.
        start: i64,
        /// Where the compared part ends.
        end: i64,
    },
}

/// A response.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Call::Produce`].
    Produced(v1::ProduceResponse),
    /// To [`Call::Fetch`].
    Fetched(v1::FetchResponse),
    /// To [`Call::InitProducer`].
    Producer(v1::InitProducerResponse),
    /// To [`Call::CreateTopic`].
    Created,
    /// To [`Call::Describe`].
    Described(v1::DescribeResponse),
    /// To [`Call::Reassign`].
    Moving,
    /// To [`Call::Trim`].
    Trimmed(v1::TrimPartitionResponse),
    /// To [`Call::FindCoordinators`].
    Coordinators(v1::FindCoordinatorsResponse),
    /// To [`Call::Member`].
    Joined,
    /// To [`Call::Commit`].
    Committed(v1::CommitOffsetsResponse),
    /// To [`Call::Offsets`].
    Offsets(v1::FetchOffsetsResponse),
    /// To [`Call::Stop`].
    Stopping,
    /// To [`Call::Digest`]; `None` while the replica is not that far.
    Digest(Option<u64>),
    /// The call failed as a whole.
    Failed(v1::Error),
}

/// A request on its way.
#[derive(Debug)]
pub struct Envelope {
    /// The request.
    pub call: Call,
    /// Where the answer goes. Dropped with the node, the caller learns only that the line broke.
    pub reply: oneshot::Sender<Answer>,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The request never left.
    Unsent,
    /// The request may have been carried out.
    Unanswered,
}

/// Who can be called.
#[derive(Debug, Clone, Default)]
pub struct Switchboard {
    nodes: Arc<Mutex<BTreeMap<u64, mpsc::Sender<Envelope>>>>,
}

impl Switchboard {
    /// A new mailbox for a node, in place of its former one.
    pub fn connect(&self, node: u64) -> mpsc::Receiver<Envelope> {
        let (sender, receiver) = mpsc::channel(MAILBOX);
        let _former = self.nodes.lock().insert(node, sender);
        receiver
    }

    /// Asks a node to stop, as a signal would. It does so if it runs; it may take some seconds.
    pub fn ask_to_stop(&self, node: u64) {
        let sender = self.nodes.lock().get(&node).cloned();
        let (reply, _nobody_waits) = oneshot::channel();
        let call = Call::Stop;
        let sent = sender.is_some_and(|node| node.try_send(Envelope { call, reply }).is_ok());
        tracing::debug!(node, sent, "asked to stop");
    }

    /// Sends a request and waits for its answer.
    pub async fn call(&self, node: u64, call: Call, limit: Duration) -> Result<Answer, Lost> {
        let sender = self.nodes.lock().get(&node).cloned();
        let sender = sender.ok_or(Lost::Unsent)?;
        clock::sleep(rng::duration_below(LATENCY_MAX)).await;
        let (reply, answer) = oneshot::channel();
        sender
            .try_send(Envelope { call, reply })
            .map_err(|_full_or_gone| Lost::Unsent)?;
        let answer = clock::timeout(limit, answer)
            .await
            .map_err(|_elapsed| Lost::Unanswered)?
            .map_err(|_gone| Lost::Unanswered)?;
        clock::sleep(rng::duration_below(LATENCY_MAX)).await;
        Ok(answer)
    }
}
