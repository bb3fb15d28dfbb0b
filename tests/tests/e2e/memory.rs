//! However many clients press on a node, its memory is bounded.

use std::time::Duration;

use seriatim_tests::{
    cluster::Setup,
    overload::{CONNECTION_BYTES, Pressure, press},
    story::{Load, Outcome, story},
};

const MIB: u64 = 1 << 20;

/// What the node may hold for appends and for readers.
const APPENDS: u64 = 32 * MIB;
const CACHE: u64 = 16 * MIB;

/// Code, stacks, and what a debug build is larger.
const REST: u64 = 128 * MIB;

const CLIENTS: usize = 40;

#[test]
fn clients_that_write_too_fast_are_held_back() -> Outcome {
    story(Load::Alone, async {
        let mut cluster = Setup::nodes(1)
            .setting(&format!("append_bytes = {APPENDS}\ncache_bytes = {CACHE}"))
            .start()
            .await?;
        // Segments of a size that is written and gone again in between.
        let create = ["topic", "create", "t", "--set", "segment.bytes=67108864"];
        let _created = cluster.cli().ok(&create).await?;
        let pressure = Pressure {
            clients: CLIENTS,
            batch_bytes: 1 << 20,
            time: Duration::from_secs(5),
        };
        let pressed = press(&cluster, "t", pressure).await?;
        assert!(
            pressed.stored > 40,
            "every client got its turn: {pressed:?}"
        );
        let connections = u64::try_from(CLIENTS)? * CONNECTION_BYTES;
        assert!(
            pressed.peak_bytes <= APPENDS + CACHE + connections + REST,
            "{} MiB resident: {pressed:?}",
            pressed.peak_bytes / MIB
        );
        // It still works, and holds what it acknowledged.
        let status = cluster.status().await?;
        let end = status["partitions"][0]["high_watermark"].as_u64();
        assert!(end >= Some(pressed.stored), "{status} after {pressed:?}");
        cluster.stop().await?;
        Ok(())
    })
}
