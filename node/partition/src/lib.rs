//! One replicated event log: append (check, deduplicate, propose), fetch (to the high watermark),
//! the producer table and those who wait for records.
//!
//! | module | what it is |
//! |---|---|
//! | [`producer_table`], `table_codec` | what the log says of its producers, and that as bytes; pure |
//! | `sequencer` | what becomes of a batch on the leader; pure |
//! | `machine` | the state machine: high watermark, producer table, checkpoints |
//! | `append`, `fetch` | the two paths |
//!
//! It knows nothing of who placed it here or of wire formats.
#![warn(missing_docs)]

mod append;
mod error;
mod fetch;
mod machine;
mod partition;
pub mod producer_table;
mod sequencer;
mod table_codec;
#[cfg(test)]
mod testing;

pub use append::{Append, Appended};
pub use error::{AppendError, FetchError, PartitionError};
pub use fetch::{At, Fetch, Fetched};
pub use partition::{Partition, PartitionSpec, PartitionStatus};
pub use table_codec::{DecodeError, decode_table, encode_table};
