//! The simulated network itself: hosts, listeners, links and their faults.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{Arc, Weak},
    task::Waker,
    time::Duration,
};

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::{
    clock,
    pipe::{Pipe, SharedPipe},
    quality::Quality,
    stream::SimStream,
};
use crate::net::{Accept, BoxFuture, Listener, Net, Network, Stream};

/// Connections that may wait to be accepted.
const BACKLOG_MAX: usize = 128;

/// How long a connection attempt waits before it tries a silent host again.
const SYN_RETRY: Duration = Duration::from_millis(1000);

/// How links behave.
#[derive(Debug, Clone, Copy)]
pub struct LinkOptions {
    /// Least time from one host to another. With several executors on one thread it must be at
    /// least the step in which they take turns, or a message would arrive in the past.
    pub latency_min: Duration,
    /// Most of what is added to it, evenly spread.
    pub jitter: Duration,
    /// Bytes per second of one connection.
    pub bytes_per_s: u64,
    /// Bytes that one direction of a connection holds before its writer waits.
    pub buffer_bytes: usize,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            latency_min: Duration::from_millis(1),
            jitter: Duration::from_millis(2),
            bytes_per_s: 100 << 20,
            buffer_bytes: 256 << 10,
        }
    }
}

/// A network in memory between named hosts. An address is "host:port".
#[derive(Debug, Clone)]
pub struct SimNet {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    options: LinkOptions,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    rng: SmallRng,
    /// From, to: nothing travels. Each a host, or a kind of hosts ([`kind_of`]).
    pub(super) cut: BTreeSet<(String, String)>,
    /// Hosts without power: they answer nothing, not even with a refusal.
    pub(super) dark: BTreeSet<String>,
    /// Hosts whose links are not as they should be.
    pub(super) qualities: BTreeMap<String, Quality>,
    listeners: BTreeMap<String, Weak<Mutex<Backlog>>>,
    pub(super) connections: Vec<Connection>,
    next_port: u32,
}

#[derive(Debug)]
pub(super) struct Connection {
    from: String,
    to: String,
    there: Weak<Mutex<Pipe>>,
    back: Weak<Mutex<Pipe>>,
}

impl Connection {
    pub(super) fn touches(&self, host: &str) -> bool {
        self.from == host || self.to == host
    }

    fn alive(&self) -> bool {
        self.there.strong_count() + self.back.strong_count() > 0
    }

    /// The pipes out of `host` and into it, if any end still has them.
    pub(super) fn of(&self, host: &str) -> (Option<SharedPipe>, Option<SharedPipe>) {
        let (out, into) = if self.from == host {
            (&self.there, &self.back)
        } else {
            (&self.back, &self.there)
        };
        (out.upgrade(), into.upgrade())
    }
}

#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<(SimStream, String)>,
    acceptor: Option<Waker>,
}

/// A host's name without its number, which stands for all hosts of its kind.
fn kind_of(host: &str) -> &str {
    host.trim_end_matches(|c: char| c.is_ascii_digit())
}

impl State {
    fn is_cut(&self, from: &str, to: &str) -> bool {
        if self.dark.contains(from) || self.dark.contains(to) {
            return true;
        }
        !self.cut.is_empty()
            && [(from, to), (kind_of(from), to), (from, kind_of(to))]
                .iter()
                .any(|(from, to)| self.cut.contains(&((*from).to_owned(), (*to).to_owned())))
    }

    fn quality(&self, from: &str, to: &str) -> Quality {
        let of = |host| self.qualities.get(host).copied().unwrap_or_default();
        of(from).and(of(to))
    }

    /// Brings every pipe to what `cut`, `dark` and `qualities` say now.
    pub(super) fn refresh(&mut self, at: Duration) {
        self.connections.retain(Connection::alive);
        for c in &self.connections {
            let quality = self.quality(&c.from, &c.to);
            for (pipe, from, to) in [(&c.there, &c.from, &c.to), (&c.back, &c.to, &c.from)] {
                let held = self.is_cut(from, to);
                if let Some(pipe) = pipe.upgrade() {
                    let mut pipe = pipe.lock();
                    pipe.set_quality(quality, at);
                    if pipe.held != held {
                        pipe.hold(held, at);
                    }
                }
            }
            // What was held and now reaches a host that knows nothing of it is answered.
            for (sends, receives) in [(&c.there, &c.back), (&c.back, &c.there)] {
                if let (Some(sends), Some(receives)) = (sends.upgrade(), receives.upgrade())
                    && sends.lock().is_refused()
                {
                    sends.lock().break_writer();
                    receives.lock().break_reader(at);
                }
            }
        }
    }
}

impl Shared {
    /// When `bytes` arrive that leave at `left`.
    pub(super) fn arrival(&self, left: Duration, bytes: usize, quality: Quality) -> Duration {
        let jitter = u64::try_from(self.options.jitter.as_micros()).unwrap_or(u64::MAX);
        let (jitter, adds) = {
            let rng = &mut self.state.lock().rng;
            (rng.random_range(0..=jitter), quality.adds(rng))
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let sending = bytes.saturating_mul(1_000_000) / self.options.bytes_per_s.max(1);
        left + self.options.latency_min + Duration::from_micros(jitter + sending) + adds
    }

    /// When a packet arrives that is sent now.
    pub(super) fn soon(&self, quality: Quality) -> Duration {
        self.arrival(clock::time(), 0, quality)
    }

    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl SimNet {
    /// A network whose latencies follow from `seed`.
    pub fn new(seed: u64, options: LinkOptions) -> Self {
        let state = State {
            rng: SmallRng::seed_from_u64(seed),
            cut: BTreeSet::new(),
            dark: BTreeSet::new(),
            qualities: BTreeMap::new(),
            listeners: BTreeMap::new(),
            connections: Vec::new(),
            next_port: 49152,
        };
        Self {
            shared: Arc::new(Shared {
                options,
                state: Mutex::new(state),
            }),
        }
    }

    /// The network as the host `name` uses it.
    pub fn host(&self, name: &str) -> Net {
        Net::simulated(Arc::new(HostNet {
            name: name.to_owned(),
            shared: Arc::clone(&self.shared),
        }))
    }
}

#[derive(Debug)]
struct HostNet {
    name: String,
    shared: Arc<Shared>,
}

/// The host of "host:port".
fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// Where an attempt to connect got.
enum Attempt {
    Connected(SimStream),
    Silence,
}

impl HostNet {
    fn attempt(&self, address: &str) -> io::Result<Attempt> {
        let to = host_of(address);
        // A stream that is dropped needs the network: not before it is unlocked.
        let _ghost;
        let mut state = self.shared.state.lock();
        let quality = state.quality(&self.name, to);
        if state.is_cut(&self.name, to)
            || state.is_cut(to, &self.name)
            || quality.loses(&mut state.rng)
        {
            return Ok(Attempt::Silence);
        }
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = state.listeners.get(address).and_then(Weak::upgrade);
        let backlog = listener.ok_or_else(refused)?;
        let mut backlog = backlog.lock();
        if backlog.waiting.len() >= BACKLOG_MAX {
            return Ok(Attempt::Silence);
        }
        let ours = self.open(&mut state, &mut backlog, to, quality);
        if quality.repeats(&mut state.rng) {
            let ghost = self.open(&mut state, &mut backlog, to, quality);
            ghost.receives.lock().forget_reader();
            ghost.sends.lock().forget_writer();
            _ghost = ghost;
        }
        if let Some(acceptor) = backlog.acceptor.take() {
            acceptor.wake();
        }
        Ok(Attempt::Connected(ours))
    }

    /// Puts a connection before a listener; returns the end of who connects.
    fn open(
        &self,
        state: &mut State,
        backlog: &mut Backlog,
        to: &str,
        quality: Quality,
    ) -> SimStream {
        let capacity = self.shared.options.buffer_bytes;
        let (there, back) = (Pipe::new(capacity, quality), Pipe::new(capacity, quality));
        state.next_port += 1;
        let peer = format!("{}:{}", self.name, state.next_port);
        state.connections.retain(Connection::alive);
        state.connections.push(Connection {
            from: self.name.clone(),
            to: to.to_owned(),
            there: Arc::downgrade(&there),
            back: Arc::downgrade(&back),
        });
        let stream = |receives: &SharedPipe, sends: &SharedPipe| SimStream {
            shared: Arc::clone(&self.shared),
            receives: Arc::clone(receives),
            sends: Arc::clone(sends),
            arrival: None,
        };
        backlog.waiting.push_back((stream(&there, &back), peer));
        stream(&back, &there)
    }
}

impl Network for HostNet {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Listener>> {
        Box::pin(async move {
            let mut state = self.shared.state.lock();
            let host = host_of(address);
            if host != self.name {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            }
            let mut address = address.to_owned();
            if address.ends_with(":0") {
                state.next_port += 1;
                address = format!("{host}:{}", state.next_port);
            }
            let bound = state.listeners.get(&address).and_then(Weak::upgrade);
            if bound.is_some() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let backlog = Arc::new(Mutex::new(Backlog::default()));
            let _old = state
                .listeners
                .insert(address.clone(), Arc::downgrade(&backlog));
            Ok(Listener::simulated(Box::new(SimListener {
                address,
                backlog,
            })))
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            loop {
                let quality = self.shared.lock().quality(&self.name, host_of(address));
                let at = self.shared.soon(quality);
                crate::clock::sleep_until(clock::instant(at)).await;
                if let Attempt::Connected(stream) = self.attempt(address)? {
                    let at = self.shared.soon(quality);
                    crate::clock::sleep_until(clock::instant(at)).await;
                    return Ok(Stream::simulated(Box::new(stream)));
                }
                crate::clock::sleep(SYN_RETRY).await;
            }
        })
    }
}

#[derive(Debug)]
struct SimListener {
    address: String,
    backlog: Arc<Mutex<Backlog>>,
}

impl Accept for SimListener {
    fn local_addr(&self) -> String {
        self.address.clone()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, String)>> {
        Box::pin(std::future::poll_fn(|cx| {
            let mut backlog = self.backlog.lock();
            if let Some((stream, peer)) = backlog.waiting.pop_front() {
                return std::task::Poll::Ready(Ok((Stream::simulated(Box::new(stream)), peer)));
            }
            backlog.acceptor = Some(cx.waker().clone());
            std::task::Poll::Pending
        }))
    }
}
