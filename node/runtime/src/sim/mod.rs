//! What a deterministic simulation puts behind the seams: a network in memory, and a time that
//! several executors of one thread share.

pub mod clock;
mod network;
mod pipe;
mod stream;
#[cfg(test)]
mod tests;
pub mod trace;
pub mod wakes;

pub use network::{LinkOptions, SimNet};
