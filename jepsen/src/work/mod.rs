//! Workloads of the real client library: the same code in the simulator and against real processes.
//!
//! What differs between the two worlds is handed in: how a client connects ([`Work::new`]), and who
//! runs the jobs. Time, chance and tasks come from `seriatim_runtime`, which follows the world.
//!
//! A workload believes nothing that it cannot know. An operation that failed is written down as
//! *failed* only if the client says that it certainly had no effect; the checkers find out whether
//! that was true.

mod actor;
mod cells;
mod conditional;
mod consume;
mod finals;
mod keys;
mod members;
mod produce;
mod read_to;
mod record;
pub mod register;
mod topics;
mod trim;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use seriatim_client::{Client, ClientError, TopicPartition};
use seriatim_runtime::{clock, rng};

pub use self::keys::Keys;
use self::register::{CELLS, LEDGER};
use crate::history::{Recorder, Value};

/// Connects a new client.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Client, ClientError>> + Send + Sync>;

/// Something to be run in a task of its own, to its end.
pub type Job = BoxFuture<'static, ()>;

/// Longest pause of a client that found nobody to talk to.
const RECONNECT: Duration = Duration::from_millis(500);

/// Mean pause between two questions where a group is.
const WATCH: Duration = Duration::from_millis(700);

/// A topic that the workloads use from the beginning to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub topic: String,
    /// Partitions are 0 to below this.
    pub partitions: i32,
}

/// What clients do, and how fast; nothing by default.
#[derive(Debug, Clone, Default)]
pub struct Mix {
    /// The topics.
    pub targets: Vec<Target>,
    /// Replicas of each partition.
    pub replicas: u32,
    /// Settings of the topics, other than the defaults.
    pub settings: BTreeMap<String, String>,
    /// Producers, each of which writes to every topic.
    pub producers: usize,
    /// Mean pause between two records of a producer.
    pub produce_every: Duration,
    /// Consumers, each of which reads every partition.
    pub consumers: usize,
    /// Mean pause of appends that depend on the end of their partition; one such client for each
    /// partition of the first topic.
    pub conditional_every: Duration,
    /// Users of the register, and as many who append to the ledger, all of them with the pause of appends
    /// on condition. Neither exists without them.
    pub cells: usize,
    /// Members of each of two groups, one that commits by itself and one that is told to. They read
    /// the first topic. No groups without them.
    pub members: usize,
    /// Topics that come and go, at a time.
    pub fleeting: usize,
    /// Mean pause between two trims of each partition of the last topic, if it is trimmed.
    pub trim_every: Option<Duration>,
}

impl Mix {
    /// All topics that are there from the beginning to the end.
    fn topics(&self) -> Vec<Target> {
        let cells = Target {
            topic: CELLS.to_owned(),
            partitions: 2,
        };
        let cells = (self.cells > 0).then_some(cells);
        self.targets.iter().cloned().chain(cells).collect()
    }

    /// The partitions that are read in the end. The records of the register are no sends.
    pub fn read_in_the_end(&self) -> Vec<TopicPartition> {
        let ledger = (self.cells > 0).then(|| TopicPartition::new(CELLS, LEDGER));
        places(&self.targets).into_iter().chain(ledger).collect()
    }

    /// What members of groups read.
    fn of_groups(&self) -> Vec<Target> {
        self.targets.iter().take(1).cloned().collect()
    }
}

/// What a workload needs to know and to tell. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Work {
    connect: Connect,
    shared: Arc<Shared>,
}

struct Shared {
    recorder: Recorder,
    stop: AtomicBool,
    calm: AtomicBool,
    keys: Keys,
    next_value: AtomicI64,
    next_label: AtomicI64,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work")
            .field("recorder", &self.shared.recorder)
            .field("keys", &self.shared.keys)
            .finish_non_exhaustive()
    }
}

impl Work {
    /// Workloads that write to `recorder`, name partitions by `keys` and get their clients from
    /// `connect`.
    pub fn new(recorder: Recorder, keys: Keys, connect: Connect) -> Self {
        Self {
            connect,
            shared: Arc::new(Shared {
                recorder,
                stop: AtomicBool::new(false),
                calm: AtomicBool::new(false),
                keys,
                next_value: AtomicI64::new(1),
                next_label: AtomicI64::new(1),
            }),
        }
    }

    /// The same with other clients, such as those of another host.
    #[must_use]
    pub fn elsewhere(&self, connect: Connect) -> Self {
        Self {
            connect,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Creates the topics and the groups; ends when each is there with its leaders.
    pub fn create(&self, mix: &Mix) -> Job {
        let topics = topics::create_all(self.clone(), mix.clone());
        let groups = self.create_groups(mix);
        Box::pin(async move {
            topics.await;
            groups.await;
        })
    }

    /// Creates the groups, where the topics exist.
    pub fn create_groups(&self, mix: &Mix) -> Job {
        if mix.members == 0 {
            return Box::pin(std::future::ready(()));
        }
        Box::pin(members::found(self.clone(), mix.of_groups()))
    }

    /// Producers and conditional writers, and users of the register.
    pub fn writers(&self, mix: &Mix) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        for _ in 0..mix.producers {
            let (targets, pause) = (mix.targets.clone(), mix.produce_every);
            jobs.push(Box::pin(produce::run(self.clone(), targets, pause)));
        }
        if let Some(first) = mix.targets.first() {
            for partition in 0..first.partitions {
                let (topic, pause) = (first.topic.clone(), mix.conditional_every);
                let job = conditional::run(self.clone(), topic, partition, pause);
                jobs.push(Box::pin(job));
            }
        }
        for _ in 0..mix.cells {
            let pause = mix.conditional_every;
            let ledger = conditional::run(self.clone(), CELLS.to_owned(), LEDGER, pause);
            jobs.push(Box::pin(ledger));
            jobs.push(Box::pin(cells::register(self.clone(), pause)));
        }
        jobs
    }

    /// Consumers by assignment.
    pub fn readers(&self, mix: &Mix) -> Vec<Job> {
        let each = |_| -> Job { Box::pin(consume::run(self.clone(), mix.targets.clone())) };
        (0..mix.consumers).map(each).collect()
    }

    /// Topics that come and go, and trims.
    pub fn operators(&self, mix: &Mix) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        for _ in 0..mix.fleeting {
            jobs.push(Box::pin(topics::come_and_go(self.clone(), mix.clone())));
        }
        if let (Some(pause), Some(last)) = (mix.trim_every, mix.targets.last()) {
            for partition in 0..last.partitions {
                let job = trim::run(self.clone(), last.topic.clone(), partition, pause);
                jobs.push(Box::pin(job));
            }
        }
        jobs
    }

    /// Members of two groups, and those who ask where the groups are.
    pub fn members(&self, mix: &Mix) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        if mix.members == 0 {
            return jobs;
        }
        for group in [members::AUTOMATIC, members::MANUAL] {
            for number in 0..mix.members {
                let job = members::seat(self.clone(), group, mix.of_groups(), number);
                jobs.push(Box::pin(job));
            }
            let job = members::watch(self.clone(), group, mix.of_groups(), WATCH);
            jobs.push(Box::pin(job));
        }
        jobs
    }

    /// To be run once nothing is broken any more, while the other jobs still run: ends when every
    /// partition took an append and every group a commit of each partition. Ends early if stopped.
    pub fn recover(&self, mix: &Mix) -> Job {
        Box::pin(finals::recover(self.clone(), mix.clone()))
    }

    /// To be run when all other jobs have ended: reads every partition to its end, and asks where the
    /// groups are.
    pub fn read_all(&self, mix: &Mix) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        for place in mix.read_in_the_end() {
            jobs.push(Box::pin(finals::read(self.clone(), place)));
        }
        if mix.members > 0 {
            jobs.push(Box::pin(members::settle(self.clone(), mix.of_groups())));
        }
        jobs
    }

    /// Jobs finish what they do and end.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Jobs may begin again, such as the last reads.
    pub fn go_on(&self) {
        self.shared.stop.store(false, Ordering::Relaxed);
    }

    /// Whether jobs are to end.
    pub fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Clients do nothing any more that holds up others, such as members of a group that crash: what
    /// takes long from now on is the cluster's doing.
    fn calm_down(&self) {
        self.shared.calm.store(true, Ordering::Relaxed);
    }

    /// Whether clients are to do nothing that holds up others.
    fn is_calm(&self) -> bool {
        self.shared.calm.load(Ordering::Relaxed)
    }

    /// What is written to.
    pub fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    /// How partitions are named.
    pub fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    /// A value that no record has.
    fn value(&self) -> Value {
        self.shared.next_value.fetch_add(1, Ordering::Relaxed)
    }

    /// A number that no other producer or member has.
    fn label(&self) -> i64 {
        self.shared.next_label.fetch_add(1, Ordering::Relaxed)
    }

    /// A client, from whoever answers; `None` if the jobs are to end before.
    async fn client(&self) -> Option<Client> {
        while !self.stopping() {
            match (self.connect)().await {
                Ok(client) => return Some(client),
                Err(error) => tracing::debug!(%error, "no connection yet"),
            }
            self.pause(RECONNECT).await;
        }
        None
    }

    /// A pause of any length up to twice `mean`.
    async fn pause(&self, mean: Duration) {
        clock::sleep(rng::duration_below(mean * 2)).await;
    }
}

/// Every partition of some topics.
fn places(targets: &[Target]) -> Vec<TopicPartition> {
    let of = |target: &Target| {
        let topic = target.topic.clone();
        (0..target.partitions).map(move |p| TopicPartition::new(topic.clone(), p))
    };
    targets.iter().flat_map(of).collect()
}

/// One time in `n`.
fn one_in(n: u64) -> bool {
    rng::below(n) == 0
}

/// Any of some things.
fn any<T>(of: &[T]) -> Option<&T> {
    let count = u64::try_from(of.len()).ok()?;
    of.get(usize::try_from(rng::below(count)).ok()?)
}
