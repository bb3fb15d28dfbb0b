//! Compression codecs of record batches, each in the framing that Kafka's clients write and read.
//!
//! | bits | codec  | framing |
//! |------|--------|---------|
//! | 0    | none   | |
//! | 1    | gzip   | RFC 1952, several members allowed |
//! | 2    | snappy | xerial: magic, two versions, then blocks of `length (i32) + raw snappy`; a raw block is read too |
//! | 3    | lz4    | LZ4 frame, independent blocks of 64 KiB |
//! | 4    | zstd   | zstd frames |
//!
//! Decompression is bounded by the caller: a small batch cannot become gigabytes.

use std::{
    fmt,
    io::{self, Read, Write},
    str::FromStr,
};

use bytes::Bytes;

/// How the records of a batch are compressed: bits 0 to 2 of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    /// As they are.
    #[default]
    None = 0,
    /// Gzip.
    Gzip = 1,
    /// Snappy in xerial framing.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

/// Why compressed records cannot be read, or records cannot be compressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The bytes are not what the codec demands.
    #[error("{codec} data cannot be read")]
    Corrupt {
        /// The codec.
        codec: Compression,
        /// What the codec says.
        #[source]
        source: io::Error,
    },
    /// More bytes came out than the limit.
    #[error("{codec} data grows beyond {limit} bytes")]
    TooLarge {
        /// The codec.
        codec: Compression,
        /// The limit.
        limit: usize,
    },
    /// The codec could not compress.
    #[error("{codec} cannot compress")]
    Encode {
        /// The codec.
        codec: Compression,
        /// What the codec says.
        #[source]
        source: io::Error,
    },
}

/// Not the name of a codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression '{0}'; known are none, gzip, snappy, lz4, zstd")]
pub struct UnknownCompression(pub String);

impl Compression {
    /// Every codec.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec that a batch's attributes name, `None` if they name none of ours.
    pub const fn from_attributes(attributes: u16) -> Option<Self> {
        match attributes & 7 {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Its bits in a batch's attributes.
    pub const fn attributes(self) -> u16 {
        self as u16
    }

    /// Its name, as the command line and Kafka's `compression.type` spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Appends the compressed form of `raw` to `out`.
    pub fn compress(self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
        let done = match self {
            Self::None => {
                out.extend_from_slice(raw);
                Ok(())
            }
            Self::Gzip => gzip(raw, out),
            Self::Snappy => xerial::compress(raw, out),
            Self::Lz4 => lz4(raw, out),
            Self::Zstd => zstd::stream::copy_encode(raw, out, ZSTD_LEVEL),
        };
        done.map_err(|source| CompressionError::Encode {
            codec: self,
            source,
        })
    }

    /// The original of `data`, refused beyond `limit` bytes. Without compression it is `data`
    /// itself, not a copy.
    pub fn decompress(self, data: &Bytes, limit: usize) -> Result<Bytes, CompressionError> {
        let too_large = CompressionError::TooLarge { codec: self, limit };
        let out = match self {
            Self::None if data.len() > limit => return Err(too_large),
            Self::None => return Ok(data.clone()),
            Self::Gzip => read_up_to(flate2::read::MultiGzDecoder::new(&data[..]), limit),
            Self::Snappy => xerial::decompress(data, limit),
            Self::Lz4 => read_up_to(lz4_flex::frame::FrameDecoder::new(&data[..]), limit),
            Self::Zstd => zstd::stream::read::Decoder::new(&data[..])
                .and_then(|decoder| read_up_to(decoder, limit)),
        };
        match out {
            Ok(Some(out)) => Ok(out.into()),
            Ok(None) => Err(too_large),
            Err(source) => Err(CompressionError::Corrupt {
                codec: self,
                source,
            }),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|codec| codec.name() == name);
        known.ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// Kafka's default level.
const ZSTD_LEVEL: i32 = 3;

fn gzip(raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
    encoder.write_all(raw)?;
    encoder.finish().map(|_| ())
}

fn lz4(raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    // Kafka's Java reader accepts independent blocks only.
    let frame = lz4_flex::frame::FrameInfo::new()
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
        .block_mode(lz4_flex::frame::BlockMode::Independent);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, out);
    encoder.write_all(raw)?;
    encoder.finish().map(|_| ()).map_err(io::Error::other)
}

/// Reads to the end; `None` if there is more than `limit`.
fn read_up_to(reader: impl Read, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = reader.take(bound).read_to_end(&mut out)?;
    Ok((read <= limit).then_some(out))
}

/// The framing of xerial's snappy-java, which Kafka inherited.
mod xerial {
    use std::io;

    use bytes::Buf as _;

    const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
    const VERSION: i32 = 1;
    const HEADER_BYTES: usize = MAGIC.len() + 8;
    /// What snappy-java puts into one block.
    const BLOCK_BYTES: usize = 32 * 1024;

    pub(super) fn compress(raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&VERSION.to_be_bytes());
        let mut encoder = snap::raw::Encoder::new();
        let mut block = vec![0; snap::raw::max_compress_len(BLOCK_BYTES.min(raw.len()))];
        for part in raw.chunks(BLOCK_BYTES) {
            let len = encoder.compress(part, &mut block)?;
            let length = i32::try_from(len).map_err(io::Error::other)?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(block.get(..len).unwrap_or_default());
        }
        Ok(())
    }

    pub(super) fn decompress(data: &[u8], limit: usize) -> io::Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        if !data.starts_with(&MAGIC) {
            // Some clients send one bare block.
            return Ok(block(data, limit, &mut out)?.then_some(out));
        }
        let mut rest = data
            .get(HEADER_BYTES..)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        while !rest.is_empty() {
            let length = rest.try_get_i32().map_err(io::Error::other)?;
            let length = usize::try_from(length).map_err(io::Error::other)?;
            let (part, after) = rest
                .split_at_checked(length)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            if !block(part, limit, &mut out)? {
                return Ok(None);
            }
            rest = after;
        }
        Ok(Some(out))
    }

    /// Appends one block's original to `out`; false if that would pass `limit`.
    fn block(data: &[u8], limit: usize, out: &mut Vec<u8>) -> io::Result<bool> {
        let length = snap::raw::decompress_len(data)?;
        let start = out.len();
        // The length is the sender's claim: snappy cannot expand a byte to more than 64.
        if length > data.len().saturating_mul(64) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if start.saturating_add(length) > limit {
            return Ok(false);
        }
        out.resize(start + length, 0);
        let slot = out.get_mut(start..).unwrap_or_default();
        let _written = snap::raw::Decoder::new().decompress(data, slot)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn hex(text: &str) -> Bytes {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect::<Vec<_>>().into()
    }

    fn compressible() -> impl Strategy<Value = Vec<u8>> {
        (prop::collection::vec(any::<u8>(), 0..300), 1..400_usize).prop_map(|(v, n)| v.repeat(n))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_codec_returns_what_it_was_given(raw in compressible()) {
            for codec in Compression::ALL {
                let mut packed = Vec::new();
                codec.compress(&raw, &mut packed).unwrap();
                let packed = Bytes::from(packed);
                prop_assert_eq!(&codec.decompress(&packed, LIMIT).unwrap()[..], &raw[..], "{}", codec);
                if !raw.is_empty() {
                    let refused = codec.decompress(&packed, raw.len() - 1);
                    let too_large = matches!(refused, Err(CompressionError::TooLarge { .. }));
                    prop_assert!(too_large, "{} {:?}", codec, refused);
                }
            }
        }

        #[test]
        fn noise_is_an_error_or_bounded(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let noise = Bytes::from(noise);
            for codec in Compression::ALL {
                if let Ok(out) = codec.decompress(&noise, LIMIT) {
                    prop_assert!(out.len() <= LIMIT);
                }
            }
        }
    }

    /// The same text as written by the reference tools: `gzip -n`, the snappy format description
    /// (a literal and a copy; with xerial's header and bare), `lz4 -B4 --no-frame-crc`, `zstd -3`.
    #[test]
    fn golden_bytes_of_other_writers() {
        let text = b"seriatim seriatim seriatim";
        for (codec, bytes) in GOLDEN {
            let original = codec.decompress(&hex(bytes), LIMIT).unwrap();
            assert_eq!(&original[..], text, "{codec}");
        }
    }

    #[test]
    fn xerial_header_is_byte_exact() {
        let mut packed = Vec::new();
        Compression::Snappy.compress(b"abc", &mut packed).unwrap();
        let expected = hex("82534e41505059 00 00000001 00000001 00000005 03 08 616263");
        assert_eq!(packed, expected);
    }

    #[test]
    fn lz4_header_is_what_kafka_reads() {
        let mut packed = Vec::new();
        Compression::Lz4.compress(&[7; 100], &mut packed).unwrap();
        // Magic, version 1 with independent blocks and no checksums, blocks of 64 KiB.
        assert_eq!(packed[..6], hex("04224d18 60 40"));
    }

    #[test]
    fn cut_data_is_refused() {
        let raw: Vec<u8> = (0..200_000_u32)
            .flat_map(|n| (n % 977).to_le_bytes())
            .collect();
        for codec in [
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ] {
            let mut packed = Vec::new();
            codec.compress(&raw, &mut packed).unwrap();
            let cut = Bytes::copy_from_slice(&packed[..packed.len() / 2]);
            let refused = codec.decompress(&cut, LIMIT);
            assert!(
                matches!(refused, Err(CompressionError::Corrupt { .. })),
                "{codec}"
            );
        }
    }

    #[test]
    fn names_and_bits() {
        for codec in Compression::ALL {
            assert_eq!(codec.name().parse(), Ok(codec));
            assert_eq!(
                Compression::from_attributes(codec.attributes() | 8),
                Some(codec)
            );
        }
        assert_eq!(
            "lzma".parse::<Compression>(),
            Err(UnknownCompression("lzma".to_owned()))
        );
        assert_eq!(Compression::from_attributes(5), None);
    }

    const GOLDEN: [(Compression, &str); 6] = [
        (
            Compression::None,
            "73657269617469 6d2073657269617469 6d2073657269617469 6d",
        ),
        (
            Compression::Gzip,
            "1f8b08000000000000032b4e2dca4c2cc9cc552846670000adcc004d1a000000",
        ),
        (
            Compression::Snappy,
            "82534e41505059000000000100000001 0000000e 1a20736572696174696d20420900",
        ),
        (Compression::Snappy, "1a20736572696174696d20420900"),
        (
            Compression::Lz4,
            "04224d186040821200000098736572696174696d20090050696174696d00000000",
        ),
        (
            Compression::Zstd,
            "28b52ffd241a7d000048736572696174696d2001009ccb11482e336b",
        ),
    ];
}
