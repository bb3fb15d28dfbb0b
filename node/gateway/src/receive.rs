//! Room for a produce request is taken before its bytes are read.
//!
//! A gRPC message is prefixed with its length. The body of a produce call is held back at each prefix
//! until the node's byte budget has room for the message, so what waits, waits in the client: HTTP/2
//! flow control lets it send no more than a window. Without this, every connection could make the
//! node hold whole messages that only then ask for room.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures::future::BoxFuture;
use http_body::Frame;
use parking_lot::Mutex;
use seriatim_broker::{Broker, Reservation};
use seriatim_proto::{limits, v1};
use seriatim_runtime::clock;
use tonic::{Status, body::Body, codegen::Service, server::NamedService};

use crate::status;

/// Flag of compression, then the length.
const PREFIX_BYTES: usize = 5;

/// How long a message may wait for room before its call fails.
const WAIT: Duration = Duration::from_millis(limits::DEFAULT_PRODUCE_TIMEOUT_MS as u64);

/// The room of the messages that a call has read, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reservations(Arc<Mutex<VecDeque<Reservation>>>);

impl Reservations {
    /// That of the next message.
    pub(crate) fn next(&self) -> Option<Reservation> {
        self.0.lock().pop_front()
    }
}

/// A gRPC service of which the produce calls are read as the budget allows.
#[derive(Debug, Clone)]
pub(crate) struct Budgeted<S> {
    pub(crate) service: S,
    pub(crate) broker: Broker,
}

impl<S: NamedService> NamedService for Budgeted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Budgeted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next();
        if matches!(method, Some("Produce" | "ProduceStream")) {
            let reservations = Reservations::default();
            let _none = request.extensions_mut().insert(reservations.clone());
            let broker = self.broker.clone();
            request = request.map(|body| Body::new(Held::new(body, broker, reservations)));
        }
        self.service.call(request)
    }
}

/// A body that is held back at the beginning of each message.
struct Held {
    body: Body,
    broker: Broker,
    reservations: Reservations,
    /// Received and not yet passed on.
    received: Bytes,
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that were seen.
    seen: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    waiting: Option<Waiting>,
}

/// A message that waits for room, and the end of its prefix, which is passed on then.
struct Waiting {
    room: BoxFuture<'static, Result<Reservation, v1::Error>>,
    prefix: Bytes,
}

impl Held {
    fn new(body: Body, broker: Broker, reservations: Reservations) -> Self {
        Self {
            body,
            broker,
            reservations,
            received: Bytes::new(),
            prefix: [0; PREFIX_BYTES],
            seen: 0,
            left: 0,
            waiting: None,
        }
    }

    /// Passes on what belongs to the present message, or a part of the next prefix.
    fn pass(&mut self) -> Option<Bytes> {
        if self.left > 0 {
            let part = self.received.split_to(self.left.min(self.received.len()));
            self.left -= part.len();
            return Some(part);
        }
        let part = self
            .received
            .split_to((PREFIX_BYTES - self.seen).min(self.received.len()));
        for (slot, byte) in self.prefix.iter_mut().skip(self.seen).zip(&part) {
            *slot = *byte;
        }
        self.seen += part.len();
        if self.seen < PREFIX_BYTES {
            return Some(part);
        }
        self.seen = 0;
        self.left = (&self.prefix[1..]).get_u32() as usize;
        // A message that is too long is refused at its prefix and never read.
        let bytes = self.left.min(limits::MAX_GRPC_MESSAGE_BYTES);
        let broker = self.broker.clone();
        let room = async move { broker.reserve(bytes, clock::now() + WAIT).await };
        self.waiting = Some(Waiting {
            room: Box::pin(room),
            prefix: part,
        });
        None
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(waiting) = &mut this.waiting {
                let room = ready!(waiting.room.as_mut().poll(cx));
                let prefix = std::mem::take(&mut waiting.prefix);
                this.waiting = None;
                return Poll::Ready(Some(match room {
                    Ok(room) => {
                        this.reservations.0.lock().push_back(room);
                        Ok(Frame::data(prefix))
                    }
                    Err(error) => Err(status::of(&error)),
                }));
            }
            if this.received.is_empty() {
                match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => this.received = data,
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    },
                    end => return Poll::Ready(end),
                }
            } else if let Some(part) = this.pass() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
        }
    }
}
