//! Deterministic simulation: whole nodes, clients and faults in one thread, from one seed.

pub mod cells;
pub mod client;
pub mod draw;
pub mod fault;
pub mod fleet;
pub mod machines;
pub mod members;
pub mod nemesis;
pub mod node;
pub mod operator;
pub mod outcome;
pub mod pipeline;
pub mod real;
pub mod rpc;
pub mod run;
pub mod schedule;
pub mod shrink;
mod stop;
pub mod summary;
pub mod views;
pub mod workload;
pub mod world;
