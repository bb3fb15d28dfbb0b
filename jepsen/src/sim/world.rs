//! Hosts that take turns in one thread, each with its own executor under one virtual time.
//!
//! Time goes on in whole milliseconds, from one at which some host has something to do to the next such
//! one: a timer of its own ends, or another host has woken one of its tasks. A message takes at least
//! [`STEP`], so the order of the turns within one millisecond cannot be seen.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use seriatim_runtime::{
    clock, rng,
    sim::{self, LinkOptions, SimNet, clock::Speed, trace, wakes::Wakes},
    task,
};
use tokio::runtime::{Builder, Runtime, RuntimeMetrics};

use crate::entropy;

/// The grain of time. Messages take at least as long.
pub const STEP: Duration = Duration::from_millis(1);

/// Most of what one [`World::step`] goes on, so that whoever steps can do something in time.
const STRIDE: Duration = Duration::from_millis(5);

/// How long a host may go without a turn. The ends of timers that were not made through the seams
/// (by libraries that use tokio alone) are not known: they are this late at most.
const UNSEEN: Duration = Duration::from_millis(20);

/// The same for a host that lives by such timers: late as on a busy machine.
const FOREIGN: Duration = Duration::from_millis(4);

/// The wall clock at the beginning of every simulation: 2026-01-01.
pub(crate) const START_MS: i64 = 1_767_225_600_000;

/// Executors of hosts, and the network between them.
#[derive(Debug)]
pub struct World {
    now: Duration,
    net: SimNet,
    hosts: BTreeMap<String, Host>,
    /// Clocks of machines that are wrong; whatever runs on them sees them.
    wrong_clocks: BTreeMap<String, WrongClock>,
}

/// What is wrong with a machine's clock.
#[derive(Debug, Clone, Copy)]
struct WrongClock {
    speed: Speed,
    /// How much later than it is the wall clock says, in nanoseconds.
    ahead_ns: i128,
}

impl Default for WrongClock {
    fn default() -> Self {
        Self {
            speed: Speed::RIGHT,
            ahead_ns: 0,
        }
    }
}

#[derive(Debug)]
struct Host {
    /// Everything the host runs; dropped, it is as if its process were killed.
    executor: Runtime,
    metrics: RuntimeMetrics,
    idle: Arc<Idle>,
    /// The world's time that the executor's clock shows; never more than the world's.
    shown: Duration,
    /// When its timers end, those made through the seams.
    wakes: Wakes,
    /// How long it may go without a turn.
    unseen: Duration,
    /// Its process is stopped.
    paused: bool,
}

/// Ends a turn once no task of an executor can go on: tokio says so just before it would wait.
#[derive(Debug, Default)]
struct Idle {
    is: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Idle {
    fn set(&self) {
        self.is.store(true, Ordering::Relaxed);
        if let Some(waker) = self.waiting.lock().take() {
            waker.wake();
        }
    }

    async fn wait(&self) {
        self.is.store(false, Ordering::Relaxed);
        std::future::poll_fn(|cx| {
            if self.is.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            *self.waiting.lock() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Host {
    fn new(now: Duration) -> io::Result<Self> {
        let idle = Arc::new(Idle::default());
        let parks = Arc::clone(&idle);
        let executor = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(move || parks.set())
            .build()?;
        Ok(Self {
            metrics: executor.metrics(),
            executor,
            idle,
            shown: now,
            wakes: Wakes::default(),
            unseen: UNSEEN,
            paused: false,
        })
    }

    /// When it is to have its next turn, after a turn of all hosts at `now`.
    fn next(&self, now: Duration) -> Option<Duration> {
        if self.paused {
            return None;
        }
        if self.metrics.global_queue_depth() > 0 {
            return Some(now + STEP);
        }
        let unseen = self.shown + self.unseen;
        let first = self.wakes.first().map_or(unseen, |first| first.min(unseen));
        Some(first.max(now + STEP))
    }

    fn is_due(&self, now: Duration) -> bool {
        let woken = || self.metrics.global_queue_depth() > 0;
        let ended = || self.wakes.first().is_some_and(|first| first <= now);
        let unseen = || self.shown + self.unseen <= now;
        !self.paused && (ended() || woken() || unseen())
    }

    /// Runs `first` and whatever can go on at `now`.
    fn turn(&mut self, name: &str, now: Duration, clock: &mut WrongClock, first: impl FnOnce()) {
        let (behind, shown) = (now.saturating_sub(self.shown), self.shown);
        let (passes, was) = (clock.speed.shown(behind), *clock);
        clock.ahead_ns += nanos(passes) - nanos(behind);
        self.shown = now;
        std::mem::take(&mut self.wakes).enter();
        let idle = Arc::clone(&self.idle);
        self.executor.block_on(async move {
            enter(shown, was);
            if !passes.is_zero() {
                tokio::time::advance(passes).await;
            }
            trace::turn(name);
            first();
            idle.wait().await;
        });
        self.wakes = Wakes::leave();
        self.wakes.pass(now);
        sim::clock::stand_still(now);
    }
}

impl World {
    /// An empty world. Everything that happens in it follows from `seed`, if it is made on a thread
    /// whose random bytes do too (see [`crate::entropy`]) in a process that did nothing before.
    pub fn new(seed: u64) -> Self {
        rng::seed(seed);
        task::simulate(true);
        entropy::show(Duration::ZERO);
        sim::clock::stand_still(Duration::ZERO);
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
    pub fn boot<F>(&mut self, name: &str, program: F) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.kill(name);
        let mut host = Host::new(self.now)?;
        let clock = self.wrong_clocks.entry(name.to_owned()).or_default();
        host.turn(name, self.now, clock, move || {
            let _program = task::spawn("program", program);
        });
        let _none = self.hosts.insert(name.to_owned(), host);
        Ok(())
    }

    /// Gives the host a turn at least every 4 ms: its timers are not all made through the seams.
    pub fn heed_foreign_timers(&mut self, host: &str) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.unseen = FOREIGN;
        }
    }

    /// Stops the host's process where it is, or lets it go on. Its clock goes on meanwhile.
    pub fn pause(&mut self, host: &str, paused: bool) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.paused = paused;
        }
    }

    /// From now on the wall clock of the host's machine is wrong by so much.
    pub fn set_clock(&mut self, host: &str, wrong_ms: i64) {
        let clock = self.wrong_clocks.entry(host.to_owned()).or_default();
        clock.ahead_ns = i128::from(wrong_ms) * 1_000_000;
    }

    /// From now on all clocks of the host's machine run at this speed, and with them the time that its
    /// timers take. When it is right again, so is the wall clock.
    pub fn set_speed(&mut self, host: &str, speed: Speed) {
        let clock = self.wrong_clocks.entry(host.to_owned()).or_default();
        clock.speed = speed;
        if speed == Speed::RIGHT {
            clock.ahead_ns = 0;
        }
    }

    /// Ends a host at once: none of its tasks runs again, nothing is flushed.
    pub fn kill(&mut self, host: &str) {
        if let Some(host) = self.hosts.remove(host) {
            sim::clock::stand_still(self.now);
            host.executor.shutdown_background();
        }
    }

    /// Goes on to the next moment at which a host has something to do, or a little less far.
    pub fn step(&mut self) {
        self.step_until(self.now + STRIDE);
    }

    /// Goes on to the next moment at which a host has something to do, at most to `limit` but at
    /// least one [`STEP`], and lets every host do it.
    pub fn step_until(&mut self, limit: Duration) {
        let next = self.hosts.values().filter_map(|host| host.next(self.now));
        let next = next.min().unwrap_or(limit).min(limit);
        self.now = next.max(self.now + STEP);
        entropy::show(self.now);
        sim::clock::stand_still(self.now);
        for (name, host) in &mut self.hosts {
            if host.is_due(self.now) {
                let clock = self.wrong_clocks.get_mut(name);
                let clock = clock.expect("a host that was booted has a clock");
                host.turn(name, self.now, clock, || {});
            }
        }
    }

    /// Steps until `done` says so; `false` if it does not within `limit`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let deadline = self.now + limit;
        while !done() {
            if self.now >= deadline {
                return false;
            }
            self.step_until(deadline);
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
fn enter(now: Duration, wrong: WrongClock) {
    let now_ms = (nanos(now) + wrong.ahead_ns).div_euclid(1_000_000);
    clock::simulate_wall_clock(START_MS + i64::try_from(now_ms).unwrap_or(i64::MAX / 2));
    sim::clock::enter_at(now, wrong.speed);
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX / 4)
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

    fn times(log: &Log) -> Vec<u128> {
        log.lock().iter().map(|(at, ..)| at.as_millis()).collect()
    }

    #[test]
    fn sim_timers_end_when_they_should() {
        let mut world = World::new(1);
        let log = Log::default();
        let seen = Arc::clone(&log);
        let program = async move {
            for pause_ms in [3, 250, 1, 40] {
                clock::sleep(Duration::from_millis(pause_ms)).await;
                note(&seen, "woke");
            }
            let never = clock::timeout(Duration::from_millis(6), std::future::pending::<()>());
            assert!(never.await.is_err());
            note(&seen, "gave up");
        };
        world.boot("host", program).unwrap();
        world.run_for(Duration::from_secs(1));
        assert_eq!(times(&log), [3, 253, 254, 294, 300]);
        assert_eq!(world.now(), Duration::from_secs(1));
    }

    #[test]
    fn sim_timers_beside_the_seams_are_later_unless_their_host_heeds_them() {
        for (heeds, late) in [(true, FOREIGN.as_millis()), (false, UNSEEN.as_millis())] {
            let mut world = World::new(1);
            let log = Log::default();
            let seen = Arc::clone(&log);
            let program = async move {
                tokio::time::sleep(Duration::from_millis(7)).await;
                note(&seen, "woke");
            };
            world.boot("host", program).unwrap();
            if heeds {
                world.heed_foreign_timers("host");
            }
            world.run_for(Duration::from_secs(1));
            let at = times(&log)[0];
            assert!((7..=7 + late).contains(&at), "{at} ms");
        }
    }

    #[test]
    fn sim_a_paused_host_does_nothing_and_goes_on_late() {
        let mut world = World::new(1);
        let log = Log::default();
        let seen = Arc::clone(&log);
        let program = async move {
            loop {
                clock::sleep(Duration::from_millis(10)).await;
                note(&seen, "tick");
            }
        };
        world.boot("host", program).unwrap();
        world.run_for(Duration::from_millis(50));
        world.pause("host", true);
        world.run_for(Duration::from_millis(55));
        assert_eq!(times(&log), [10, 20, 30, 40, 50]);
        world.pause("host", false);
        world.run_for(Duration::from_millis(20));
        assert_eq!(times(&log)[5..], [106, 116]);
    }
}
