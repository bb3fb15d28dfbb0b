//! The answering side: Raft messages from other nodes to the groups of this one.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use openraft::{alias::SnapshotMetaOf, alias::SnapshotOf, raft::TransferLeaderRequest};
use seriatim_proto::ids::{GroupId, NodeId, Offset, ReplicaId};
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
    net::BoxFuture,
};
use seriatim_storage::LogId;

use crate::{
    AppliedState, Group, Snapshot,
    codec::{self, Malformed},
    lane::Handler,
    parts::Parts,
    raft::{RaftVote, StoredMembership, Types, from_raft, to_raft},
    registry::Groups,
};

/// Message kinds.
pub(crate) mod kind {
    pub(crate) const APPEND: u16 = 1;
    pub(crate) const VOTE: u16 = 2;
    pub(crate) const PRE_VOTE: u16 = 3;
    pub(crate) const SNAPSHOT: u16 = 4;
    pub(crate) const TRANSFER: u16 = 5;
    pub(crate) const SNAPSHOT_PART: u16 = 6;
    pub(crate) const SNAPSHOT_INSTALL: u16 = 7;
}

/// Hands messages to the groups.
pub(crate) struct Receiver {
    groups: Arc<Groups>,
    /// Snapshots that come in parts.
    parts: Parts,
}

impl Receiver {
    pub(crate) fn new(groups: Arc<Groups>) -> Self {
        Self {
            groups,
            parts: Parts::default(),
        }
    }
}

impl Handler for Receiver {
    fn handle(
        self: Arc<Self>,
        _from: NodeId,
        kind: u16,
        mut body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            let text = |error: Malformed| error.to_string();
            let group = GroupId(codec::get_u64(&mut body).map_err(text)?);
            let replica = ReplicaId(codec::get_u64(&mut body).map_err(text)?);
            let Some(group) = self.groups.get(group) else {
                return Err(format!("group {group} is not open on this node"));
            };
            if group.key().replica != replica {
                hit!("consensus.receive.other-replica");
                return Err(format!("replica {replica} is not on this node any more"));
            }
            answer(&group, &self.parts, kind, body).await
        })
    }
}

async fn answer(group: &Group, parts: &Parts, kind: u16, mut body: Bytes) -> Result<Bytes, String> {
    let text = |error: Malformed| error.to_string();
    let raft = group.raft();
    match kind {
        kind::APPEND => {
            let request = codec::decode_append(body).map_err(text)?;
            let from_leader = request.vote.committed;
            let response = raft
                .append_entries(request)
                .await
                .map_err(|e| e.to_string())?;
            let accepted = !matches!(
                response,
                openraft::raft::AppendEntriesResponse::HigherVote(_)
            );
            if from_leader && accepted {
                group.heard_from_leader();
            }
            Ok(codec::encode_append_response(&response))
        }
        kind::VOTE => vote(group, body).await,
        kind::PRE_VOTE => {
            let request = codec::decode_vote_request(body).map_err(text)?;
            let response = raft.pre_vote(request).await.map_err(|e| e.to_string())?;
            Ok(codec::encode_vote_response(&response))
        }
        kind::SNAPSHOT => {
            let (vote, snapshot) = decode_snapshot(body).map_err(text)?;
            install(group, vote, snapshot).await
        }
        kind::SNAPSHOT_PART => {
            parts.add(group.key().group, body)?;
            Ok(Bytes::new())
        }
        kind::SNAPSHOT_INSTALL => {
            let (vote, mut snapshot) = decode_snapshot(body).map_err(text)?;
            let ticket = std::mem::take(&mut snapshot.snapshot.data);
            snapshot.snapshot.data = parts.take(group.key().group, ticket)?;
            install(group, vote, snapshot).await
        }
        kind::TRANSFER => {
            let vote = codec::get_vote(&mut body).map_err(text)?;
            let to = codec::get_u64(&mut body).map_err(text)?;
            let last = codec::get_log_id(&mut body).map_err(text)?;
            let request = TransferLeaderRequest::<Types>::new(vote, to, last);
            let handled = raft.handle_transfer_leader(request).await;
            match handled.map_err(|e| e.to_string())? {
                Ok(()) => Ok(Bytes::new()),
                Err(refused) => Err(refused.to_string()),
            }
        }
        _ => Err(format!("unknown Raft message kind {kind}")),
    }
}

async fn vote(group: &Group, body: Bytes) -> Result<Bytes, String> {
    let request = codec::decode_vote_request(body).map_err(|error| error.to_string())?;
    let asked = request.vote;
    let voted = group.raft().vote(request).await;
    let mut response = voted.map_err(|e| e.to_string())?;
    if mutant::on(Mutant::VoteForTwo) && response.vote.leader_id.term == asked.leader_id.term {
        (response.vote, response.vote_granted) = (asked, true);
    }
    if response.vote_granted {
        group.heard_from_leader();
    } else {
        hit!("consensus.vote.refused");
    }
    Ok(codec::encode_vote_response(&response))
}

async fn install(
    group: &Group,
    vote: RaftVote,
    snapshot: SnapshotOf<Types, Snapshot>,
) -> Result<Bytes, String> {
    group.heard_from_leader();
    let last = snapshot.meta.last_log_id.as_ref().map(from_raft);
    let installed = group.raft().install_full_snapshot(vote, snapshot).await;
    let response = installed.map_err(|e| e.to_string())?;
    // The leader takes the answer for a promise that everything up to there is on disk. Where the log has
    // it, nothing is installed and the engine answers at once, although the disk may not have it yet.
    let missing = |last: &LogId| group.log().boundary_id() < Some(*last);
    if let Some(last) = last.filter(missing)
        && response.vote == vote
    {
        hit!("consensus.snapshot.known");
        let flushed = group.log().flushed(last.index).await;
        flushed.map_err(|error| error.to_string())?;
    }
    let mut out = BytesMut::new();
    codec::put_vote(&mut out, &response.vote);
    Ok(out.freeze())
}

pub(crate) fn encode_snapshot(to: &mut BytesMut, vote: &RaftVote, snapshot: &Snapshot) {
    codec::put_vote(to, vote);
    codec::put_log_id(to, snapshot.state.log_id.map(to_raft).as_ref());
    to.put_i64(snapshot.next_offset.0);
    let membership = snapshot.state.membership.clone().unwrap_or_default();
    to.put_u32(u32::try_from(membership.len()).unwrap_or(u32::MAX));
    to.extend_from_slice(&membership);
    to.extend_from_slice(&snapshot.data);
}

fn decode_snapshot(mut body: Bytes) -> Result<(RaftVote, SnapshotOf<Types, Snapshot>), Malformed> {
    let short = Malformed("snapshot cut short");
    let vote = codec::get_vote(&mut body)?;
    let log_id = codec::get_log_id(&mut body)?;
    let next_offset = Offset(codec::get_u64(&mut body)?.cast_signed());
    let length = {
        use bytes::Buf as _;
        body.try_get_u32().map_err(|_short| short)? as usize
    };
    if length > body.len() {
        return Err(short);
    }
    let membership = body.split_to(length);
    let stored = if membership.is_empty() {
        StoredMembership::default()
    } else {
        codec::decode_stored(membership.clone())?
    };
    let snapshot = Snapshot {
        state: AppliedState {
            log_id: log_id.as_ref().map(from_raft),
            membership: (!membership.is_empty()).then_some(membership),
        },
        next_offset,
        data: body,
    };
    let meta = SnapshotMetaOf::<Types> {
        last_log_id: log_id,
        last_membership: stored,
    };
    Ok((vote, SnapshotOf::<Types, Snapshot> { meta, snapshot }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use seriatim_runtime::clock;

    use super::*;
    use crate::{
        StateMachine as _,
        group_tests::{Cluster, eventually, propose},
    };

    /// Found by simulator seed 1229: a follower with a full disk said that it had what it did not have after a
    /// restart, and the leader sent it the same snapshot for ever.
    #[tokio::test]
    async fn a_snapshot_that_is_known_is_acknowledged_once_its_entries_are_durable() {
        let cluster = Cluster::start(1).await;
        let (leader, term) = cluster.leader(0, &[0, 1, 2]).await;
        let follower = (leader + 1) % 3;
        let group = cluster.group(follower, 0).clone();
        let disk = cluster.nodes[follower].disk.clone();
        disk.set_full(true);
        let written = propose(cluster.group(leader, 0), term, 0..10, 100).await;
        let last = *written.keys().next_back().unwrap();
        eventually("the follower applies them", || {
            group.status().applied >= Some(last)
        })
        .await;
        assert!(group.log().flushed_index() < Some(last.index));

        let snapshot = cluster.machine(leader, 0).snapshot().await.unwrap();
        let vote = RaftVote::new_committed(term, cluster.group(leader, 0).key().replica.0);
        let mut bytes = BytesMut::new();
        encode_snapshot(&mut bytes, &vote, &snapshot);
        let (vote, snapshot) = decode_snapshot(bytes.freeze()).unwrap();
        let mut answer = Box::pin(install(&group, vote, snapshot));
        let early = clock::timeout(Duration::from_millis(100), &mut answer).await;
        assert!(early.is_err(), "{early:?}");
        disk.set_full(false);
        let _vote = answer.await.unwrap();
        assert!(group.log().flushed_index() >= Some(last.index));
        cluster.stop().await;
    }
}
