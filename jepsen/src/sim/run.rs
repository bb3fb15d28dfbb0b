//! One run: form a cluster, work and break, mend, read everything, judge.

use std::{
    collections::BTreeMap,
    fmt, io,
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
use seriatim_runtime::{
    clock,
    sim::{
        self,
        trace::{self, Summary},
    },
    task,
};

use super::{
    client::{Client, TOPIC},
    machines::Machines,
    members,
    nemesis::{Fault, Nemesis},
    operator,
    real::Real,
    rpc::{Answer, Call, Switchboard},
    workload,
    world::World,
};
use crate::{
    check::{Finding, check},
    entropy,
    history::{Op, Recorder},
    seen::History,
    work::{Job, Mix, Work},
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
    /// Whether clients of the real library work too, over gRPC.
    pub real: bool,
    /// Virtual time in which faults begin.
    pub faults_for: Duration,
    /// Bound on recovery, from the end of the last fault.
    pub recovery_max: Duration,
    /// A planted bug: disks answer a sync and do nothing.
    pub lying_disks: bool,
    /// A planted bug: producer sessions are ignored.
    pub forgets_producers: bool,
    /// Only this fault, over and over; any if absent.
    pub only: Option<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            partitions: 2,
            operator: false,
            real: false,
            faults_for: Duration::from_secs(20),
            recovery_max: Duration::from_secs(15),
            lying_disks: false,
            forgets_producers: false,
            only: None,
        }
    }
}

impl Options {
    /// The same, with what only some runs have: every second seed has a fourth node, and an operator;
    /// every third one clients of the real library.
    #[must_use]
    pub fn of_seed(&self, seed: u64) -> Self {
        let operator = seed % 2 == 1;
        Self {
            nodes: self.nodes + u64::from(operator),
            operator,
            real: seed % 3 == 2,
            ..self.clone()
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// What happened.
    pub history: History,
    /// What the clients of the real library saw.
    pub ops: Vec<Op>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Virtual time.
    pub took: Duration,
    /// Everything that went over the network and to the disks.
    pub trace: Summary,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.findings.iter().all(Finding::holds)
    }
}

/// Takes the lines of a trace, each an event.
pub type Trace = Box<dyn FnMut(fmt::Arguments<'_>) + Send>;

/// Runs one seed, on a thread of its own whose random bytes all follow from it.
pub fn run(seed: u64, options: &Options, lines: Option<Trace>) -> io::Result<Verdict> {
    let options = options.clone();
    let thread = thread::Builder::new().name(format!("seed-{seed}"));
    let running = thread.spawn(move || {
        entropy::seed(seed);
        trace::begin(lines.map(|lines| lines as trace::Lines));
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
    let ops = run.real.iter().flat_map(|real| real.work.recorder().take());
    let ops = ops.collect();
    drop(run);
    let trace = trace::end().unwrap_or_default();
    let history = std::mem::take(&mut *history.lock());
    Ok(Verdict {
        seed,
        findings: check(&history, options.recovery_max),
        history,
        ops,
        took,
        trace,
    })
}

struct Run {
    options: Options,
    world: World,
    machines: Machines,
    switchboard: Switchboard,
    history: Arc<Mutex<History>>,
    real: Option<Real>,
    crews: usize,
}

/// Tasks on a client host of their own.
#[derive(Default)]
struct Crew {
    busy: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    fn done(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }
}

impl Run {
    fn new(seed: u64, options: Options) -> Self {
        let world = World::new(seed);
        let switchboard = Switchboard::default();
        let machines = Machines::new(
            options.nodes,
            switchboard.clone(),
            options.lying_disks,
            options.forgets_producers,
        )
        .with_grpc(options.real);
        let recorder = Recorder::new(sim::clock::time);
        let real = options.real.then(|| Real::new(recorder, options.nodes));
        Self {
            options,
            world,
            machines,
            switchboard,
            history: Arc::default(),
            real,
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
        self.crews += 1;
        let busy = self.start(&format!("c{}", self.crews), jobs)?;
        Ok(Crew { busy, stop })
    }

    /// Starts jobs of real clients on a host of their own. They are stopped all together.
    fn real_crew(&mut self, jobs: impl FnOnce(&Work, &Mix) -> Vec<Job>) -> io::Result<Crew> {
        let Some(real) = &self.real else {
            return Ok(Crew::default());
        };
        self.crews += 1;
        let host = format!("c{}", self.crews);
        let jobs = jobs(&real.at(self.world.net(), &host), &real.mix);
        let busy = self.start(&host, jobs)?;
        // The client library knows nothing of the seams.
        self.world.heed_foreign_timers(&host);
        let stop = Arc::default();
        Ok(Crew { busy, stop })
    }

    /// Starts a host with jobs; counts those that have not ended.
    fn start(&mut self, host: &str, jobs: Vec<Job>) -> io::Result<Arc<AtomicUsize>> {
        let busy = Arc::new(AtomicUsize::new(jobs.len()));
        let left = Arc::clone(&busy);
        self.world.boot(host, async move {
            for job in jobs {
                let left = Arc::clone(&left);
                let _job = task::spawn("client", async move {
                    job.await;
                    let _before = left.fetch_sub(1, Ordering::Relaxed);
                });
            }
        })?;
        Ok(busy)
    }

    fn form(&mut self) -> io::Result<bool> {
        self.machines.boot_all(&mut self.world)?;
        let partitions = self.options.partitions;
        let crew = self.crew(|client| vec![Box::pin(create_topic(client.clone(), partitions))])?;
        if self.real.is_none() {
            return Ok(self.world.run_until(PATIENCE, || crew.done()));
        }
        let real = self.real_crew(|work, mix| vec![work.create_topics(mix)])?;
        Ok(self
            .world
            .run_until(PATIENCE, || crew.done() && real.done()))
    }

    fn work(&mut self) -> io::Result<()> {
        let workers = self.crew(workers)?;
        let mut real = Vec::new();
        for jobs in self.real.iter().flat_map(Real::crews).collect::<Vec<_>>() {
            real.push(self.real_crew(jobs)?);
        }
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
        let recovery = self.real_crew(|work, mix| vec![work.recover(mix)])?;
        if self
            .world
            .run_until(PATIENCE, || probes.done() && recovery.done())
        {
            self.history.lock().recovered_after = Some(self.world.now() - healed);
        }
        workers.stop.store(true, Ordering::Relaxed);
        probes.stop.store(true, Ordering::Relaxed);
        self.real.iter().for_each(|real| real.work.stop());
        real.extend([probes, workers, recovery]);
        if !self
            .world
            .run_until(PATIENCE, || real.iter().all(Crew::done))
        {
            self.note("clients did not end");
        }
        self.real.iter().for_each(|real| real.work.go_on());
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
        let real = self.real_crew(Work::read_all)?;
        if !self
            .world
            .run_until(PATIENCE, || readers.done() && real.done())
        {
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
        let mut nemesis = Nemesis::new(self.options.nodes);
        let end = self.world.now() + self.options.faults_for;
        let mut next = self.world.now() + Duration::from_secs(1);
        let mut open: Vec<(Duration, Fault)> = Vec::new();
        while self.world.now() < end {
            let now = self.world.now();
            let (due, rest) = open.into_iter().partition(|(until, _)| *until <= now);
            open = rest;
            let due: Vec<(Duration, Fault)> = due;
            for (_, fault) in due {
                self.machines.mend(&mut self.world, fault)?;
            }
            if next <= now {
                let mut strike = nemesis.strike();
                strike.fault = self.options.only.unwrap_or(strike.fault);
                let what = self.machines.break_by(&mut self.world, strike.fault);
                tracing::info!(at = ?now, what, "fault");
                self.history.lock().faults.push((now, what));
                open.push((now + strike.lasts, strike.fault));
                next = now + strike.then;
            }
            self.world.step();
        }
        for (_, fault) in open {
            self.machines.mend(&mut self.world, fault)?;
        }
        self.machines.boot_all(&mut self.world)
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
