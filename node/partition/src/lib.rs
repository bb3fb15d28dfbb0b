//! One replicated event log: append (check, deduplicate, propose), fetch (to the high watermark),
//! the producer table and those who wait for records.
//!
//! | module | what it is |
//! |---|---|
//! | [`producer_table`], `table_codec` | what the log says of its producers, and that as bytes; pure |
//! | `command`, `state` | what the log says besides batches, and what all of it amounts to; pure |
//! | `retention` | which part of a log is too old or too much; pure |
//! | `sequencer` | what becomes of a batch on the leader; pure |
//! | `machine` | the state machine: high watermark, producer table, checkpoints |
//! | `append`, `fetch` | the two paths |
//! | `confirm` | how far a leader may be read; asking a majority before something is refused for good |
//! | `trim` | moving the start of the records, and dropping the log before it |
//!
//! It knows nothing of who placed it here or of wire formats.
#![warn(missing_docs)]

mod append;
mod command;
mod confirm;
mod error;
mod fetch;
mod machine;
#[cfg(test)]
mod machine_tests;
mod partition;
pub mod producer_table;
mod retention;
mod sequencer;
mod state;
mod table_codec;
#[cfg(test)]
mod testing;
mod trim;

pub use append::{Append, Appended};
pub use error::{AppendError, FetchError, PartitionError, TrimError};
pub use fetch::{At, Fetch, Fetched};
pub use partition::{Partition, PartitionSpec, PartitionStatus};
pub use table_codec::{DecodeError, decode_table, encode_table};
