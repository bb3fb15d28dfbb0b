//! The client against a cluster in this process that fails as it is told to.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails where it is wrong"
)]

mod fake;
mod faults;
mod group_faults;
mod groups;
