//! Messages through bytes and back, and bytes that are no messages.

use openraft::{EntryPayload, raft::AppendEntriesRequest};
use proptest::prelude::*;

use super::*;

fn any_id() -> impl Strategy<Value = RaftLogId> {
    (0..1u64 << 30, any::<u64>()).prop_map(|(term, index)| to_raft(LogId { term, index }))
}

fn any_vote() -> impl Strategy<Value = RaftVote> {
    (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, node, committed)| {
        if committed {
            RaftVote::new_committed(term, node)
        } else {
            RaftVote::new(term, node)
        }
    })
}

fn any_membership() -> impl Strategy<Value = Membership> {
    let config = proptest::collection::btree_set(0..20u64, 1..5);
    let configs = proptest::collection::vec(config, 1..3);
    (configs, any::<u64>()).prop_map(|(configs, node)| {
        let nodes: BTreeMap<u64, Peer> = (0..20)
            .map(|replica| {
                let node = NodeId(node.wrapping_add(replica));
                (replica, Peer { node })
            })
            .collect();
        Membership::new(configs, nodes).unwrap()
    })
}

fn any_payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        Just(EntryPayload::Blank),
        any_membership().prop_map(EntryPayload::Membership),
        proptest::collection::vec(any::<u8>(), 0..100)
            .prop_map(|bytes| EntryPayload::Normal(Data::Command(bytes.into()))),
    ]
}

fn any_request() -> impl Strategy<Value = AppendEntriesRequest<Types>> {
    let entry = (any_id(), any_payload());
    (
        any_vote(),
        proptest::option::of(any_id()),
        proptest::option::of(any_id()),
        proptest::collection::vec(entry, 0..4),
    )
        .prop_map(
            |(vote, prev_log_id, leader_commit, entries)| AppendEntriesRequest {
                vote,
                prev_log_id,
                leader_commit,
                entries: entries
                    .into_iter()
                    .map(|(log_id, payload)| RaftEntry { log_id, payload })
                    .collect(),
            },
        )
}

fn encoded(request: AppendEntriesRequest<Types>) -> Vec<Bytes> {
    encode_append(&mut BytesMut::new(), request).unwrap()
}

fn bytes_of(entry: &RaftEntry) -> Bytes {
    let frame = to_frame(entry.clone(), Offset(0)).unwrap();
    Bytes::from(frame.parts().concat())
}

proptest! {
    #[test]
    fn append_requests_round_trip(request in any_request()) {
        let bytes = Bytes::from(encoded(request.clone()).concat());
        let read = decode_append(bytes).unwrap();
        prop_assert_eq!(read.vote, request.vote);
        prop_assert_eq!(read.prev_log_id, request.prev_log_id);
        prop_assert_eq!(read.leader_commit, request.leader_commit);
        let frames = |entries: &[RaftEntry]| entries.iter().map(bytes_of).collect::<Vec<_>>();
        prop_assert_eq!(frames(&read.entries), frames(&request.entries));
    }

    #[test]
    fn a_flipped_bit_in_an_entry_is_refused(
        request in any_request(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let parts = encoded(request);
        let fixed = parts[0].len();
        let mut bytes = parts.concat();
        prop_assume!(bytes.len() > fixed);
        let at = fixed + at.index(bytes.len() - fixed);
        bytes[at] ^= 1 << bit;
        prop_assert!(decode_append(bytes.into()).is_err());
    }

    #[test]
    fn votes_round_trip_and_refuse_every_cut(
        vote in any_vote(),
        last in proptest::option::of(any_id()),
        flag: bool,
    ) {
        let mut request = VoteRequest::<Types>::new(vote, last);
        request.leadership_transfer = flag;
        let mut bytes = BytesMut::new();
        encode_vote_request(&mut bytes, &request);
        let bytes = bytes.freeze();
        prop_assert_eq!(&decode_vote_request(bytes.clone()).unwrap(), &request);
        let response = VoteResponse::<Types>::new(vote, last, flag);
        let answer = encode_vote_response(&response);
        prop_assert_eq!(&decode_vote_response(answer.clone()).unwrap(), &response);
        for cut in 0..bytes.len() {
            prop_assert!(decode_vote_request(bytes.slice(..cut)).is_err());
        }
        for cut in 0..answer.len() {
            prop_assert!(decode_vote_response(answer.slice(..cut)).is_err());
        }
    }

    #[test]
    fn append_responses_round_trip_and_refuse_every_cut(
        id in proptest::option::of(any_id()),
        vote in any_vote(),
    ) {
        for response in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(id),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(vote),
        ] {
            let bytes = encode_append_response(&response);
            prop_assert_eq!(&decode_append_response(bytes.clone()).unwrap(), &response);
            for cut in 0..bytes.len() {
                prop_assert!(decode_append_response(bytes.slice(..cut)).is_err());
            }
        }
    }

    #[test]
    fn memberships_round_trip_and_refuse_every_cut(
        membership in any_membership(),
        id in proptest::option::of(any_id()),
    ) {
        let stored = StoredMembership::new(id, membership);
        let bytes = encode_stored(&stored);
        prop_assert_eq!(decode_stored(bytes.clone()).unwrap(), stored);
        for cut in 0..bytes.len() {
            prop_assert!(decode_stored(bytes.slice(..cut)).is_err());
        }
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _append = decode_append(bytes.clone()).is_ok();
        let _response = decode_append_response(bytes.clone()).is_ok();
        let _vote = decode_vote_request(bytes.clone()).is_ok();
        let _answer = decode_vote_response(bytes.clone()).is_ok();
        let _membership = decode_stored(bytes).is_ok();
    }
}

#[test]
fn counts_beyond_the_message_are_refused_at_once() {
    let mut bytes = BytesMut::new();
    bytes.put_u8(1);
    bytes.put_u32(u32::MAX);
    bytes.put_u32(u32::MAX);
    bytes.put_u64(1);
    assert!(decode_membership(&mut bytes.freeze()).is_err());
}
