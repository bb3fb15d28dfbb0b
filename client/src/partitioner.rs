//! Which partition a record goes to: the same one that Kafka's default partitioner chooses.

/// The partition of a key, of `partitions` partitions.
///
/// Kafka hashes with murmur2 and makes the hash positive by clearing its sign bit.
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    let positive = murmur2(key).cast_signed() & i32::MAX;
    positive.checked_rem(partitions).unwrap_or(0)
}

/// `MurmurHash2` by Austin Appleby (public domain), 32 bits, with Kafka's seed.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Lengths beyond 32 bits wrap, as an `int` does.
    let length = u32::try_from(data.len() & 0xffff_ffff).unwrap_or_default();
    let mut hash = SEED ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let rest = tail
            .iter()
            .rev()
            .fold(0, |rest, &byte| rest << 8 | u32::from(byte));
        hash = (hash ^ rest).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that Kafka's own unit test (`UtilsTest.testMurmur2`) lists.
    #[test]
    fn hashes_as_kafka_does() {
        let cases: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
            (&[], 275_646_681),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key).cast_signed(), hash, "{key:?}");
        }
    }

    #[test]
    fn partitions_are_in_range_and_negative_hashes_lose_their_sign() {
        assert!(murmur2(b"21").cast_signed() < 0);
        let expected = (-973_932_308_i32 & i32::MAX) % 6;
        assert_eq!(partition_for_key(b"21", 6), expected);
        for n in 0..1_000_u32 {
            assert!((0..7).contains(&partition_for_key(&n.to_le_bytes(), 7)));
        }
    }
}
