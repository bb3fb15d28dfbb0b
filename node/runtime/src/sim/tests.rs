//! The simulated network, under a paused clock.

use std::{io::ErrorKind, time::Duration};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{LinkOptions, Quality, SimNet, clock};
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
    let silent = crate::clock::timeout(LONG, client.read(&mut buf)).await;
    assert!(
        silent.is_err(),
        "a host that was started anew said something unasked"
    );
    client.write_all(b"are you there").await.unwrap();
    let reset = client.read(&mut buf).await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_connection_is_found_out_by_who_sends() {
    let net = network(7);
    let (mut client, mut server, _listener) = pair(&net).await;
    net.forget("b", "a");
    let mut buf = [0; 1];
    let ours = server.read(&mut buf).await.unwrap_err();
    assert_eq!(ours.kind(), ErrorKind::ConnectionReset);
    drop(server);
    let silent = crate::clock::timeout(LONG, client.read(&mut buf)).await;
    assert!(silent.is_err(), "learned of it unasked");
    // Cut meanwhile, the answer comes when the cut is mended.
    net.cut("a", "b");
    client.write_all(b"x").await.unwrap();
    let silent = crate::clock::timeout(LONG, client.read(&mut buf)).await;
    assert!(silent.is_err(), "an answer through a cut");
    net.mend_one_way("a", "b");
    net.mend_one_way("b", "a");
    let reset = client.read(&mut buf).await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    let reset = client.write_all(b"y").await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_arrives_after_its_sender_has_connected_anew() {
    let net = network(8);
    let (mut client, mut server, listener) = pair(&net).await;
    net.delay_connections("a", "b", Duration::from_secs(5));
    client.write_all(b"old").await.unwrap();
    net.abandon_delayed("a", "b");
    let given_up = client.write_all(b"x").await.unwrap_err();
    assert_eq!(given_up.kind(), ErrorKind::ConnectionReset);
    drop(client);
    let mut again = net.host("a").connect("b:1").await.unwrap();
    again.write_all(b"new").await.unwrap();
    let (mut second, _) = listener.accept().await.unwrap();
    let (mut new, mut old) = ([0; 3], Vec::new());
    let _n = second.read_exact(&mut new).await.unwrap();
    assert_eq!(&new, b"new");
    assert!(clock::time() < Duration::from_secs(1));
    // Answers to it go nowhere and break nothing.
    server.write_all(b"heard").await.unwrap();
    let _n = server.read_to_end(&mut old).await.unwrap();
    assert_eq!(old, b"old");
    assert!(clock::time() > Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_carries_one_byte_after_the_other() {
    let net = network(9);
    let (mut client, mut server, _listener) = pair(&net).await;
    let slow = Quality {
        delay: Duration::from_millis(100),
        bytes_per_s: Some(1000),
        ..Quality::default()
    };
    net.set_quality("b", slow);
    let begun = clock::time();
    for _ in 0..20 {
        client.write_all(&[1; 100]).await.unwrap();
    }
    let mut read = [0; 2000];
    let _n = server.read_exact(&mut read).await.unwrap();
    let took = clock::time() - begun;
    assert!(took >= Duration::from_millis(2100), "{took:?}");
    assert!(took < Duration::from_millis(2200), "{took:?}");
    net.set_quality("b", Quality::default());
    let begun = clock::time();
    client.write_all(&[1; 2000]).await.unwrap();
    let _n = server.read_exact(&mut read).await.unwrap();
    assert!(clock::time() - begun < Duration::from_millis(10));
}

/// Seeds 208 and 285 found the cluster slow to recover, from what a link still had to carry at the speed
/// that it no longer had.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_slow_link_comes_when_it_is_mended() {
    let net = network(9);
    let (mut client, mut server, _listener) = pair(&net).await;
    let slow = Quality {
        bytes_per_s: Some(100),
        ..Quality::default()
    };
    net.set_quality("b", slow);
    client.write_all(&[1; 5000]).await.unwrap();
    client.write_all(&[2; 5000]).await.unwrap();
    let mut read = [0; 10_000];
    let waiting = crate::clock::timeout(Duration::from_secs(5), server.read_exact(&mut read)).await;
    assert!(waiting.is_err());
    net.set_quality("b", Quality::default());
    let begun = clock::time();
    let mut rest = [0; 10_000];
    let _n = server.read_exact(&mut rest).await.unwrap();
    assert!(clock::time() - begun < Duration::from_millis(10));
    assert_eq!(rest.get(4999..5001), Some(&[1, 2][..]));
}

#[tokio::test(start_paused = true)]
async fn a_lossy_link_loses_time_and_no_bytes() {
    let net = network(10);
    let (mut client, mut server, _listener) = pair(&net).await;
    let lossy = Quality {
        loss_percent: 50,
        ..Quality::default()
    };
    net.set_quality("a", lossy);
    let begun = clock::time();
    for byte in 0..50_u8 {
        client.write_all(&[byte]).await.unwrap();
    }
    let mut read = [0; 50];
    let _n = server.read_exact(&mut read).await.unwrap();
    assert!(read.iter().copied().eq(0..50));
    assert!(clock::time() - begun > Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn a_ghost_is_accepted_and_never_heard() {
    let net = network(11);
    let (_client, _server, listener) = pair(&net).await;
    let twice = Quality {
        ghost_percent: 100,
        ..Quality::default()
    };
    net.set_quality("b", twice);
    let mut client = net.host("a").connect("b:1").await.unwrap();
    client.write_all(b"me").await.unwrap();
    let (mut real, _) = listener.accept().await.unwrap();
    let (mut ghost, _) = listener.accept().await.unwrap();
    let mut buf = [0; 2];
    let _n = real.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"me");
    let silent = crate::clock::timeout(LONG, ghost.read(&mut buf)).await;
    assert!(silent.is_err(), "a ghost said something");
    ghost.write_all(b"who").await.unwrap();
    let reset = ghost.read(&mut buf).await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_kind_of_hosts_is_cut_off_at_once() {
    let net = network(12);
    clock::enter(Duration::ZERO);
    let _listener = net.host("n1").listen("n1:1").await.unwrap();
    net.cut("n1", "c");
    for (host, reaches) in [("c1", false), ("c27", false), ("n2", true)] {
        let host_net = net.host(host);
        let connected = crate::clock::timeout(LONG, host_net.connect("n1:1")).await;
        let connected = connected.is_ok();
        assert_eq!(connected, reaches, "{host}");
    }
    net.mend_one_way("n1", "c");
    net.mend_one_way("c", "n1");
    assert!(net.host("c3").connect("n1:1").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn timers_of_a_clock_that_runs_fast_end_early() {
    for (percent, real_ms) in [(50, 2000), (100, 1000), (200, 500)] {
        clock::enter_at(Duration::from_secs(7), clock::Speed::percent(percent));
        crate::clock::sleep(Duration::from_secs(1)).await;
        let took = clock::time() - Duration::from_secs(7);
        let expected = Duration::from_millis(real_ms);
        assert!(
            took.abs_diff(expected) < Duration::from_millis(5),
            "{took:?}"
        );
        let at = clock::instant(clock::time() + Duration::from_secs(3));
        assert!(clock::at(at).abs_diff(clock::time()) < Duration::from_millis(3005));
    }
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
