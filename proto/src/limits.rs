//! Limits that both sides of a connection must agree on.

/// Largest record batch, header included, in bytes. Also the largest payload of one Raft entry.
pub const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Largest message on the gRPC lane, in bytes.
pub const MAX_GRPC_MESSAGE_BYTES: usize = 72 * 1024 * 1024;

/// Largest answer to one fetch, in bytes.
pub const MAX_FETCH_BYTES: usize = 64 * 1024 * 1024;

/// Answer to a fetch that names no limit, in bytes.
pub const DEFAULT_FETCH_BYTES: usize = 8 * 1024 * 1024;

/// Largest total size of the batches of one produce request, in bytes.
pub const MAX_PRODUCE_BYTES: usize = 64 * 1024 * 1024;

/// Most records in one batch.
pub const MAX_BATCH_RECORDS: u32 = 1_000_000;

/// Largest size of a batch after decompression, in bytes; more is refused by readers.
pub const MAX_DECOMPRESSED_BYTES: usize = 128 * 1024 * 1024;

/// Most partitions in one produce, fetch or list-offsets request.
pub const MAX_REQUEST_PARTITIONS: usize = 10_000;

/// Most partitions of one topic.
pub const MAX_TOPIC_PARTITIONS: i32 = 10_000;

/// Longest wait of one request, in milliseconds.
pub const MAX_WAIT_MS: u32 = 5 * 60 * 1000;

/// Produce timeout where the request names none, in milliseconds.
pub const DEFAULT_PRODUCE_TIMEOUT_MS: u32 = 30 * 1000;

/// Batches that a partition remembers for each producer, and the most that a producer may have in
/// flight to one partition.
pub const PRODUCER_WINDOW: usize = 5;
