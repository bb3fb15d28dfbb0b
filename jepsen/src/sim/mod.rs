//! Deterministic simulation: whole nodes, clients and faults in one thread, from one seed.

pub mod client;
pub mod machines;
pub mod members;
pub mod nemesis;
pub mod node;
pub mod operator;
pub mod real;
pub mod rpc;
pub mod run;
pub mod workload;
pub mod world;
