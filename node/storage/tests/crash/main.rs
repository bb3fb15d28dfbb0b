//! Power loss and killed processes at every disk operation, and rotten bits in every file.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

#[path = "../common/mod.rs"]
mod common;
mod errors;
mod life;
mod model;
mod power;
mod rot;
