//! How much of everything there may be.

/// Longest group, member and instance id and longest client name, in characters.
pub const MAX_ID_CHARS: usize = 255;

/// Most members of one group.
pub const MAX_MEMBERS: usize = 10_000;

/// Most topics that one member subscribes to.
pub const MAX_MEMBER_TOPICS: usize = 1_000;

/// Most groups of one shard.
pub const MAX_SHARD_GROUPS: usize = 200_000;

/// Most partitions for which one group has offsets.
pub const MAX_GROUP_OFFSETS: usize = 100_000;

/// Most offsets in one commit, and most partitions in one question for offsets.
pub const MAX_COMMIT_OFFSETS: usize = 10_000;

/// Longest text with an offset, in bytes.
pub const MAX_METADATA_BYTES: usize = 4 << 10;

/// Largest command, in bytes.
pub const MAX_COMMAND_BYTES: usize = 8 << 20;

/// Most groups in one question for coordinators.
pub const MAX_COORDINATORS: usize = 1_000;

/// Member ids that a place under an instance id remembers as fenced.
pub(crate) const MAX_REPLACED: usize = 8;

/// Session timeout where the member names none, and what it may be, in milliseconds.
pub const DEFAULT_SESSION_MS: u32 = 10_000;
pub(crate) const SESSION_MS: std::ops::RangeInclusive<u32> = 3_000..=30 * 60 * 1000;

/// Rebalance timeout where the member names none, and what it may be, in milliseconds.
pub const DEFAULT_REBALANCE_MS: u32 = 60_000;
pub(crate) const REBALANCE_MS: std::ops::RangeInclusive<u32> = 1_000..=60 * 60 * 1000;
