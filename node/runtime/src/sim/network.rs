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
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    options: LinkOptions,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: SmallRng,
    /// From, to: nothing travels.
    cut: BTreeSet<(String, String)>,
    /// Hosts without power: they answer nothing, not even with a refusal.
    dark: BTreeSet<String>,
    listeners: BTreeMap<String, Weak<Mutex<Backlog>>>,
    connections: Vec<Connection>,
    next_port: u32,
}

#[derive(Debug)]
struct Connection {
    from: String,
    to: String,
    there: Weak<Mutex<Pipe>>,
    back: Weak<Mutex<Pipe>>,
}

impl Connection {
    fn touches(&self, host: &str) -> bool {
        self.from == host || self.to == host
    }

    fn alive(&self) -> bool {
        self.there.strong_count() + self.back.strong_count() > 0
    }

    fn reset(&self) {
        for pipe in [&self.there, &self.back] {
            if let Some(pipe) = pipe.upgrade() {
                pipe.lock().reset();
            }
        }
    }
}

#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<(SimStream, String)>,
    acceptor: Option<Waker>,
}

impl State {
    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.dark.contains(from)
            || self.dark.contains(to)
            || self.cut.contains(&(from.to_owned(), to.to_owned()))
    }

    /// Holds or releases every pipe as `cut` and `dark` say now.
    fn refresh(&mut self, at: Duration) {
        self.connections.retain(Connection::alive);
        for c in &self.connections {
            for (pipe, from, to) in [(&c.there, &c.from, &c.to), (&c.back, &c.to, &c.from)] {
                let held = self.is_cut(from, to);
                if let Some(pipe) = pipe.upgrade() {
                    let mut pipe = pipe.lock();
                    if pipe.held != held {
                        pipe.hold(held, at);
                    }
                }
            }
        }
    }
}

impl Shared {
    /// When `bytes` sent now arrive.
    pub(super) fn arrival(&self, bytes: usize) -> Duration {
        let jitter = u64::try_from(self.options.jitter.as_micros()).unwrap_or(u64::MAX);
        let jitter = self.state.lock().rng.random_range(0..=jitter);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let sending = bytes.saturating_mul(1_000_000) / self.options.bytes_per_s.max(1);
        clock::time() + self.options.latency_min + Duration::from_micros(jitter + sending)
    }
}

impl SimNet {
    /// A network whose latencies follow from `seed`.
    pub fn new(seed: u64, options: LinkOptions) -> Self {
        let state = State {
            rng: SmallRng::seed_from_u64(seed),
            cut: BTreeSet::new(),
            dark: BTreeSet::new(),
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

    /// Nothing travels from `from` to `to` any more; connections stall and do not break.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        let mut state = self.shared.state.lock();
        let _new = state.cut.insert((from.to_owned(), to.to_owned()));
        state.refresh(Duration::ZERO);
    }

    /// Nothing travels between the two hosts any more.
    pub fn cut(&self, a: &str, b: &str) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Ends every cut. What was under way arrives then.
    pub fn heal(&self) {
        let at = self.shared.arrival(0);
        let mut state = self.shared.state.lock();
        state.cut.clear();
        state.refresh(at);
    }

    /// Breaks every connection between the two hosts; both ends get an error.
    pub fn reset(&self, a: &str, b: &str) {
        let state = self.shared.state.lock();
        for c in &state.connections {
            if c.touches(a) && c.touches(b) {
                c.reset();
            }
        }
    }

    /// The host loses power: its peers hear nothing more from it, no refusal and no reset.
    pub fn power_off(&self, host: &str) {
        let mut state = self.shared.state.lock();
        let _new = state.dark.insert(host.to_owned());
        state.refresh(Duration::ZERO);
    }

    /// The host is back: the connections it had before are broken.
    pub fn power_on(&self, host: &str) {
        let at = self.shared.arrival(0);
        let mut state = self.shared.state.lock();
        if state.dark.remove(host) {
            for c in &state.connections {
                if c.touches(host) {
                    c.reset();
                }
            }
            state.refresh(at);
        }
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
        let mut state = self.shared.state.lock();
        if state.is_cut(&self.name, to) || state.is_cut(to, &self.name) {
            return Ok(Attempt::Silence);
        }
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = state.listeners.get(address).and_then(Weak::upgrade);
        let backlog = listener.ok_or_else(refused)?;
        let mut backlog = backlog.lock();
        if backlog.waiting.len() >= BACKLOG_MAX {
            return Ok(Attempt::Silence);
        }
        let capacity = self.shared.options.buffer_bytes;
        let there = Pipe::new(capacity, false);
        let back = Pipe::new(capacity, false);
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
        if let Some(acceptor) = backlog.acceptor.take() {
            acceptor.wake();
        }
        Ok(Attempt::Connected(stream(&back, &there)))
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
                let at = self.shared.arrival(0);
                crate::clock::sleep_until(clock::instant(at)).await;
                if let Attempt::Connected(stream) = self.attempt(address)? {
                    let at = self.shared.arrival(0);
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
