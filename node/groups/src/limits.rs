//! How much of everything there may be.

/// Longest group, member and instance id and longest client name, in characters.
pub const MAX_ID_CHARS: usize = 255;

/// Most members of one group.
pub const MAX_MEMBERS: usize = 10_000;

/// Most topics that one member subscribes to.
pub const MAX_MEMBER_TOPICS: usize = 1_000;

/// Most bytes of their names.
pub const MAX_MEMBER_TOPICS_BYTES: usize = 64 << 10;

/// Largest message of a member, in bytes.
pub const MAX_MEMBER_MESSAGE_BYTES: usize = 512 << 10;

/// Most groups of one shard.
pub const MAX_SHARD_GROUPS: usize = 50_000;

/// Most partitions for which one group has offsets.
pub const MAX_GROUP_OFFSETS: usize = 100_000;

/// Most offsets in one commit, and most partitions in one question for offsets.
pub const MAX_COMMIT_OFFSETS: usize = 10_000;

/// Longest text with an offset, in bytes.
pub const MAX_METADATA_BYTES: usize = 4 << 10;

/// Most bytes of all offsets of one group, so that they fit an answer.
pub const MAX_GROUP_OFFSET_BYTES: usize = 32 << 20;

/// Most bytes of all groups of one shard, so that a snapshot of them can be sent. One command that
/// begins below it may exceed it.
pub const MAX_SHARD_BYTES: usize = 192 << 20;

/// Largest commit, in bytes.
pub const MAX_COMMIT_BYTES: usize = 8 << 20;

/// Largest change of members, in bytes: what members say of themselves and what they are to have.
pub(crate) const MAX_UPDATE_BYTES: usize = 14 << 20;

/// Most bytes of what new members say of themselves in one change.
pub(crate) const MAX_JOINS_BYTES: usize = 4 << 20;

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
