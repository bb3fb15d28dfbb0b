//! A harness for whole clusters: real `seriatim` processes on loopback, used as anybody would use
//! them, through the command line, the client library and gRPC.
//!
//! A test is a [`story`](story::story) about a [`Cluster`](cluster::Cluster). Every wait has a
//! deadline, every process dies with its cluster, and the nodes' logs are shown when a story fails.
//! Nothing here knows the server's crates.

pub mod binary;
pub mod cli;
pub mod cluster;
pub mod events;
pub mod failover;
pub mod flow;
pub mod group_churn;
pub mod grpc;
mod guardian;
pub mod http;
pub mod judge;
pub mod members;
pub mod node;
pub mod overload;
pub mod ports;
pub mod procfs;
pub mod producing;
pub mod replicas;
pub mod retention;
pub mod rolling;
pub mod small_disk;
pub mod story;
pub mod wait;
pub mod watching;
