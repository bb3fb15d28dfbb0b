//! A history: what clients asked and were told, and what was broken meanwhile, in the order in which it
//! happened. It is the only thing that the checkers judge.
//!
//! Each operation is two entries, its invocation and its completion, by the same process. A process has
//! one operation under way at a time; one whose operation ended as [`Kind::Info`] never acts again,
//! because that operation may still take effect (the rule of Jepsen's histories).

mod op;
mod recorder;

pub use op::{
    Action, Commit, Committed, Fault, FaultPhase, Header, Key, Kind, Op, Poll, Process, Read,
    Register, RegisterOp, Replica, Send, Topic, Trim, Value,
};
pub use recorder::{Pending, Recorder};
