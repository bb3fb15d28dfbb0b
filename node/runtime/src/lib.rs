//! The seams that a simulator replaces: clock, randomness, task spawning and TCP.
//!
//! Everything above this crate takes time, random numbers, tasks and connections from here, so that
//! a whole cluster can run in one thread under virtual time from one seed. It knows nothing of logs.

pub mod clock;
pub mod mark;
pub mod metric;
pub mod mutant;
pub mod net;
pub mod rng;
pub mod sim;
pub mod task;
