//! One run: form a cluster, work and break, mend, read everything, judge.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use seriatim_proto::v1;
use seriatim_runtime::{clock, task};

use super::{
    client::{Client, TOPIC},
    draw::{self, Setting},
    machines::Machines,
    members,
    nemesis::{Event, Nemesis},
    operator,
    rpc::{Answer, Call, Switchboard},
    schedule::Schedule,
    workload,
    world::World,
};
use crate::{
    check::{Finding, check},
    entropy,
    history::FaultPhase,
    seen::History,
};

/// Most virtual time for a step that must succeed without faults.
const PATIENCE: Duration = Duration::from_secs(60);

/// The topic's: small segments, sealed after five seconds, so that trims drop some.
const SETTINGS: [(&str, &str); 2] = [("segment.bytes", "1048576"), ("retention.ms", "40000")];

/// Members of the consumer group that live at the same time.
const SEATS: usize = 3;

/// How a run is made up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes.
    pub nodes: u64,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Whether an operator moves replicas meanwhile.
    pub operator: bool,
    /// Virtual time in which faults begin.
    pub faults_for: Duration,
    /// Bound on recovery, from the end of the last fault.
    pub recovery_max: Duration,
    /// A planted bug: disks answer a sync and do nothing.
    pub lying_disks: bool,
    /// A planted bug: producer sessions are ignored.
    pub forgets_producers: bool,
    /// What is broken; drawn from the seed if absent.
    pub schedule: Option<Schedule>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            partitions: 2,
            operator: false,
            faults_for: Duration::from_secs(20),
            recovery_max: Duration::from_secs(15),
            lying_disks: false,
            forgets_producers: false,
            schedule: None,
        }
    }
}

impl Options {
    /// The same, with what only some runs have: every second seed has a fourth node, and an operator.
    #[must_use]
    pub fn of_seed(&self, seed: u64) -> Self {
        let operator = seed % 2 == 1;
        Self {
            nodes: self.nodes + u64::from(operator),
            operator,
            ..self.clone()
        }
    }

    /// What is broken in a run of this seed.
    pub fn schedule_of(&self, seed: u64) -> Schedule {
        let setting = Setting {
            nodes: self.nodes,
            partitions: self.partitions,
            lasts: self.faults_for,
        };
        let given = self.schedule.clone();
        given.unwrap_or_else(|| draw::draw(seed, setting))
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// What happened.
    pub history: History,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Virtual time.
    pub took: Duration,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.findings.iter().all(Finding::holds)
    }
}

/// Runs one seed, on a thread of its own whose random bytes all follow from it.
pub fn run(seed: u64, options: &Options) -> io::Result<Verdict> {
    let options = options.clone();
    let thread = thread::Builder::new().name(format!("seed-{seed}"));
    let running = thread.spawn(move || {
        entropy::seed(seed);
        run_here(seed, &options)
    })?;
    match running.join() {
        Ok(verdict) => verdict,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn run_here(seed: u64, options: &Options) -> io::Result<Verdict> {
    let mut run = Run::new(seed, options.clone());
    if run.form()? {
        run.work()?;
    } else {
        run.note("the cluster did not form in time");
    }
    let took = run.world.now();
    let history = Arc::clone(&run.history);
    drop(run);
    let history = std::mem::take(&mut *history.lock());
    Ok(Verdict {
        seed,
        findings: check(&history, options.recovery_max),
        history,
        took,
    })
}

struct Run {
    options: Options,
    world: World,
    machines: Machines,
    nemesis: Nemesis,
    from_birth: bool,
    switchboard: Switchboard,
    history: Arc<Mutex<History>>,
    crews: usize,
}

/// Tasks on a client host of their own.
struct Crew {
    busy: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    fn done(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }
}

type Job = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Run {
    fn new(seed: u64, options: Options) -> Self {
        let world = World::new(seed);
        let switchboard = Switchboard::default();
        let machines = Machines::new(
            options.nodes,
            switchboard.clone(),
            options.lying_disks,
            options.forgets_producers,
        );
        let schedule = options.schedule_of(seed);
        Self {
            options,
            world,
            machines,
            from_birth: schedule.from_birth,
            nemesis: Nemesis::new(schedule),
            switchboard,
            history: Arc::default(),
            crews: 0,
        }
    }

    fn note(&self, what: &str) {
        self.history.lock().impossible.push(what.to_owned());
    }

    /// Starts jobs that share a client.
    fn crew(&mut self, jobs: impl FnOnce(&Client) -> Vec<Job>) -> io::Result<Crew> {
        let stop = Arc::new(AtomicBool::new(false));
        let client = Client {
            rpc: self.switchboard.clone(),
            history: Arc::clone(&self.history),
            stop: Arc::clone(&stop),
            nodes: self.options.nodes,
            partitions: self.options.partitions,
        };
        let jobs = jobs(&client);
        let busy = Arc::new(AtomicUsize::new(jobs.len()));
        let left = Arc::clone(&busy);
        self.crews += 1;
        self.world.boot(&format!("c{}", self.crews), async move {
            for job in jobs {
                let left = Arc::clone(&left);
                let _job = task::spawn("client", async move {
                    job.await;
                    let _before = left.fetch_sub(1, Ordering::Relaxed);
                });
            }
        })?;
        Ok(Crew { busy, stop })
    }

    fn form(&mut self) -> io::Result<bool> {
        self.machines.boot_all(&mut self.world)?;
        let partitions = self.options.partitions;
        let crew = self.crew(|client| vec![Box::pin(create_topic(client.clone(), partitions))])?;
        if !self.from_birth {
            return Ok(self.world.run_until(PATIENCE, || crew.done()));
        }
        self.nemesis.begin(self.world.now());
        let deadline = self.world.now() + self.options.faults_for + PATIENCE;
        while !crew.done() && self.world.now() < deadline {
            self.act()?;
            self.world.step();
        }
        Ok(crew.done())
    }

    /// Breaks and mends what is due.
    fn act(&mut self) -> io::Result<()> {
        let events = self.nemesis.act(&mut self.world, &self.machines)?;
        self.tell(events);
        Ok(())
    }

    fn tell(&self, events: Vec<Event>) {
        let now = self.world.now();
        let events = events.into_iter();
        let begun = events.filter(|event| event.phase != FaultPhase::End);
        let mut history = self.history.lock();
        history
            .faults
            .extend(begun.map(|event| (now, event.detail)));
    }

    fn work(&mut self) -> io::Result<()> {
        let workers = self.crew(workers)?;
        if self.options.operator {
            let operator = self.crew(|client| vec![Box::pin(operator::moves(client.clone()))])?;
            self.faults()?;
            operator.stop.store(true, Ordering::Relaxed);
        } else {
            self.faults()?;
        }
        let healed = self.world.now();
        let probes = self.crew(|client| {
            let all = 0..client.partitions;
            let mut jobs: Vec<Job> = all
                .map(|p| -> Job { Box::pin(workload::probe(client.clone(), 90, p)) })
                .collect();
            jobs.push(Box::pin(members::progress(client.clone())));
            jobs
        })?;
        if self.world.run_until(PATIENCE, || probes.done()) {
            self.history.lock().recovered_after = Some(self.world.now() - healed);
        }
        workers.stop.store(true, Ordering::Relaxed);
        probes.stop.store(true, Ordering::Relaxed);
        if !self
            .world
            .run_until(PATIENCE, || workers.done() && probes.done())
        {
            self.note("clients did not end");
        }
        self.read_finals()
    }

    fn read_finals(&mut self) -> io::Result<()> {
        let readers = self.crew(|client| {
            let all = 0..client.partitions;
            let mut jobs: Vec<Job> = all
                .map(|p| -> Job { Box::pin(workload::read_all(client.clone(), p)) })
                .collect();
            jobs.push(Box::pin(members::settle(client.clone())));
            jobs
        })?;
        if !self.world.run_until(PATIENCE, || readers.done()) {
            self.note("a partition could not be read to its end");
        }
        let ranges: BTreeMap<i32, Range<i64>> = {
            let history = self.history.lock();
            let finals = history.finals.iter().map(|(&partition, log)| {
                let start = history.start(partition);
                let end = log.last().map_or(start, |&(offset, _)| offset + 1);
                (partition, start..end)
            });
            finals.collect()
        };
        let comparers = self.crew(|client| {
            let all = ranges.into_iter();
            all.map(|(p, range)| -> Job { Box::pin(operator::compare(client.clone(), p, range)) })
                .collect()
        })?;
        if !self.world.run_until(PATIENCE, || comparers.done()) {
            self.note("a replica did not reach the end of its partition");
        }
        Ok(())
    }

    fn faults(&mut self) -> io::Result<()> {
        let begin = self.world.now();
        if !self.from_birth {
            self.nemesis.begin(begin);
        }
        while !self.nemesis.is_over() || self.world.now() < begin + self.options.faults_for {
            self.act()?;
            self.world.step();
        }
        let events = self.nemesis.finish(&mut self.world, &self.machines)?;
        self.tell(events);
        Ok(())
    }
}

fn workers(client: &Client) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for partition in 0..client.partitions {
        for (producer, pause) in [(1, 20), (2, 100), (3, 300)] {
            let pause = Duration::from_millis(pause);
            let job = workload::idempotent(client.clone(), producer, partition, pause);
            jobs.push(Box::pin(job));
        }
        let pause = Duration::from_secs(2);
        jobs.push(Box::pin(workload::trim(client.clone(), partition, pause)));
        let pause = Duration::from_millis(150);
        jobs.push(Box::pin(workload::conditional(
            client.clone(),
            50,
            partition,
            pause,
        )));
    }
    for _ in 0..SEATS {
        jobs.push(Box::pin(members::seat(client.clone())));
    }
    let pause = Duration::from_millis(400);
    jobs.push(Box::pin(members::watch(client.clone(), pause)));
    for reader in 1..=3 {
        let pause = Duration::from_millis(50);
        jobs.push(Box::pin(workload::consume(client.clone(), reader, pause)));
    }
    jobs
}

async fn create_topic(client: Client, partitions: i32) {
    loop {
        let request = v1::CreateTopicRequest {
            name: TOPIC.to_owned(),
            partitions,
            replication_factor: 3,
            settings: SETTINGS
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            wait_for_leaders: true,
            timeout_ms: 10_000,
            ..v1::CreateTopicRequest::default()
        };
        let node = client.any_node();
        let call = Call::CreateTopic(request);
        let answer = client.rpc.call(node, call, Duration::from_secs(12)).await;
        match answer {
            Ok(Answer::Created) => return,
            Ok(Answer::Failed(e)) if e.code() == v1::ErrorCode::TopicExists => return,
            Ok(_) | Err(_) => clock::sleep(Duration::from_millis(200)).await,
        }
    }
}
