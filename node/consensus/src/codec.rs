//! Raft messages and memberships as bytes.
//!
//! Integers are big-endian. An optional log id is a flag byte and, if it is 1, term and index. A
//! vote is term, replica and a committed flag. Entries travel as frames, back to back, behind the
//! fixed part of a message, so that a batch's records are never copied.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::{
    EntryPayload,
    raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse},
};
use seriatim_proto::ids::{NodeId, Offset};
use seriatim_storage::{Frame, FrameHead, FrameKind, LogId};

use crate::raft::{
    Data, Membership, Payload, Peer, RaftEntry, RaftLogId, RaftVote, StoredMembership, Types,
    from_raft, to_raft,
};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed Raft message: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

type Result<T> = std::result::Result<T, Malformed>;

const SHORT: Malformed = Malformed("cut short");

pub(crate) fn get_u8(buf: &mut Bytes) -> Result<u8> {
    buf.try_get_u8().map_err(|_short| SHORT)
}

pub(crate) fn get_u64(buf: &mut Bytes) -> Result<u64> {
    buf.try_get_u64().map_err(|_short| SHORT)
}

fn get_u32(buf: &mut Bytes) -> Result<u32> {
    buf.try_get_u32().map_err(|_short| SHORT)
}

fn get_flag(buf: &mut Bytes) -> Result<bool> {
    match get_u8(buf)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("flag")),
    }
}

pub(crate) fn put_log_id(buf: &mut BytesMut, id: Option<&RaftLogId>) {
    match id {
        None => buf.put_u8(0),
        Some(id) => {
            buf.put_u8(1);
            buf.put_u64(id.leader_id.term);
            buf.put_u64(id.index);
        }
    }
}

pub(crate) fn get_log_id(buf: &mut Bytes) -> Result<Option<RaftLogId>> {
    if !get_flag(buf)? {
        return Ok(None);
    }
    let term = get_u64(buf)?;
    let index = get_u64(buf)?;
    Ok(Some(to_raft(LogId { term, index })))
}

pub(crate) fn put_vote(buf: &mut BytesMut, vote: &RaftVote) {
    buf.put_u64(vote.leader_id.term);
    buf.put_u64(vote.leader_id.voted_for);
    buf.put_u8(u8::from(vote.committed));
}

pub(crate) fn get_vote(buf: &mut Bytes) -> Result<RaftVote> {
    let term = get_u64(buf)?;
    let node = get_u64(buf)?;
    Ok(if get_flag(buf)? {
        RaftVote::new_committed(term, node)
    } else {
        RaftVote::new(term, node)
    })
}

/// The membership alone: joint configurations, then nodes.
pub(crate) fn encode_membership(membership: &Membership) -> Bytes {
    let mut buf = BytesMut::new();
    put_membership(&mut buf, membership);
    buf.freeze()
}

fn put_membership(buf: &mut BytesMut, membership: &Membership) {
    let put_count =
        |buf: &mut BytesMut, n: usize| buf.put_u32(u32::try_from(n).unwrap_or(u32::MAX));
    buf.put_u8(1);
    put_count(buf, membership.get_joint_config().len());
    for config in membership.get_joint_config() {
        put_count(buf, config.len());
        for replica in config {
            buf.put_u64(*replica);
        }
    }
    put_count(buf, membership.nodes().count());
    for (replica, peer) in membership.nodes() {
        buf.put_u64(*replica);
        buf.put_u64(peer.node.0);
    }
}

pub(crate) fn decode_membership(buf: &mut Bytes) -> Result<Membership> {
    if get_u8(buf)? != 1 {
        return Err(Malformed("membership version"));
    }
    let mut configs = Vec::new();
    for _ in 0..get_u32(buf)? {
        let mut config = BTreeSet::new();
        for _ in 0..get_u32(buf)? {
            let _new = config.insert(get_u64(buf)?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..get_u32(buf)? {
        let replica = get_u64(buf)?;
        let node = NodeId(get_u64(buf)?);
        let _old = nodes.insert(replica, Peer { node });
    }
    Membership::new(configs, nodes).map_err(|_invalid| Malformed("membership"))
}

/// A membership and the entry that set it, as state machines keep it.
pub(crate) fn encode_stored(stored: &StoredMembership) -> Bytes {
    let mut buf = BytesMut::new();
    put_log_id(&mut buf, stored.log_id().as_ref());
    put_membership(&mut buf, stored.membership());
    buf.freeze()
}

pub(crate) fn decode_stored(mut bytes: Bytes) -> Result<StoredMembership> {
    let id = get_log_id(&mut bytes)?;
    Ok(StoredMembership::new(id, decode_membership(&mut bytes)?))
}

/// An entry as a frame; `next_offset` goes into frames without records.
pub(crate) fn to_frame(entry: RaftEntry, next_offset: Offset) -> Option<Frame> {
    let id = from_raft(&entry.log_id);
    let other = |kind, payload| Frame::other(kind, id, next_offset, payload);
    Some(match entry.payload {
        EntryPayload::Blank => other(FrameKind::Blank, Bytes::new()),
        EntryPayload::Membership(m) => other(FrameKind::Membership, encode_membership(&m)),
        EntryPayload::Normal(Data::Command(bytes)) => other(FrameKind::Command, bytes),
        EntryPayload::Normal(Data::Batch { batch, .. }) => Frame::batch(id, next_offset, &batch),
        EntryPayload::Normal(Data::Framed(frame)) => frame,
        EntryPayload::Normal(Data::Head(_)) => return None,
    })
}

/// A frame as an entry.
pub(crate) fn to_entry(frame: &Frame) -> Result<RaftEntry> {
    let payload: Payload = match frame.kind() {
        FrameKind::Batch => EntryPayload::Normal(Data::Framed(frame.clone())),
        FrameKind::Blank => EntryPayload::Blank,
        FrameKind::Membership => {
            EntryPayload::Membership(decode_membership(&mut frame.body().clone())?)
        }
        FrameKind::Command => EntryPayload::Normal(Data::Command(frame.body().clone())),
        FrameKind::LogStart | FrameKind::Mark | FrameKind::Pad => {
            return Err(Malformed("frame kind"));
        }
    };
    Ok(RaftEntry {
        log_id: to_raft(frame.log_id()),
        payload,
    })
}

/// An entry to be applied.
pub(crate) fn head_entry(head: FrameHead) -> Result<RaftEntry> {
    let log_id = to_raft(head.header.log_id);
    let mut body: Bytes = head.payload.clone();
    let payload: Payload = match head.header.kind {
        FrameKind::Batch | FrameKind::Command => EntryPayload::Normal(Data::Head(Box::new(head))),
        FrameKind::Membership => EntryPayload::Membership(decode_membership(&mut body)?),
        FrameKind::Blank | FrameKind::LogStart | FrameKind::Mark | FrameKind::Pad => {
            EntryPayload::Blank
        }
    };
    Ok(RaftEntry { log_id, payload })
}

pub(crate) fn encode_append(
    to: &mut BytesMut,
    request: AppendEntriesRequest<Types>,
) -> Result<Vec<Bytes>> {
    put_vote(to, &request.vote);
    put_log_id(to, request.prev_log_id.as_ref());
    put_log_id(to, request.leader_commit.as_ref());
    let mut parts = Vec::with_capacity(1 + 2 * request.entries.len());
    parts.push(to.split().freeze());
    for entry in request.entries {
        // A frame without records gets its base offset from the follower's own log.
        let frame = to_frame(entry, Offset(0)).ok_or(Malformed("entry without records"))?;
        parts.extend(frame.parts());
    }
    Ok(parts)
}

pub(crate) fn decode_append(mut bytes: Bytes) -> Result<AppendEntriesRequest<Types>> {
    let vote = get_vote(&mut bytes)?;
    let prev_log_id = get_log_id(&mut bytes)?;
    let leader_commit = get_log_id(&mut bytes)?;
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (frame, rest) = Frame::parse(bytes).map_err(|_bad| Malformed("frame"))?;
        bytes = rest;
        entries.push(to_entry(&frame)?);
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

pub(crate) fn encode_append_response(response: &AppendEntriesResponse<Types>) -> Bytes {
    let mut buf = BytesMut::with_capacity(32);
    match response {
        AppendEntriesResponse::Success => buf.put_u8(0),
        AppendEntriesResponse::PartialSuccess(id) => {
            buf.put_u8(1);
            put_log_id(&mut buf, id.as_ref());
        }
        AppendEntriesResponse::Conflict => buf.put_u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            buf.put_u8(3);
            put_vote(&mut buf, vote);
        }
    }
    buf.freeze()
}

pub(crate) fn decode_append_response(mut bytes: Bytes) -> Result<AppendEntriesResponse<Types>> {
    Ok(match get_u8(&mut bytes)? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(get_log_id(&mut bytes)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(get_vote(&mut bytes)?),
        _ => return Err(Malformed("append response")),
    })
}

pub(crate) fn encode_vote_request(to: &mut BytesMut, request: &VoteRequest<Types>) {
    put_vote(to, &request.vote);
    put_log_id(to, request.last_log_id.as_ref());
    to.put_u8(u8::from(request.leadership_transfer));
}

pub(crate) fn decode_vote_request(mut bytes: Bytes) -> Result<VoteRequest<Types>> {
    let vote = get_vote(&mut bytes)?;
    let last_log_id = get_log_id(&mut bytes)?;
    let mut request = VoteRequest::new(vote, last_log_id);
    request.leadership_transfer = get_flag(&mut bytes)?;
    Ok(request)
}

pub(crate) fn encode_vote_response(response: &VoteResponse<Types>) -> Bytes {
    let mut buf = BytesMut::with_capacity(48);
    put_vote(&mut buf, &response.vote);
    buf.put_u8(u8::from(response.vote_granted));
    put_log_id(&mut buf, response.last_log_id.as_ref());
    buf.freeze()
}

pub(crate) fn decode_vote_response(mut bytes: Bytes) -> Result<VoteResponse<Types>> {
    let vote = get_vote(&mut bytes)?;
    let granted = get_flag(&mut bytes)?;
    let last = get_log_id(&mut bytes)?;
    Ok(VoteResponse::new(vote, last, granted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> RaftLogId {
        to_raft(LogId { term, index })
    }

    #[test]
    fn memberships_round_trip() {
        let nodes = BTreeMap::from([
            (1, Peer { node: NodeId(1) }),
            (2, Peer { node: NodeId(2) }),
            (9, Peer { node: NodeId(3) }),
        ]);
        let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 9])];
        let membership = Membership::new(configs, nodes).unwrap();
        let stored = StoredMembership::new(Some(id(3, 4)), membership);
        assert_eq!(decode_stored(encode_stored(&stored)).unwrap(), stored);
    }

    #[test]
    fn append_requests_round_trip_and_refuse_every_cut() {
        let request = AppendEntriesRequest::<Types> {
            vote: RaftVote::new_committed(3, 1),
            prev_log_id: Some(id(2, 6)),
            entries: vec![
                RaftEntry {
                    log_id: id(3, 7),
                    payload: EntryPayload::Blank,
                },
                RaftEntry {
                    log_id: id(3, 8),
                    payload: EntryPayload::Normal(Data::Command(Bytes::from_static(b"do"))),
                },
            ],
            leader_commit: None,
        };
        let parts = encode_append(&mut BytesMut::new(), request).unwrap();
        let bytes = Bytes::from(parts.concat());
        let read = decode_append(bytes.clone()).unwrap();
        assert_eq!(read.prev_log_id, Some(id(2, 6)));
        let ids: Vec<_> = read.entries.iter().map(|entry| entry.log_id).collect();
        assert_eq!(ids, [id(3, 7), id(3, 8)]);
        let fixed = parts[0].len();
        let first = fixed + parts[1].len() + parts[2].len();
        for cut in (0..bytes.len()).filter(|cut| *cut != fixed && *cut != first) {
            assert!(decode_append(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod properties;
