//! One end of a simulated connection.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{
    clock,
    network::Shared,
    pipe::{Found, SharedPipe},
    trace, wakes,
};

#[derive(Debug)]
pub(super) struct SimStream {
    pub(super) shared: Arc<Shared>,
    pub(super) receives: SharedPipe,
    pub(super) sends: SharedPipe,
    /// Wakes the reader when the next bytes arrive.
    pub(super) arrival: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let found = this.receives.lock().read(clock::time(), buf, cx.waker());
            match ready!(found)? {
                Found::Bytes(_) => {
                    this.arrival = None;
                    return Poll::Ready(Ok(()));
                }
                Found::Later(at) => {
                    let at = clock::instant(at);
                    wakes::expect(at);
                    let sleep = tokio::time::sleep_until(at);
                    let arrival = this.arrival.insert(Box::pin(sleep));
                    ready!(arrival.as_mut().poll(cx));
                }
            }
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let now = clock::time();
        let (left, bytes, quality) = {
            let mut sends = self.sends.lock();
            let bytes = buf.len().min(sends.room());
            (sends.leaves(now, bytes), bytes, sends.quality())
        };
        let at = self.shared.arrival(left, bytes, quality);
        let written = ready!(self.sends.lock().write(at, buf, cx.waker()))?;
        let arrives = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        trace::event("send", arrives, buf.get(..written).unwrap_or_default());
        if self.sends.lock().is_refused() {
            // The other end's host knows nothing of this connection.
            self.receives.lock().break_reader(at);
            self.sends.lock().break_writer();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let quality = self.sends.lock().quality();
        let at = self.shared.soon(quality);
        self.sends.lock().close(at);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let quality = self.sends.lock().quality();
        let at = self.shared.soon(quality);
        self.sends.lock().close(at);
        self.receives.lock().deafen();
    }
}
