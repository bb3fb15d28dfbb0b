//! A history: what clients asked and were told, and what was broken meanwhile, in the order in which it
//! happened. It is the only thing that the checkers judge.
//!
//! Each operation is two entries, its invocation and its completion, by the same process. A process has
//! one operation under way at a time; one whose operation ended as [`Kind::Info`] never acts again,
//! because that operation may still take effect (the rule of Jepsen's histories).

mod edn;
mod op;
mod order;
mod pairs;
mod read;
mod recorder;
#[cfg(test)]
mod tests;
mod unread;
mod write;

pub use op::{
    Action, Commit, Committed, Fault, FaultPhase, Header, Key, Kind, Op, Poll, Process, Read,
    Register, RegisterOp, Replica, Send, Topic, Trim, Value, Workload,
};
pub use pairs::{Operation, operations};
pub use read::ReadError;
pub use recorder::{Pending, Recorder};
pub use write::Writer;

/// A whole history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// What it is about.
    pub header: Header,
    /// What happened.
    pub ops: Vec<Op>,
}
