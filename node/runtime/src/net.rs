//! TCP, real or simulated.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// How long a host may acknowledge nothing, at the level of TCP, before a connection to it is given up.
/// Linux would go on for a quarter of an hour, at intervals of up to two minutes, and not notice for as
/// long that the host can be reached again (tcp(7): `TCP_USER_TIMEOUT`).
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How often an idle connection asks whether the other host is there.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// A future as an object, for [`Network`] and [`Accept`].
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A network that stands in for the operating system's.
pub trait Network: Send + Sync + fmt::Debug {
    /// Binds `address`.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Listener>>;
    /// Opens a connection to `address`.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Stream>>;
}

/// A bound address of a [`Network`].
pub trait Accept: Send + Sync + fmt::Debug {
    /// The address, with the port that was chosen.
    fn local_addr(&self) -> String;
    /// The next connection and its peer's address.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, String)>>;
}

/// Where connections come from.
#[derive(Clone, Debug)]
pub struct Net(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Tokio,
    Simulated(Arc<dyn Network>),
}

impl Net {
    /// The operating system's TCP.
    pub fn tokio() -> Self {
        Self(Kind::Tokio)
    }

    /// A network in memory.
    pub fn simulated(network: Arc<dyn Network>) -> Self {
        Self(Kind::Simulated(network))
    }

    /// Binds `address` ("host:port", port 0 for any).
    pub async fn listen(&self, address: &str) -> io::Result<Listener> {
        match &self.0 {
            Kind::Tokio => Ok(Listener(ListenerKind::Tcp(
                TcpListener::bind(address).await?,
            ))),
            Kind::Simulated(network) => network.listen(address).await,
        }
    }

    /// Opens a connection to `address` without Nagle's delay. It ends where the other host is silent
    /// for 5 s.
    pub async fn connect(&self, address: &str) -> io::Result<Stream> {
        match &self.0 {
            Kind::Tokio => {
                let stream = TcpStream::connect(address).await?;
                tune(&stream)?;
                Ok(Stream(StreamKind::Tcp(stream)))
            }
            Kind::Simulated(network) => network.connect(address).await,
        }
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let silence_max = u32::try_from(SILENCE_MAX.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, silence_max)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE)?;
    Ok(())
}

/// A bound address.
#[derive(Debug)]
pub struct Listener(ListenerKind);

#[derive(Debug)]
enum ListenerKind {
    Tcp(TcpListener),
    Simulated(Box<dyn Accept>),
}

impl Listener {
    /// Wraps a simulated one.
    pub fn simulated(accept: Box<dyn Accept>) -> Self {
        Self(ListenerKind::Simulated(accept))
    }

    /// The address, with the port that was chosen.
    pub fn local_addr(&self) -> io::Result<String> {
        match &self.0 {
            ListenerKind::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            ListenerKind::Simulated(listener) => Ok(listener.local_addr()),
        }
    }

    /// The next connection and its peer's address.
    pub async fn accept(&self) -> io::Result<(Stream, String)> {
        match &self.0 {
            ListenerKind::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                tune(&stream)?;
                Ok((Stream(StreamKind::Tcp(stream)), peer.to_string()))
            }
            ListenerKind::Simulated(listener) => listener.accept().await,
        }
    }
}

/// Bytes in both directions, as a simulated network provides them.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug> Duplex for T {}

/// One connection.
#[derive(Debug)]
pub struct Stream(StreamKind);

#[derive(Debug)]
enum StreamKind {
    Tcp(TcpStream),
    Simulated(Box<dyn Duplex>),
}

/// The reading side of a connection.
pub type ReadHalf = tokio::io::ReadHalf<Stream>;

/// The writing side of a connection.
pub type WriteHalf = tokio::io::WriteHalf<Stream>;

impl Stream {
    /// Wraps a simulated one.
    pub fn simulated(duplex: Box<dyn Duplex>) -> Self {
        Self(StreamKind::Simulated(duplex))
    }

    /// Both sides, to be used from two tasks.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        tokio::io::split(self)
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        match &mut self.get_mut().0 {
            StreamKind::Tcp(stream) => Pin::new(stream),
            StreamKind::Simulated(stream) => Pin::new(stream.as_mut()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            StreamKind::Tcp(stream) => stream.is_write_vectored(),
            StreamKind::Simulated(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Both ends of a connection.
    async fn connected() -> (Stream, Stream) {
        let net = Net::tokio();
        let listener = net.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(net.connect(&address), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_travel_over_loopback() {
        let (mut client, mut server) = connected().await;
        client.write_all(b"ping").await.unwrap();
        let mut read = [0; 4];
        let _filled = server.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ping");
    }
    /// A node that had been cut off for a minute was out of reach for the better part of another one.
    #[tokio::test]
    async fn both_ends_give_up_a_silent_host() {
        let (client, server) = connected().await;
        for stream in [client, server] {
            let StreamKind::Tcp(stream) = stream.0 else {
                panic!("a simulated connection");
            };
            assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 5_000);
            assert!(sockopt::socket_keepalive(&stream).unwrap());
            assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), KEEP_ALIVE);
            assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), KEEP_ALIVE);
        }
    }
}
