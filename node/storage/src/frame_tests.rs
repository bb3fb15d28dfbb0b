//! The frame's bytes: fixed by golden files, kept through round trips, guarded against every flip.

use proptest::prelude::*;
use seriatim_proto::ids::ProducerId;

use super::*;
use crate::golden;

fn batch(records: u32, body: &[u8]) -> RecordBatch {
    let length = batch::HEADER_BYTES - batch::LENGTH_PREFIX_BYTES + body.len();
    let mut header = BatchHeader {
        base_offset: Offset(0),
        length: u32::try_from(length).unwrap(),
        leader_epoch: LeaderEpoch(0),
        crc: 0,
        attributes: 0,
        last_offset_delta: records - 1,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_123,
        producer_id: ProducerId(77),
        producer_epoch: 3,
        base_sequence: 12,
        record_count: records,
    };
    header.crc = header.compute_crc(body);
    RecordBatch {
        header,
        body: Bytes::copy_from_slice(body),
    }
}

fn bytes_of(frame: &Frame) -> Bytes {
    Bytes::from(frame.parts().concat())
}

const ID: LogId = LogId {
    term: 0x0102,
    index: 0x0304_0506,
};

#[test]
fn golden_frames() {
    let frame = Frame::batch(ID, Offset(0x1122), &batch(3, b"records of a batch"));
    golden::check("frame_batch.bin", &bytes_of(&frame));
    let command = Bytes::from_static(b"a command");
    let frame = Frame::other(FrameKind::Command, ID, Offset(0x1122), command);
    golden::check("frame_command.bin", &bytes_of(&frame));
    let mark = crate::segment::mark(ID, Offset(0x1122), 0x0a0b);
    golden::check("frame_mark.bin", &bytes_of(&mark));
}

#[test]
fn a_batch_is_stamped_and_not_copied() {
    let batch = batch(3, b"records");
    let frame = Frame::batch(ID, Offset(40), &batch);
    assert_eq!(frame.body().as_ptr(), batch.body.as_ptr());
    let header = frame.batch_header().unwrap();
    assert_eq!(header.base_offset, Offset(40));
    assert_eq!(header.leader_epoch, LeaderEpoch(0x0102));
    assert_eq!((frame.next_offset(), frame.records()), (Offset(43), 3));
    let (parsed, rest) = Frame::parse(bytes_of(&frame)).unwrap();
    assert!(rest.is_empty());
    assert_eq!(parsed, frame);
    let stored = Bytes::from(parsed.batch_parts().unwrap().concat());
    assert_eq!(RecordBatch::parse(stored).unwrap().header, header);
}

#[test]
fn every_flipped_bit_of_a_frame_is_found() {
    let frames = [
        Frame::batch(ID, Offset(9), &batch(2, b"some records")),
        Frame::other(FrameKind::Blank, ID, Offset(9), Bytes::new()),
        Frame::other(FrameKind::Membership, ID, Offset(9), "members".into()),
    ];
    for frame in frames {
        let good = bytes_of(&frame).to_vec();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let parsed = Frame::parse(Bytes::from(bad));
                assert!(parsed.is_err(), "{:?} at {at}", frame.kind());
            }
        }
        for len in 0..good.len() {
            let error = Frame::parse(Bytes::copy_from_slice(&good[..len])).unwrap_err();
            assert!(matches!(error, FrameError::Short { .. }), "{error}");
        }
    }
}

#[test]
fn lengths_out_of_range_are_refused_before_anything_is_read() {
    for (kind, lengths) in [
        (FrameKind::Batch, [60, u32::MAX]),
        (
            FrameKind::Command,
            [u32::try_from(limits::MAX_BATCH_BYTES).unwrap() + 1, 1 << 31],
        ),
    ] {
        for length in lengths {
            let header = FrameHeader {
                kind,
                length,
                crc: 0,
                log_id: ID,
                base_offset: Offset(0),
            };
            let bytes = Bytes::copy_from_slice(&header.encode());
            assert_eq!(Frame::parse(bytes), Err(FrameError::Length(length)));
        }
    }
}

#[test]
fn unknown_versions_and_kinds_are_named() {
    let frame = Frame::other(FrameKind::Blank, ID, Offset(0), Bytes::new());
    for (at, value, expected) in [
        (0, b'X', FrameError::Magic),
        (4, 2, FrameError::Version(2)),
        (5, 0, FrameError::Kind(0)),
        (5, 99, FrameError::Kind(99)),
    ] {
        let mut bytes = bytes_of(&frame).to_vec();
        bytes[at] = value;
        assert_eq!(Frame::parse(Bytes::from(bytes)), Err(expected));
    }
}

#[test]
fn a_batch_that_contradicts_its_frame_is_refused() {
    let frame = Frame::batch(ID, Offset(40), &batch(3, b"records"));
    let mut header = *frame.header();
    header.base_offset = Offset(41);
    let rest = bytes_of(&frame).slice(HEADER_BYTES..);
    header.crc = crc_of(&header.encode(), &rest[..batch::HEADER_BYTES]);
    let bytes = [&header.encode()[..], &rest].concat();
    assert_eq!(Frame::parse(Bytes::from(bytes)), Err(FrameError::Mismatch));
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let kinds = prop_oneof![
        Just(FrameKind::Batch),
        Just(FrameKind::Blank),
        Just(FrameKind::Membership),
        Just(FrameKind::Command),
        Just(FrameKind::LogStart),
        Just(FrameKind::Mark),
        Just(FrameKind::Pad),
    ];
    let body = proptest::collection::vec(any::<u8>(), 0..300);
    let place = (0..u64::from(u32::MAX) / 4, any::<u64>(), 0..i64::MAX / 2);
    (kinds, place, 1..1000u32, body).prop_map(|(kind, (term, index, offset), records, body)| {
        let id = LogId { term, index };
        match kind {
            FrameKind::Batch => Frame::batch(id, Offset(offset), &batch(records, &body)),
            kind => Frame::other(kind, id, Offset(offset), body.into()),
        }
    })
}

proptest! {
    #[test]
    fn frames_round_trip_one_after_the_other(
        frames in proptest::collection::vec(any_frame(), 1..5),
    ) {
        let mut bytes = Bytes::from(frames.iter().flat_map(Frame::parts).collect::<Vec<_>>().concat());
        for frame in &frames {
            let (parsed, rest) = Frame::parse(bytes).unwrap();
            prop_assert_eq!(&parsed, frame);
            bytes = rest;
        }
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn arbitrary_bytes_are_no_frame(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Frame::parse(Bytes::from(bytes)).is_err());
    }

    #[test]
    fn a_changed_frame_is_refused(frame in any_frame(), at in any::<prop::sample::Index>(), to: u8) {
        let mut bytes = bytes_of(&frame).to_vec();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        prop_assert!(Frame::parse(Bytes::from(bytes)).is_err());
    }
}
