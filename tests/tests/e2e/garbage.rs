//! Bytes that make no sense, at every port, do not hurt a node.

use std::time::Duration;

use anyhow::ensure;
use seriatim_tests::{
    cluster::{Cluster, Setup},
    http,
    story::{Load, Outcome, story},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longest that one end of a connection waits for the other here.
const PATIENCE: Duration = Duration::from_millis(200);

/// Bytes that look like chance, the same in every run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// What is sent, in order of viciousness.
fn messages() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for (seed, len) in [(1, 1), (2, 16), (3, 1_000), (4, 100_000), (5, 1_000_000)] {
        all.push(noise(seed, len));
    }
    // Lengths that promise more than there is, in either order of bytes.
    for length in [u32::MAX, i32::MAX.unsigned_abs(), 1 << 30, 0] {
        all.push([&length.to_be_bytes()[..], &noise(6, 64)].concat());
        all.push([&length.to_le_bytes()[..], &noise(7, 64)].concat());
        all.push(
            [
                &[0_u8; 16][..],
                &length.to_be_bytes(),
                &length.to_le_bytes(),
            ]
            .concat(),
        );
    }
    // A connection preface of HTTP/2, then a frame with a length beyond all limits, then noise.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    all.push([&preface[..], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat());
    all.push([&preface[..], &noise(8, 4_000)].concat());
    // HTTP without an end, and with headers without an end.
    all.push(b"GET /metrics HTTP/1.1\r\n".to_vec());
    all.push([&b"GET /"[..], &vec![b'a'; 200_000]].concat());
    all.push(b"POST /healthz HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nx".to_vec());
    all.push(b"GET / HTTP/9.9\r\nHost\r\n\r\n".to_vec());
    all
}

/// Sends a message, waits a moment for an answer, and hangs up; what the node does with the
/// connection is its own affair.
async fn send(address: &str, message: &[u8]) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let talk = async {
        if stream.write_all(message).await.is_ok() {
            let mut answer = vec![0; 1_024];
            let _hung_up_or_answered = stream.read(&mut answer).await;
        }
    };
    let _silent = timeout(PATIENCE, talk).await;
    Ok(())
}

async fn all_is_well(cluster: &mut Cluster) -> anyhow::Result<()> {
    let node = cluster.node_mut(1)?;
    ensure!(node.ended()?.is_none(), "the node has ended");
    let (status, _) = http::get(&node.addresses.http.clone(), "/readyz").await?;
    ensure!(status == 200, "the node is not ready any more");
    let produced = cluster
        .cli()
        .run_with(&["produce", "t"], b"still here\n")
        .await?;
    ensure!(produced.status.success(), "{}", produced.stderr);
    Ok(())
}

#[test]
fn garbage_at_every_port_does_no_harm() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Setup::nodes(1).start().await?;
        let _created = cluster.cli().ok(&["topic", "create", "t"]).await?;
        let listen = cluster.node(1)?.addresses.clone();
        let before = seriatim_tests::procfs::resident_bytes(cluster.node(1)?.pid()?)?;
        for address in [&listen.grpc, &listen.replication, &listen.http] {
            let messages = messages();
            let sending = messages.iter().map(|message| send(address, message));
            for sent in futures::future::join_all(sending).await {
                sent?;
            }
            all_is_well(&mut cluster).await?;
        }
        let after = seriatim_tests::procfs::resident_bytes(cluster.node(1)?.pid()?)?;
        let more = after.saturating_sub(before) >> 20;
        assert!(
            more < 64,
            "a promised length is not memory: {more} MiB more than before"
        );
        let log = cluster.node(1)?.log_text()?;
        assert!(!log.contains("panicked"), "{log}");
        cluster.stop().await?;
        Ok(())
    })
}

#[test]
fn connections_that_say_nothing_keep_nobody_out() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Setup::nodes(1).start().await?;
        let _created = cluster.cli().ok(&["topic", "create", "t"]).await?;
        let listen = cluster.node(1)?.addresses.clone();
        let mut silent = Vec::new();
        for address in [&listen.grpc, &listen.replication, &listen.http] {
            for _ in 0..200 {
                silent.push(TcpStream::connect(address).await?);
            }
        }
        all_is_well(&mut cluster).await?;
        // They do not hold up the end either.
        cluster.stop().await?;
        drop(silent);
        Ok(())
    })
}
