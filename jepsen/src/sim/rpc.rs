//! Calls from the simulated clients to the simulated nodes: the messages of the public API without
//! gRPC, over mailboxes that lose, delay and repeat, and never lie.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use seriatim_proto::{batch::BatchHeader, ids::ProducerId, v1};
use seriatim_runtime::{clock, rng, task};
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
    /// A number that stands for what this node knows of the cluster; only the harness asks.
    Image,
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
    /// To [`Call::Digest`] and [`Call::Image`]; `None` while the replica is not that far.
    Digest(Option<u64>),
    /// The call failed as a whole.
    Failed(v1::Error),
}

impl Answer {
    /// Where an append was refused, it may be done yet: its request comes again.
    fn doubt(&mut self) {
        match self {
            Self::Failed(error) => error.maybe_applied = true,
            Self::Produced(response) => {
                let results = response.results.iter_mut();
                results
                    .filter_map(|result| result.error.as_mut())
                    .for_each(|error| error.maybe_applied = true);
            }
            _ => {}
        }
    }
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

/// What is wrong with the lines between clients and nodes.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    /// Nodes that no client reaches.
    cut: BTreeSet<u64>,
    /// Requests that are lost, of a hundred.
    pub lost_requests: u8,
    /// Answers that are lost, of a hundred.
    pub lost_answers: u8,
    /// What a request takes in addition, at most.
    pub slow: Duration,
    /// Requests of producer sessions that arrive a second time, of a hundred.
    pub repeated: u8,
    /// How much later, at most.
    pub repeated_after: Duration,
}

/// Who can be called.
#[derive(Debug, Clone, Default)]
pub struct Switchboard {
    nodes: Arc<Mutex<BTreeMap<u64, mpsc::Sender<Envelope>>>>,
    lines: Arc<Mutex<Lines>>,
}

impl Switchboard {
    /// A new mailbox for a node, in place of its former one.
    pub fn connect(&self, node: u64) -> mpsc::Receiver<Envelope> {
        let (sender, receiver) = mpsc::channel(MAILBOX);
        let _former = self.nodes.lock().insert(node, sender);
        receiver
    }

    /// Cuts clients off from a node, or lets them reach it again.
    pub fn cut(&self, node: u64, cut: bool) {
        let mut lines = self.lines.lock();
        let _changed = if cut {
            lines.cut.insert(node)
        } else {
            lines.cut.remove(&node)
        };
    }

    /// Changes what is wrong with the lines.
    pub fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.lines.lock());
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
        let deadline = clock::now() + limit;
        let lines = self.lines.lock().clone();
        clock::sleep(rng::duration_below(LATENCY_MAX) + rng::duration_below(lines.slow)).await;
        if self.is_lost(node, lines.lost_requests) {
            // Whoever calls cannot tell this from an answer that was lost.
            clock::sleep_until(deadline).await;
            return Err(Lost::Unanswered);
        }
        let comes_again = hits(lines.repeated) && repeat(&sender, &call, lines.repeated_after);
        let (reply, answer) = oneshot::channel();
        if sender.try_send(Envelope { call, reply }).is_err() {
            // Its node is gone or has no room; there may be room for it later.
            return Err(if comes_again {
                Lost::Unanswered
            } else {
                Lost::Unsent
            });
        }
        let mut answer = clock::timeout(limit, answer)
            .await
            .map_err(|_elapsed| Lost::Unanswered)?
            .map_err(|_gone| Lost::Unanswered)?;
        if comes_again {
            answer.doubt();
        }
        clock::sleep(rng::duration_below(LATENCY_MAX)).await;
        if self.is_lost(node, lines.lost_answers) {
            clock::sleep_until(deadline).await;
            return Err(Lost::Unanswered);
        }
        Ok(answer)
    }

    fn is_lost(&self, node: u64, percent: u8) -> bool {
        self.lines.lock().cut.contains(&node) || hits(percent)
    }
}

/// Draws nothing where nothing can happen.
fn hits(percent: u8) -> bool {
    percent > 0 && rng::below(100) < u64::from(percent)
}

/// Lets a request arrive a second time, if the protocol says that this does no harm: appends of a
/// producer session are numbered. Says whether it will.
fn repeat(sender: &mpsc::Sender<Envelope>, call: &Call, most: Duration) -> bool {
    let Call::Produce(request) = call else {
        return false;
    };
    let numbered = |batch: &v1::PartitionBatch| {
        let header = BatchHeader::parse(&batch.record_batch);
        header.is_ok_and(|header| header.producer_id != ProducerId::NONE)
    };
    if !request.batches.iter().all(numbered) {
        return false;
    }
    let (sender, call) = (sender.clone(), Call::Produce(request.clone()));
    let _second = task::spawn("repeat", async move {
        clock::sleep(rng::duration_below(most)).await;
        let (reply, _nobody_waits) = oneshot::channel();
        // A node that is gone, or too busy, does not get it.
        drop(sender.try_send(Envelope { call, reply }));
    });
    true
}
