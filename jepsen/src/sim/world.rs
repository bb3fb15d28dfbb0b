//! Hosts that take turns in one thread, each with its own executor under one virtual time.

use std::{collections::BTreeMap, io, time::Duration};

use seriatim_runtime::{
    clock, rng,
    sim::{self, LinkOptions, SimNet},
    task,
};
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

/// How long a host runs before the next one has its turn. Messages take at least as long, so the
/// order of the turns cannot be seen.
pub const STEP: Duration = Duration::from_millis(1);

/// The wall clock at the beginning of every simulation: 2026-01-01.
const START_MS: i64 = 1_767_225_600_000;

/// Executors of hosts, and the network between them.
#[derive(Debug)]
pub struct World {
    now: Duration,
    net: SimNet,
    hosts: BTreeMap<String, Host>,
    /// By how much the wall clocks of machines are wrong, in milliseconds.
    wrong_clocks: BTreeMap<String, i64>,
}

#[derive(Debug)]
struct Host {
    /// Everything the host runs; dropped, it is as if its process were killed.
    executor: Runtime,
    /// A moment in the executor's clock, and the world's time then.
    origin: (Instant, Duration),
    /// Since when its process is stopped.
    paused: Option<Duration>,
}

impl World {
    /// An empty world. Faults, delays and all that this project draws follow from `seed`. The order in
    /// which tokio wakes several tasks that wait for one value does so only if built with
    /// `--cfg tokio_unstable`, and then about half of all seeds give the same run twice.
    pub fn new(seed: u64) -> Self {
        rng::seed(seed);
        task::simulate(true);
        Self {
            now: Duration::ZERO,
            net: SimNet::new(seed, LinkOptions::default()),
            hosts: BTreeMap::new(),
            wrong_clocks: BTreeMap::new(),
        }
    }

    /// The time since the beginning.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The network.
    pub fn net(&self) -> &SimNet {
        &self.net
    }

    /// Whether the host runs.
    pub fn is_up(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
    }

    /// Starts a host with one program. The host stays up when the program ends.
    pub fn boot<F>(&mut self, host: &str, program: F) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut builder = Builder::new_current_thread();
        let _builder = builder.enable_time().start_paused(true);
        #[cfg(tokio_unstable)]
        let _builder = builder.rng_seed(tokio::runtime::RngSeed::from_bytes(
            &rng::u64().to_be_bytes(),
        ));
        let executor = builder.build()?;
        let now = self.now;
        let wrong_ms = self.wrong_by(host);
        let origin = executor.block_on(async move {
            enter(now, wrong_ms);
            let _program = task::spawn("program", program);
            (Instant::now(), now)
        });
        let host = self.hosts.insert(
            host.to_owned(),
            Host {
                executor,
                origin,
                paused: None,
            },
        );
        drop(host);
        Ok(())
    }

    /// Stops the host's process where it is, or lets it go on. Its clocks go on meanwhile.
    pub fn pause(&mut self, host: &str, paused: bool) {
        let now = self.now;
        if let Some(host) = self.hosts.get_mut(host) {
            host.paused = paused.then_some(now);
        }
    }

    /// From now on the wall clock of the host's machine is wrong by so much, whatever runs on it.
    pub fn set_clock(&mut self, host: &str, wrong_ms: i64) {
        let _before = self.wrong_clocks.insert(host.to_owned(), wrong_ms);
    }

    fn wrong_by(&self, host: &str) -> i64 {
        self.wrong_clocks.get(host).copied().unwrap_or_default()
    }

    /// Ends a host at once: none of its tasks runs again, nothing is flushed.
    pub fn kill(&mut self, host: &str) {
        if let Some(host) = self.hosts.remove(host) {
            let inside = host.executor.enter();
            sim::clock::enter(self.now);
            drop(inside);
            host.executor.shutdown_background();
        }
    }

    /// Every host runs for one [`STEP`].
    pub fn step(&mut self) {
        let until = self.now + STEP;
        for (name, host) in &self.hosts {
            let (instant, time) = host.origin;
            if host.paused.is_some() {
                continue;
            }
            let (now, wrong_ms) = (self.now, self.wrong_by(name));
            host.executor.block_on(async move {
                // What has ended while the process was stopped has all ended now.
                let behind = (instant + (now - time)).saturating_duration_since(Instant::now());
                if !behind.is_zero() {
                    tokio::time::advance(behind).await;
                }
                enter(now, wrong_ms);
                tokio::time::sleep_until(instant + (until - time)).await;
            });
        }
        self.now = until;
    }

    /// Steps until `done` says so; `false` if it does not within `limit`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let deadline = self.now + limit;
        while !done() {
            if self.now >= deadline {
                return false;
            }
            self.step();
        }
        true
    }

    /// Steps for `duration`.
    pub fn run_for(&mut self, duration: Duration) {
        let _never = self.run_until(duration, || false);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for host in self.hosts.keys().cloned().collect::<Vec<_>>() {
            self.kill(&host);
        }
        task::simulate(false);
    }
}

/// Sets the clocks of this thread for the executor that runs now.
fn enter(now: Duration, wrong_ms: i64) {
    let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX / 2);
    clock::simulate_wall_clock(START_MS + now_ms + wrong_ms);
    sim::clock::enter(now);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    type Log = Arc<Mutex<Vec<(Duration, i64, String)>>>;

    fn note(log: &Log, what: &str) {
        let at = sim::clock::time();
        log.lock().push((at, clock::wall_ms(), what.to_owned()));
    }

    /// A server that echoes, a client that counts, the server killed half way.
    fn run(seed: u64) -> Vec<(Duration, i64, String)> {
        let mut world = World::new(seed);
        let log = Log::default();
        let serve = |world: &mut World| {
            let net = world.net().host("server");
            let program = async move {
                let listener = net.listen("server:1").await.unwrap();
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let _echo = task::spawn("echo", async move {
                        let mut byte = [0];
                        while stream.read_exact(&mut byte).await.is_ok() {
                            if stream.write_all(&byte).await.is_err() {
                                break;
                            }
                        }
                    });
                }
            };
            world.boot("server", program).unwrap();
        };
        serve(&mut world);
        let (net, seen) = (world.net().host("client"), Arc::clone(&log));
        let client = async move {
            let mut byte = [0];
            loop {
                let Ok(mut stream) = net.connect("server:1").await else {
                    note(&seen, "refused");
                    clock::sleep(rng::duration_below(Duration::from_millis(50))).await;
                    continue;
                };
                while stream.write_all(&byte).await.is_ok()
                    && stream.read_exact(&mut byte).await.is_ok()
                {
                    note(&seen, "echo");
                    byte[0] += 1;
                }
                note(&seen, "lost");
            }
        };
        world.boot("client", client).unwrap();
        world.run_for(Duration::from_millis(100));
        world.kill("server");
        world.run_for(Duration::from_millis(100));
        serve(&mut world);
        world.run_for(Duration::from_millis(100));
        drop(world);
        Arc::try_unwrap(log).unwrap().into_inner()
    }

    #[test]
    fn sim_a_killed_host_is_gone_and_comes_back() {
        let log = run(5);
        let count = |what: &str| log.iter().filter(|(_, _, w)| w == what).count();
        assert!(count("echo") > 20, "{log:?}");
        assert_eq!(count("lost"), 1, "{log:?}");
        assert!(count("refused") > 1, "{log:?}");
        let (last, wall, what) = log.last().unwrap();
        assert_eq!(what, "echo");
        assert!(*last > Duration::from_millis(280), "{last:?}");
        assert_eq!(*wall, START_MS + i64::try_from(last.as_millis()).unwrap());
        assert!(log.windows(2).all(|w| w[0].0 <= w[1].0), "time ran back");
    }

    #[test]
    fn sim_the_same_seed_gives_the_same_run() {
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
