//! Commands on a partition's state, as bytes in its log.
//!
//! ```text
//! offset size field
//!      0    1 version = 1
//!      1    1 kind: 1 log start
//!      2    8 the log start offset
//!     10    1 1: an entry follows, up to which the log may be dropped; 0: none
//!     11   16 its term and index
//! ```
//! Integers are big-endian. A command may be proposed only at the feature level that knows it
//! (`node/cluster`): a replica that does not know it stops, because passing over it would make it differ
//! from the others.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut, TryGetError};
use seriatim_proto::ids::Offset;
use seriatim_storage::LogId;

const VERSION: u8 = 1;
const LOG_START: u8 = 1;

/// Something that the log says of the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Records begin here.
    LogStart(LogStart),
}

/// Where a partition's records begin, and up to which entry its log may be dropped for that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogStart {
    /// The first offset that may be read. Invariant: never goes down.
    pub(crate) offset: Offset,
    /// The last entry that is not needed. Invariant: its records are below `offset`, and it never
    /// goes back.
    pub(crate) upto: Option<LogId>,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The records begin here now.
    Start(Offset),
    /// There are no records up to there; the partition ends here.
    Beyond(Offset),
}

/// Why bytes are not a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("version {0} is not known here; upgrade this node")]
    Version(u8),
    #[error("kind {0} is not known here; upgrade this node")]
    Kind(u8),
    #[error("it has another length than it should")]
    Length,
}

impl Command {
    pub(crate) fn encode(self) -> Bytes {
        let Self::LogStart(start) = self;
        let mut out = BytesMut::with_capacity(27);
        out.put_u8(VERSION);
        out.put_u8(LOG_START);
        put_start(&mut out, &start);
        out.freeze()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, CommandError> {
        let short = |_: TryGetError| CommandError::Length;
        let version = bytes.try_get_u8().map_err(short)?;
        if version != VERSION {
            return Err(CommandError::Version(version));
        }
        let kind = bytes.try_get_u8().map_err(short)?;
        if kind != LOG_START {
            return Err(CommandError::Kind(kind));
        }
        let start = get_start(&mut bytes).ok_or(CommandError::Length)?;
        if bytes.has_remaining() {
            return Err(CommandError::Length);
        }
        Ok(Self::LogStart(start))
    }
}

/// Appends offset and entry.
pub(crate) fn put_start(out: &mut BytesMut, start: &LogStart) {
    out.put_i64(start.offset.0);
    out.put_u8(u8::from(start.upto.is_some()));
    if let Some(upto) = start.upto {
        out.put_u64(upto.term);
        out.put_u64(upto.index);
    }
}

/// Reads what [`put_start`] wrote.
pub(crate) fn get_start(bytes: &mut Bytes) -> Option<LogStart> {
    let offset = Offset(bytes.try_get_i64().ok()?);
    let upto = match bytes.try_get_u8().ok()? {
        0 => None,
        1 => Some(LogId {
            term: bytes.try_get_u64().ok()?,
            index: bytes.try_get_u64().ok()?,
        }),
        _ => return None,
    };
    Some(LogStart { offset, upto })
}

impl Outcome {
    /// As the reply of the state machine.
    pub(crate) fn encode(self) -> Bytes {
        let (kind, offset) = match self {
            Self::Start(offset) => (0, offset),
            Self::Beyond(offset) => (1, offset),
        };
        let mut out = BytesMut::with_capacity(9);
        out.put_u8(kind);
        out.put_i64(offset.0);
        out.freeze()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        let kind = bytes.try_get_u8().ok()?;
        let offset = Offset(bytes.try_get_i64().ok()?);
        match kind {
            0 => Some(Self::Start(offset)),
            1 => Some(Self::Beyond(offset)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(offset: i64, upto: Option<(u64, u64)>) -> Command {
        Command::LogStart(LogStart {
            offset: Offset(offset),
            upto: upto.map(|(term, index)| LogId { term, index }),
        })
    }

    #[test]
    fn the_bytes_are_fixed_and_no_cut_is_a_command() {
        let bytes = start(0x0102, Some((3, 0x0405))).encode();
        let golden = [
            1, 1, 0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 4, 5,
        ];
        assert_eq!(bytes[..], golden);
        for command in [start(7, Some((1, 2))), start(0, None)] {
            let bytes = command.encode();
            assert_eq!(Command::decode(bytes.clone()), Ok(command));
            for cut in 0..bytes.len() {
                let cut = Command::decode(bytes.slice(..cut));
                assert_eq!(cut, Err(CommandError::Length));
            }
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_refused() {
        let newer = Bytes::from_static(&[2, 1, 0]);
        assert_eq!(Command::decode(newer), Err(CommandError::Version(2)));
        let other = Bytes::from_static(&[1, 9]);
        assert_eq!(Command::decode(other), Err(CommandError::Kind(9)));
    }

    #[test]
    fn outcomes_round_trip() {
        for outcome in [Outcome::Start(Offset(5)), Outcome::Beyond(Offset(0))] {
            assert_eq!(Outcome::decode(outcome.encode()), Some(outcome));
        }
        assert_eq!(Outcome::decode(Bytes::new()), None);
    }
}
