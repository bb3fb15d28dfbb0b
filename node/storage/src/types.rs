//! The names that the layers above use: log ids, votes, keys, options.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use seriatim_proto::{
    ids::{GroupId, Offset, ReplicaId},
    settings::Durability,
};

/// Position of an entry in a Raft log; ordered by term, then index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Term of the leader that wrote the entry.
    pub term: u64,
    /// Position in the log, from 0.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.term, self.index)
    }
}

/// What a replica promised in an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// The replica that has this vote, if any.
    pub voted_for: Option<ReplicaId>,
    /// Whether a majority granted it.
    pub committed: bool,
}

/// One replica of one group: the name of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey {
    /// The Raft group.
    pub group: GroupId,
    /// The replica, never reused.
    pub replica: ReplicaId,
}

impl fmt::Display for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}-r{}", self.group, self.replica)
    }
}

/// The text is not the name of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a log (g<group>-r<replica>)")]
pub struct LogKeyError;

impl FromStr for LogKey {
    type Err = LogKeyError;

    fn from_str(text: &str) -> Result<Self, LogKeyError> {
        let (group, replica) = text
            .strip_prefix('g')
            .and_then(|rest| rest.split_once("-r"))
            .ok_or(LogKeyError)?;
        let number = |digits: &str| digits.parse::<u64>().ok();
        let key = Self {
            group: GroupId(number(group).ok_or(LogKeyError)?),
            replica: ReplicaId(number(replica).ok_or(LogKeyError)?),
        };
        // `+1` and `01` would name a second folder for the same log.
        if key.to_string() == text {
            Ok(key)
        } else {
            Err(LogKeyError)
        }
    }
}

/// Settings of one data directory.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// Threads that write and sync; 1 or more, default 4. A simulated disk uses none.
    pub disk_threads: usize,
    /// Most bytes of written frames kept in memory for readers, over all logs; default 64 MiB.
    /// Frames not yet written are kept besides these.
    pub cache_bytes: u64,
    /// Free space below which the disk counts as full, in bytes; default 64 MiB.
    pub reserve_bytes: u64,
    /// Whether segments are verified in the background after a log was opened; default true.
    pub scrub: bool,
    /// Most bytes per second that the background verification reads; default 64 MiB.
    pub scrub_bytes_per_s: u64,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            disk_threads: 4,
            cache_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
            scrub: true,
            scrub_bytes_per_s: 64 << 20,
        }
    }
}

/// Settings of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Size at which a segment is sealed, in bytes; default 128 MiB.
    pub segment_bytes: u64,
    /// When an append counts as done; default after fdatasync.
    pub durability: Durability,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 128 << 20,
            durability: Durability::default(),
        }
    }
}

/// Where a log may begin: what a replica must know when the entries up to `log_id` are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// The last entry that the boundary stands for.
    pub log_id: LogId,
    /// Offset of the first record after it.
    pub next_offset: Offset,
    /// The membership as of `log_id`; opaque here.
    pub membership: Bytes,
    /// The state machine as of `log_id`; opaque here.
    pub state: Bytes,
}

/// One file of a log at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its last entry.
    pub last: LogId,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset after its last record.
    pub next_offset: Offset,
    /// Bytes of its frames.
    pub bytes: u64,
    /// No record in it is later, in ms since the Unix epoch; `i64::MIN` where it has none.
    pub max_timestamp: i64,
    /// Whether it is never written again.
    pub sealed: bool,
}

/// Figures of one data directory at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageStats {
    /// Calls of fdatasync since the start.
    pub fsyncs: u64,
    /// Bytes of written frames in memory.
    pub cached_bytes: u64,
    /// Bytes appended and not yet written.
    pub pending_bytes: u64,
    /// Whether the disk counts as full.
    pub disk_full: bool,
    /// Bytes of the segments of all open logs.
    pub log_bytes: u64,
    /// Open logs that stopped after an error.
    pub poisoned: Vec<LogKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_round_trip() {
        let key = LogKey {
            group: GroupId(12),
            replica: ReplicaId(3),
        };
        assert_eq!(key.to_string(), "g12-r3");
        assert_eq!("g12-r3".parse(), Ok(key));
        for bad in ["", "g1", "g1-r", "g01-r1", "g+1-r1", "x1-r1", "g1-r1 "] {
            assert_eq!(bad.parse::<LogKey>(), Err(LogKeyError), "{bad}");
        }
    }
}
