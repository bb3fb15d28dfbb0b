//! End-to-end tests: whole clusters of real processes, used through their public interfaces.

mod bootstrap;
mod failover;
mod forms;
mod grpc;
mod survival;
mod topics;
