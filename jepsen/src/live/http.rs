//! Just enough HTTP to ask a node whether it is ready.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Most bytes of an answer that are read: the status stands in its first line.
const HEAD_BYTES: u64 = 4096;

/// The status code of `GET path`.
///
/// # Errors
/// If nobody answers in HTTP.
pub(super) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let _bytes = stream.take(HEAD_BYTES).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.context("no HTTP status")
}
