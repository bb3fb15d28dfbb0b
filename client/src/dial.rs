//! Where connections come from, if not from the operating system.

use std::{
    fmt, io,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::{Service, http::Uri};

/// Bytes in both directions.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

type Opened = io::Result<Box<dyn Connection>>;

type Dial = dyn Fn(String) -> BoxFuture<'static, Opened> + Send + Sync;

/// Opens the client's connections in place of TCP: how a simulation puts the client on its network.
/// Not part of the stable interface.
#[derive(Clone)]
pub struct Dialer(Arc<Dial>);

impl Dialer {
    /// Calls `dial` with "host:port" for each connection.
    pub fn new<F, Fut, C>(dial: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<C>> + Send + 'static,
        C: Connection + 'static,
    {
        Self(Arc::new(move |address| {
            let opening = dial(address);
            Box::pin(async move { Ok(Box::new(opening.await?) as Box<dyn Connection>) })
        }))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Box<dyn Connection>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let address = uri.authority().map(ToString::to_string);
        let opening = (self.0)(address.unwrap_or_default());
        Box::pin(async move { opening.await.map(TokioIo::new) })
    }
}
