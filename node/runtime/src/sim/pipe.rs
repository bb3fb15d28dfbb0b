//! One direction of a simulated connection.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;

use super::quality::Quality;

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

/// What becomes of bytes that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Far {
    /// The other end reads them.
    Reads,
    /// The other end is gone; its host answers with a reset.
    Forgot,
    /// Nobody reads them and nobody says so.
    Silent,
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
    /// When the reader learns that the connection is broken.
    reader_reset: Option<Duration>,
    /// The writer knows that the connection is broken.
    writer_reset: bool,
    /// The reader is gone; its peer learns it unless the network is cut.
    deaf: bool,
    far: Far,
    /// What the link between the ends is like.
    quality: Quality,
    /// What each byte takes in addition, on this connection alone.
    late: Duration,
    /// When the link has sent all that it took.
    sending_until: Duration,
    /// The network between the ends is cut: nothing arrives until it heals.
    pub(super) held: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A pipe as both its ends and the network hold it.
pub(super) type SharedPipe = Arc<Mutex<Pipe>>;

impl Pipe {
    pub(super) fn new(capacity: usize, quality: Quality) -> SharedPipe {
        Arc::new(Mutex::new(Self {
            segments: VecDeque::new(),
            buffered: 0,
            capacity,
            last_at: Duration::ZERO,
            end_at: None,
            reader_reset: None,
            writer_reset: false,
            deaf: false,
            far: Far::Reads,
            quality,
            late: Duration::ZERO,
            sending_until: Duration::ZERO,
            held: false,
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
        if self.reader_reset.is_some_and(|at| at <= now) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let bytes = self.segments.front().map(|s| s.at).or(self.end_at);
        let bytes = bytes.filter(|_| !self.held);
        if bytes.is_some_and(|at| at <= now) {
            let taken = self.take(now, out);
            if let Some(writer) = self.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(Found::Bytes(taken)));
        }
        self.reader = Some(waker.clone());
        match bytes.into_iter().chain(self.reader_reset).min() {
            Some(at) => Poll::Ready(Ok(Found::Later(at))),
            None => Poll::Pending,
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

    /// What the link between the ends is like.
    pub(super) const fn quality(&self) -> Quality {
        self.quality
    }

    /// The link is like this from now on. What waited until a slow link would carry it arrives at `at`, once
    /// the link is slow no more.
    pub(super) fn set_quality(&mut self, quality: Quality, at: Duration) {
        let was = std::mem::replace(&mut self.quality, quality);
        let mended = was.bytes_per_s.is_some() && quality.bytes_per_s.is_none();
        if !mended || self.is_delayed() {
            return;
        }
        for segment in &mut self.segments {
            segment.at = segment.at.min(at);
        }
        self.end_at = self.end_at.map(|end| end.min(at));
        self.last_at = self.last_at.min(at);
        self.sending_until = Duration::ZERO;
        self.wake_reader();
    }

    /// How much may be sent now.
    pub(super) fn room(&self) -> usize {
        self.capacity - self.buffered
    }

    /// When `bytes` that are sent at `now` have left, at the speed of the link.
    pub(super) fn leaves(&mut self, now: Duration, bytes: usize) -> Duration {
        let Some(speed) = self.quality.bytes_per_s else {
            return now + self.late;
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let sending = Duration::from_micros(bytes.saturating_mul(1_000_000) / speed.max(1));
        self.sending_until = self.sending_until.max(now) + sending;
        self.sending_until + self.late
    }

    /// Sends as much of `bytes` as there is room for, to arrive at `at` or later.
    pub(super) fn write(
        &mut self,
        at: Duration,
        bytes: &[u8],
        waker: &Waker,
    ) -> Poll<io::Result<usize>> {
        if self.writer_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if (self.deaf && !self.held) || self.end_at.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.far == Far::Silent {
            return Poll::Ready(Ok(bytes.len()));
        }
        let n = bytes.len().min(self.room());
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

    /// The writer closes; the reader learns it at `at` or later, unless nobody tells it.
    pub(super) fn close(&mut self, at: Duration) {
        if self.end_at.is_none() && !self.writer_reset {
            self.last_at = self.last_at.max(at);
            self.end_at = Some(self.last_at);
            self.wake_reader();
        }
    }

    /// The reader is gone: writing fails.
    pub(super) fn deafen(&mut self) {
        if self.far == Far::Reads {
            self.deaf = true;
            self.wake_both();
        }
    }

    /// Both ends fail from now on.
    pub(super) fn reset(&mut self) {
        self.break_reader(Duration::ZERO);
        self.break_writer();
        self.segments.clear();
        self.buffered = 0;
    }

    /// The reader learns at `at` that the connection is broken.
    pub(super) fn break_reader(&mut self, at: Duration) {
        self.reader_reset = Some(self.reader_reset.map_or(at, |before| before.min(at)));
        self.wake_reader();
    }

    /// The writer learns that the connection is broken.
    pub(super) fn break_writer(&mut self) {
        self.writer_reset = true;
        self.wake_both();
    }

    /// The reader's host forgets the connection.
    pub(super) fn forget_reader(&mut self) {
        self.far = Far::Forgot;
        self.deaf = false;
        self.break_reader(Duration::ZERO);
    }

    /// The writer's host forgets the connection, and what it had sent with it: the reader hears
    /// nothing more, not even an end.
    pub(super) fn forget_writer(&mut self) {
        self.segments.clear();
        self.buffered = 0;
        self.end_at = None;
        self.break_writer();
    }

    /// Whether something was sent that the other end's host answers with a reset, as far as it gets there.
    pub(super) fn is_refused(&self) -> bool {
        self.far == Far::Forgot && !self.held && self.buffered > 0
    }

    /// Everything sent from now on arrives so much later.
    pub(super) fn delay(&mut self, late: Duration) {
        self.late = late;
    }

    /// Whether [`Pipe::delay`] was called.
    pub(super) fn is_delayed(&self) -> bool {
        !self.late.is_zero()
    }

    /// The writer gives up; what it had sent still arrives, and then the end.
    pub(super) fn abandon_writer(&mut self) {
        self.end_at = Some(self.last_at);
        self.break_writer();
    }

    /// The reader gives up; its peer may send on and learns nothing.
    pub(super) fn abandon_reader(&mut self) {
        self.far = Far::Silent;
        self.deaf = false;
        self.segments.clear();
        self.buffered = 0;
        self.break_reader(Duration::ZERO);
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
