//! What a deterministic simulation puts behind the seams: a network in memory, and a time that
//! several executors of one thread share.

pub mod clock;
mod faults;
mod network;
mod pipe;
mod quality;
mod stream;
#[cfg(test)]
mod tests;
pub mod trace;
pub mod wakes;

pub use network::{LinkOptions, SimNet};
pub use quality::Quality;
