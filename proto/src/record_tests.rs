use proptest::prelude::*;

use super::*;

type Plain = (
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(String, Option<Vec<u8>>)>,
);

fn plain() -> impl Strategy<Value = Plain> {
    let field = || prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
    let headers = prop::collection::vec((".{0,8}", field()), 0..4);
    (any::<i64>(), field(), field(), headers)
}

fn headers_of(headers: &[(String, Option<Vec<u8>>)]) -> Vec<Header> {
    let one = |(key, value): &(String, Option<Vec<u8>>)| Header {
        key: key.clone(),
        value: value.clone().map(Bytes::from),
    };
    headers.iter().map(one).collect()
}

fn build(codec: Compression, records: &[Plain], stamp: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for (index, (time, key, value, headers)) in records.iter().enumerate() {
        let headers = headers_of(headers);
        let sizes = (
            key.as_ref().map_or(0, Vec::len),
            value.as_ref().map_or(0, Vec::len),
        );
        let room = BatchBuilder::record_bytes_max(sizes.0, sizes.1, &headers);
        let before = builder.encoded_bytes();
        let added = builder.push(*time, key.as_deref(), value.as_deref(), &headers);
        assert_eq!(added, Some(u32::try_from(index).unwrap()));
        assert!(builder.encoded_bytes() - before <= room);
    }
    builder.finish(stamp).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_built_is_read(records in prop::collection::vec(plain(), 1..40), codec in 0..5_usize) {
        let stamp = ProducerStamp { id: ProducerId(9), epoch: 2, base_sequence: 40 };
        let bytes = build(Compression::ALL[codec], &records, Some(stamp));
        let batch = RecordBatch::from_producer(bytes).unwrap();
        prop_assert_eq!(batch.header.producer_id, stamp.id);
        prop_assert_eq!(batch.header.base_sequence, stamp.base_sequence);
        prop_assert_eq!(batch.header.base_timestamp, records[0].0);
        prop_assert_eq!(Some(batch.header.max_timestamp), records.iter().map(|r| r.0).max());
        let read = decode_records(&batch).unwrap();
        prop_assert_eq!(read.len(), records.len());
        for (index, (got, want)) in read.iter().zip(&records).enumerate() {
            prop_assert_eq!(got.offset, Offset(i64::try_from(index).unwrap()));
            prop_assert_eq!(got.timestamp_ms, want.0);
            prop_assert_eq!(got.key.as_deref(), want.1.as_deref());
            prop_assert_eq!(got.value.as_deref(), want.2.as_deref());
            prop_assert_eq!(&got.headers, &headers_of(&want.3));
        }
    }

    #[test]
    fn noise_behind_a_valid_header_never_panics(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        attributes in 0..16_u16,
        count in 1..limits::MAX_BATCH_RECORDS,
    ) {
        let mut batch = RecordBatch::parse(build(Compression::None, &[(0, None, None, vec![])], None)).unwrap();
        batch.header.attributes = attributes;
        batch.header.record_count = count;
        batch.body = noise.into();
        if let Ok(read) = decode_records(&batch) {
            prop_assert_eq!(read.len(), count as usize);
        }
    }

    #[test]
    fn varints_have_the_length_they_claim(value in any::<i64>()) {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        prop_assert_eq!(out.len(), varint_bytes(value));
        let mut bytes = Bytes::from(out);
        prop_assert_eq!(take_varint(&mut bytes), Some(value));
        prop_assert!(bytes.is_empty());
    }
}

/// Two records, worked out by hand from the protocol guide; the CRC by an independent program.
#[test]
fn golden_bytes() {
    let mut builder = BatchBuilder::new(Compression::None);
    let header = Header {
        key: "h".to_owned(),
        value: Some(Bytes::from_static(b"x")),
    };
    let _ = builder
        .push(1_000, Some(b"k"), Some(b"value"), &[header])
        .unwrap();
    let _ = builder.push(1_001, None, Some(b""), &[]).unwrap();
    let stamp = ProducerStamp {
        id: ProducerId(7),
        epoch: 1,
        base_sequence: 5,
    };
    let bytes = builder.finish(Some(stamp)).unwrap();
    let golden = include_bytes!("../testdata/batch_v2.bin");
    assert_eq!(&bytes[..], &golden[..]);
}

#[test]
fn compression_that_does_not_help_is_left_out() {
    let bytes = build(Compression::Gzip, &[(0, None, Some(vec![1]), vec![])], None);
    let batch = RecordBatch::parse(bytes).unwrap();
    assert_eq!(batch.header.attributes, 0);
}

#[test]
fn values_are_slices_of_the_batch() {
    let bytes = build(
        Compression::None,
        &[(0, None, Some(vec![1; 100]), vec![])],
        None,
    );
    let range = bytes.as_ptr_range();
    let records = decode_records(&RecordBatch::parse(bytes).unwrap()).unwrap();
    assert!(range.contains(&records[0].value.as_ref().unwrap().as_ptr()));
}

#[test]
fn a_bomb_is_refused() {
    let mut packed = Vec::new();
    let zeros = vec![0; limits::MAX_DECOMPRESSED_BYTES + 1];
    Compression::Zstd.compress(&zeros, &mut packed).unwrap();
    let mut batch =
        RecordBatch::parse(build(Compression::None, &[(0, None, None, vec![])], None)).unwrap();
    batch.header.attributes = Compression::Zstd.attributes();
    batch.body = packed.into();
    let refused = decode_records(&batch);
    let too_large = matches!(
        refused,
        Err(RecordError::Compression(CompressionError::TooLarge { .. }))
    );
    assert!(too_large, "{refused:?}");
}

#[test]
fn limits_hold() {
    let mut builder = BatchBuilder::new(Compression::None);
    let large = vec![0; limits::MAX_BATCH_BYTES - HEADER_BYTES - 32];
    assert_eq!(builder.push(0, None, Some(&large), &[]), Some(0));
    let before = builder.encoded_bytes();
    assert_eq!(builder.push(0, None, Some(&[0; 100]), &[]), None);
    assert_eq!(
        (builder.encoded_bytes(), builder.record_count()),
        (before, 1)
    );
    assert!(RecordBatch::from_producer(builder.finish(None).unwrap()).is_ok());
    let empty = BatchBuilder::new(Compression::None).finish(None);
    assert!(matches!(empty, Err(RecordError::Empty)));
}

#[test]
fn malformed_records_are_named() {
    let good = build(
        Compression::None,
        &[
            (0, Some(vec![1]), Some(vec![2]), vec![]),
            (0, None, None, vec![]),
        ],
        None,
    );
    let good = RecordBatch::parse(good).unwrap();
    let mut longer = good.clone();
    longer.body = [&good.body[..], b"x"].concat().into();
    assert!(matches!(
        decode_records(&longer),
        Err(RecordError::TrailingBytes(1))
    ));
    let mut shorter = good.clone();
    shorter.body = good.body.slice(..good.body.len() - 1);
    let refused = decode_records(&shorter);
    assert!(matches!(
        refused,
        Err(RecordError::Malformed {
            index: 1,
            what: "length"
        })
    ));
    let mut repeated = good;
    let mut body = repeated.body.to_vec();
    // The second record's offset delta, 1 in zigzag, becomes 0.
    let at = body.len() - 4;
    assert_eq!(std::mem::take(&mut body[at]), 2);
    repeated.body = body.into();
    let refused = decode_records(&repeated);
    assert!(matches!(
        refused,
        Err(RecordError::Malformed {
            index: 1,
            what: "offset delta"
        })
    ));
}
