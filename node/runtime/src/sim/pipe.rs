//! One direction of a simulated connection.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;

/// Bytes on their way.
#[derive(Debug)]
struct Segment {
    /// When they arrive, in the simulation's time.
    at: Duration,
    bytes: Box<[u8]>,
    /// How many of them were read.
    taken: usize,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// So many bytes; 0 at the end of the stream.
    Bytes(usize),
    /// The next bytes arrive at this time.
    Later(Duration),
}

/// Bytes in flight from one end to the other, in order.
#[derive(Debug)]
pub(super) struct Pipe {
    segments: VecDeque<Segment>,
    /// Bytes in `segments`; never above `capacity`.
    buffered: usize,
    capacity: usize,
    /// When the last byte that was sent arrives; arrivals never overtake each other.
    last_at: Duration,
    /// When the reader learns that the writer has closed.
    end_at: Option<Duration>,
    /// Both ends fail from now on.
    reset: bool,
    /// The reader is gone; its peer learns it unless the network is cut.
    deaf: bool,
    /// The network between the ends is cut: nothing arrives until it heals.
    pub(super) held: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A pipe as both its ends and the network hold it.
pub(super) type SharedPipe = Arc<Mutex<Pipe>>;

impl Pipe {
    pub(super) fn new(capacity: usize, held: bool) -> SharedPipe {
        Arc::new(Mutex::new(Self {
            segments: VecDeque::new(),
            buffered: 0,
            capacity,
            last_at: Duration::ZERO,
            end_at: None,
            reset: false,
            deaf: false,
            held,
            reader: None,
            writer: None,
        }))
    }

    /// Takes what has arrived into `out`.
    pub(super) fn read(
        &mut self,
        now: Duration,
        out: &mut tokio::io::ReadBuf<'_>,
        waker: &Waker,
    ) -> Poll<io::Result<Found>> {
        if self.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let next = self.segments.front().map(|s| s.at).or(self.end_at);
        match next {
            Some(at) if !self.held && at <= now => {
                let taken = self.take(now, out);
                if let Some(writer) = self.writer.take() {
                    writer.wake();
                }
                Poll::Ready(Ok(Found::Bytes(taken)))
            }
            next => {
                self.reader = Some(waker.clone());
                match next {
                    Some(at) if !self.held => Poll::Ready(Ok(Found::Later(at))),
                    _ => Poll::Pending,
                }
            }
        }
    }

    fn take(&mut self, now: Duration, out: &mut tokio::io::ReadBuf<'_>) -> usize {
        let mut taken = 0;
        while out.remaining() > 0
            && let Some(segment) = self.segments.front_mut()
            && segment.at <= now
        {
            let rest = segment.bytes.get(segment.taken..).unwrap_or_default();
            let n = rest.len().min(out.remaining());
            out.put_slice(rest.get(..n).unwrap_or_default());
            segment.taken += n;
            taken += n;
            if segment.taken == segment.bytes.len() {
                drop(self.segments.pop_front());
            }
        }
        self.buffered -= taken;
        taken
    }

    /// Sends as much of `bytes` as there is room for, to arrive at `at` or later.
    pub(super) fn write(
        &mut self,
        at: Duration,
        bytes: &[u8],
        waker: &Waker,
    ) -> Poll<io::Result<usize>> {
        if self.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if (self.deaf && !self.held) || self.end_at.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = bytes.len().min(self.capacity - self.buffered);
        if n == 0 && !bytes.is_empty() {
            self.writer = Some(waker.clone());
            return Poll::Pending;
        }
        self.last_at = self.last_at.max(at);
        self.segments.push_back(Segment {
            at: self.last_at,
            bytes: bytes.get(..n).unwrap_or_default().into(),
            taken: 0,
        });
        self.buffered += n;
        self.wake_reader();
        Poll::Ready(Ok(n))
    }

    /// The writer closes; the reader learns it at `at` or later.
    pub(super) fn close(&mut self, at: Duration) {
        if self.end_at.is_none() {
            self.last_at = self.last_at.max(at);
            self.end_at = Some(self.last_at);
            self.wake_reader();
        }
    }

    /// The reader is gone: writing fails.
    pub(super) fn deafen(&mut self) {
        self.deaf = true;
        self.wake_both();
    }

    /// Both ends fail from now on.
    pub(super) fn reset(&mut self) {
        self.reset = true;
        self.segments.clear();
        self.buffered = 0;
        self.wake_both();
    }

    /// Cuts or heals. What was held arrives at `at` at the earliest.
    pub(super) fn hold(&mut self, held: bool, at: Duration) {
        self.held = held;
        if !held {
            for segment in &mut self.segments {
                segment.at = segment.at.max(at);
            }
            self.end_at = self.end_at.map(|end| end.max(at));
            self.last_at = self.last_at.max(at);
            self.wake_reader();
        }
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_both(&mut self) {
        self.wake_reader();
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}
