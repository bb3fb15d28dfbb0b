//! The simulated network, under a paused clock.

use std::{io::ErrorKind, time::Duration};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{LinkOptions, SimNet, clock};
use crate::net::{Listener, Stream};

const LONG: Duration = Duration::from_secs(60);

async fn pair(net: &SimNet) -> (Stream, Stream, Listener) {
    clock::enter(Duration::ZERO);
    let listener = net.host("b").listen("b:1").await.unwrap();
    let client = net.host("a").connect("b:1").await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    assert!(peer.starts_with("a:"), "{peer}");
    (client, server, listener)
}

fn network(seed: u64) -> SimNet {
    SimNet::new(seed, LinkOptions::default())
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_in_order_after_the_latency() {
    let net = network(1);
    let (mut client, mut server, _listener) = pair(&net).await;
    let begun = clock::time();
    for byte in 0..100_u8 {
        client.write_all(&[byte]).await.unwrap();
    }
    drop(client);
    let mut read = Vec::new();
    let _count = server.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, (0..100).collect::<Vec<u8>>());
    let took = clock::time() - begun;
    assert!(took >= Duration::from_millis(1), "{took:?}");
    assert!(took < Duration::from_millis(10), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_makes_the_writer_wait_and_loses_nothing() {
    let net = network(2);
    let (mut client, mut server, _listener) = pair(&net).await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let copy = sent.clone();
    let stuck = crate::clock::timeout(LONG, client.write_all(&sent)).await;
    assert!(stuck.is_err(), "a megabyte went into a buffer of 256 KiB");
    drop(client);
    let mut read = Vec::new();
    let _count = server.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), 256 << 10);
    assert_eq!(read.as_slice(), &copy[..read.len()]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_stalls_one_direction_until_it_heals() {
    let net = network(3);
    let (mut client, mut server, _listener) = pair(&net).await;
    net.cut_one_way("a", "b");
    client.write_all(b"held").await.unwrap();
    server.write_all(b"back").await.unwrap();
    let mut buf = [0; 4];
    let _n = client.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"back");
    let silent = crate::clock::timeout(LONG, server.read_exact(&mut buf)).await;
    assert!(silent.is_err());
    let connecting = crate::clock::timeout(LONG, net.host("a").connect("b:1").into_future()).await;
    assert!(connecting.is_err(), "connected through a cut");
    net.heal();
    let _n = server.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"held");
}

#[tokio::test(start_paused = true)]
async fn a_reset_breaks_both_ends() {
    let net = network(4);
    let (mut client, mut server, _listener) = pair(&net).await;
    net.reset("a", "b");
    let mut buf = [0; 1];
    let read = client.read_exact(&mut buf).await.unwrap_err();
    assert_eq!(read.kind(), ErrorKind::ConnectionReset);
    let write = server.write_all(b"x").await.unwrap_err();
    assert_eq!(write.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_is_refused_and_a_dark_host_is_silent() {
    let net = network(5);
    let (mut client, server, listener) = pair(&net).await;
    drop(listener);
    drop(server);
    let mut buf = [0; 1];
    assert_eq!(client.read(&mut buf).await.unwrap(), 0);
    let written = client.write_all(b"x").await.unwrap_err();
    assert_eq!(written.kind(), ErrorKind::BrokenPipe);
    let refused = net.host("a").connect("b:1").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    let (mut client, server, listener) = pair(&net).await;
    net.power_off("b");
    drop((server, listener));
    let silent = crate::clock::timeout(LONG, client.read(&mut buf)).await;
    assert!(silent.is_err(), "a host without power said something");
    net.power_on("b");
    let reset = client.read(&mut buf).await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn addresses_are_exclusive_and_belong_to_their_host() {
    clock::enter(Duration::ZERO);
    let net = network(6);
    let first = net.host("a").listen("a:1").await.unwrap();
    let second = net.host("a").listen("a:1").await.unwrap_err();
    assert_eq!(second.kind(), ErrorKind::AddrInUse);
    drop(first);
    let _again = net.host("a").listen("a:1").await.unwrap();
    let foreign = net.host("b").listen("a:2").await.unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::AddrNotAvailable);
    let any = net.host("a").listen("a:0").await.unwrap();
    assert!(!any.local_addr().unwrap().ends_with(":0"));
}
