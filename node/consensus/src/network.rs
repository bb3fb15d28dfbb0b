//! openraft's network over the [`Lane`]: one client per group, peer and class.

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::{BufMut as _, BytesMut};
use futures::{Stream, StreamExt as _, future, stream::BoxStream};
use openraft::{
    OptionalSend, RaftNetworkFactory,
    alias::{SnapshotOf, VoteOf},
    errors::{RPCError, ReplicationClosed, StreamingError},
    network::{Backoff, RPCOption, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use seriatim_proto::ids::{GroupId, NodeId};
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
    rng,
};

use crate::{
    Lane, LaneError, Snapshot, codec,
    lane::{Class, PendingAnswer, Room},
    pace::Pace,
    parts,
    raft::{Peer, RaftLogId, Types, unreachable},
    receive::{self, kind},
    under_way::UnderWay,
};

/// Append requests of one group under way to one follower.
const WINDOW: usize = 32;
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
const VOTE_TIMEOUT: Duration = Duration::from_secs(3);
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

type RpcError = RPCError<Types>;
type Appended = Result<StreamAppendResult<Types>, RpcError>;

/// Makes the clients of one replica.
#[derive(Clone)]
pub(crate) struct Factory {
    pub(crate) lane: Lane,
    pub(crate) group: GroupId,
    pub(crate) pace: Pace,
}

impl Factory {
    fn client(&self, target: u64, node: Peer, class: Class) -> Client {
        Client {
            lane: self.lane.clone(),
            group: self.group,
            pace: self.pace.clone(),
            target,
            seen: AtomicU64::new(0),
            node: node.node,
            class,
        }
    }
}

impl RaftNetworkFactory<Types> for Factory {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Client {
        self.client(target, *node, Class::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Peer) -> Client {
        self.client(target, *node, Class::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Peer) -> Client {
        self.client(target, *node, Class::Snapshot)
    }
}

/// Talks to one replica.
pub(crate) struct Client {
    lane: Lane,
    group: GroupId,
    pace: Pace,
    /// Bytes that the log had been appended when entries were last sent.
    seen: AtomicU64,
    target: u64,
    node: NodeId,
    class: Class,
}

impl Client {
    fn address(&self) -> BytesMut {
        let mut head = BytesMut::with_capacity(128);
        head.put_u64(self.group.0);
        head.put_u64(self.target);
        head
    }

    /// Sends a request once there is room for it among those under way to this node.
    async fn send_append(
        &self,
        request: AppendEntriesRequest<Types>,
    ) -> Result<(PendingAnswer, Room), RpcError> {
        let first = request.entries.first().map(|entry| entry.log_id.index);
        let parts = codec::encode_append(&mut self.address(), request).map_err(failed)?;
        if let Some(first) = first.filter(|_| self.class == Class::Append) {
            let bytes = parts.iter().map(bytes::Bytes::len).sum();
            let turn = self.pace.wait(self.target, first, bytes, &self.seen);
            let come = self.pace.withheld.unless(Some(first), turn).await;
            if come.is_none() {
                hit!("consensus.append.withheld");
            }
            come.ok_or_else(|| failed(Withheld))?;
        }
        let room = if self.class == Class::Control {
            Room::default()
        } else {
            let bytes = parts.iter().map(bytes::Bytes::len).sum();
            self.lane.room(self.node, bytes).await
        };
        let class = if self.class == Class::Snapshot {
            Class::Append
        } else {
            self.class
        };
        let sent = self.lane.send(self.node, class, kind::APPEND, parts);
        sent.map(|pending| (pending, room)).map_err(failed)
    }

    /// Sends a snapshot, in parts where it is large; returns the answer to all of it.
    async fn send_snapshot(
        &self,
        vote: &VoteOf<Types>,
        mut snapshot: Snapshot,
    ) -> Result<bytes::Bytes, LaneError> {
        let class = Class::Snapshot;
        let data = snapshot.data.clone();
        if data.len() > parts::SNAPSHOT_BYTES_MAX {
            let text = format!(
                "the snapshot has {} bytes, at most {} can be sent",
                data.len(),
                parts::SNAPSHOT_BYTES_MAX
            );
            tracing::error!(group = %self.group, "{text}");
            return Err(LaneError::Failed(text));
        }
        if data.len() <= parts::PART_BYTES {
            let mut head = self.address();
            receive::encode_snapshot(&mut head, vote, &snapshot);
            return self
                .ask(class, kind::SNAPSHOT, head, SNAPSHOT_TIMEOUT)
                .await;
        }
        hit!("consensus.snapshot.in-parts");
        let transfer = rng::u64();
        let mut position = 0;
        while position < data.len() {
            let end = data.len().min(position + parts::PART_BYTES);
            let mut head = self.address();
            parts::part_head(&mut head, transfer, data.len(), position);
            self.pace.throttle(end - position).await;
            let pieces = vec![head.freeze(), data.slice(position..end)];
            let sent = self
                .lane
                .send(self.node, class, kind::SNAPSHOT_PART, pieces)?;
            let _empty = sent.answer(SNAPSHOT_TIMEOUT).await?;
            position = end;
        }
        snapshot.data = parts::ticket(transfer, &data);
        let mut head = self.address();
        receive::encode_snapshot(&mut head, vote, &snapshot);
        self.ask(class, kind::SNAPSHOT_INSTALL, head, SNAPSHOT_TIMEOUT)
            .await
    }

    async fn ask(
        &self,
        class: Class,
        kind: u16,
        head: BytesMut,
        timeout: Duration,
    ) -> Result<bytes::Bytes, LaneError> {
        let pending = self
            .lane
            .send(self.node, class, kind, vec![head.freeze()])?;
        pending.answer(timeout).await.map(|(_node, body)| body)
    }
}

/// Why entries are not sent.
#[derive(Debug, thiserror::Error)]
#[error("the entries are being purged; the boundary is sent instead")]
struct Withheld;

fn failed(why: impl std::error::Error + 'static) -> RpcError {
    RPCError::Unreachable(unreachable(&why))
}

fn range_of(request: &AppendEntriesRequest<Types>) -> (Option<RaftLogId>, Option<RaftLogId>) {
    let last = request.entries.last().map(|entry| entry.log_id);
    (request.prev_log_id, last.or(request.prev_log_id))
}

/// The outcome of one request, and whether the stream may go on after it.
async fn outcome(
    sent: Result<(PendingAnswer, Room), RpcError>,
    (prev, last): (Option<RaftLogId>, Option<RaftLogId>),
    limit: Duration,
) -> (Appended, bool) {
    if mutant::on(Mutant::AckBeforeQuorum) && sent.is_ok() {
        return (Ok(Ok(last)), true);
    }
    let answered = async {
        let (pending, _room) = sent?;
        let (_node, body) = pending.answer(limit).await.map_err(failed)?;
        codec::decode_append_response(body).map_err(failed)
    };
    match answered.await {
        Err(error) => (Err(error), false),
        // A conflict with nothing before the entries cannot be; a peer that claims it is broken.
        Ok(AppendEntriesResponse::Conflict) if prev.is_none() => (
            Err(failed(codec::Malformed("conflict at the start of the log"))),
            false,
        ),
        Ok(AppendEntriesResponse::PartialSuccess(upto)) => (Ok(Ok(upto)), upto == last),
        Ok(response) => {
            let result = response.into_stream_result(prev, last);
            let good = result.is_ok();
            if !good {
                hit!("consensus.append.refused");
            }
            (Ok(result), good)
        }
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        let (sent, _room) = self.send_append(request).await?;
        let limit = option.hard_ttl().max(Duration::from_millis(500));
        let (_node, body) = sent.answer(limit).await.map_err(failed)?;
        codec::decode_append_response(body).map_err(failed)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> future::BoxFuture<'s, Result<BoxStream<'s, Appended>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let limit = if self.class == Class::Control {
            option.hard_ttl().max(Duration::from_millis(500))
        } else {
            APPEND_TIMEOUT
        };
        let this: &'s Self = self;
        let sent = Arc::new(UnderWay::default());
        let answered = Arc::clone(&sent);
        // `then` takes one request at a time, so they are enqueued in their order.
        let answers = input
            .then(move |request| {
                let first = request.entries.first().map(|entry| entry.log_id.index);
                let range = range_of(&request);
                sent.sent(range.1);
                async move { (this.send_append(request).await, first, range) }
            })
            .map(move |(sent, first, range)| async move {
                let outcome = outcome(sent, range, limit);
                let known = this.pace.withheld.unless(first, outcome).await;
                known.unwrap_or_else(|| (Err(failed(Withheld)), false))
            })
            .buffered(WINDOW)
            .scan(true, move |going, (result, good)| {
                let matching = result.as_ref().ok().and_then(|told| told.as_ref().ok());
                let own = answered.answered(matching);
                let item = going.then_some(own.then_some(result));
                *going = *going && good;
                future::ready(item)
            })
            .filter_map(future::ready);
        let answers: BoxStream<'s, Appended> = Box::pin(answers);
        Box::pin(future::ready(Ok(answers)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let mut head = self.address();
        codec::encode_vote_request(&mut head, &request);
        let asked = self
            .ask(Class::Control, kind::VOTE, head, VOTE_TIMEOUT)
            .await;
        codec::decode_vote_response(asked.map_err(failed)?).map_err(failed)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let mut head = self.address();
        codec::encode_vote_request(&mut head, &request);
        let asked = self
            .ask(Class::Control, kind::PRE_VOTE, head, VOTE_TIMEOUT)
            .await;
        codec::decode_vote_response(asked.map_err(failed)?).map_err(failed)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let asked = self.send_snapshot(&vote, snapshot.snapshot);
        let body = tokio::select! {
            biased;
            asked = asked => asked.map_err(|error| StreamingError::Unreachable(unreachable(&error)))?,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let mut body = body;
        let vote = codec::get_vote(&mut body)
            .map_err(|error| StreamingError::Unreachable(unreachable(&error)))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let mut head = self.address();
        codec::put_vote(&mut head, request.from_leader());
        head.put_u64(*request.to_node_id());
        codec::put_log_id(&mut head, request.last_log_id());
        let asked = self
            .ask(Class::Control, kind::TRANSFER, head, VOTE_TIMEOUT)
            .await;
        let _empty = asked.map_err(failed)?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        // A peer that is back should be served at once: reconnecting is cheap.
        let steps = [20, 50, 100, 200].map(Duration::from_millis);
        Some(Backoff::new(
            steps
                .into_iter()
                .chain(std::iter::repeat(Duration::from_millis(200))),
        ))
    }
}
