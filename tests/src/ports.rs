//! Free ports.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;

/// Below the range from which the kernel takes ports for outgoing connections: otherwise one of
/// those may hold a node's port while the node is down.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// Ports tried so far, in this process.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// A "host:port" on loopback at which nobody listens, never given out twice by this process.
///
/// # Errors
/// If there is none.
pub fn free_address() -> anyhow::Result<String> {
    // Test processes that run side by side begin at different places.
    let start = std::process::id().wrapping_mul(101);
    for _ in 0..COUNT {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let address = format!("127.0.0.1:{}", FIRST + start.wrapping_add(tried) % COUNT);
        if TcpListener::bind(&address).is_ok() {
            return Ok(address);
        }
    }
    None.context("no free port on loopback")
}
