//! Deterministic simulation: whole nodes, clients and faults in one thread, from one seed.

pub mod client;
pub mod rpc;
pub mod workload;
pub mod world;
