//! End-to-end tests: whole clusters of real processes, used through their public interfaces.
#![expect(
    clippy::indexing_slicing,
    reason = "a test fails where it is wrong; a field that JSON does not have is null"
)]

mod bootstrap;
mod damage;
mod examples;
mod failover;
mod forms;
mod full_disk;
mod garbage;
mod group_churn;
mod group_offsets;
mod groups;
mod grpc;
mod members;
mod memory;
mod retention;
mod survival;
mod topics;
