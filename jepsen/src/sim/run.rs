//! One run: form a cluster, work and break, mend, read everything, judge.

use std::{
    fmt, io,
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
    clock, rng,
    sim::{
        self,
        trace::{self, Summary},
    },
    task,
};

use super::{
    cells,
    client::{Board, Client, TOPIC, key},
    draw::{self, Setting},
    machines::Machines,
    members,
    nemesis::{Event, Nemesis},
    operator, pipeline,
    real::Real,
    rpc::{Answer, Call, Switchboard},
    schedule::Schedule,
    workload,
    world::World,
};
use crate::{
    check::{self, check},
    entropy,
    history::{Action, Header, History, Recorder, Workload},
    work::{
        Job, Mix, Work,
        register::{CELLS, LEDGER, REGISTER},
    },
};

/// Most virtual time for a step that must succeed without faults.
const PATIENCE: Duration = Duration::from_secs(60);

/// The topics': small segments, so that trims drop some.
const SETTINGS: [(&str, &str); 1] = [("segment.bytes", "1048576")];

/// Those of a topic with retention: they are sealed after five seconds, too.
const RETENTION: (&str, &str) = ("retention.ms", "40000");

/// Members of the consumer group that live at the same time, or one more: with as many as partitions each
/// that comes takes from another, and one more has nothing until another goes.
const SEATS: u64 = 2;

/// How a run is made up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes.
    pub nodes: u64,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Shards of the consumer groups: each is a Raft group that costs work.
    pub shards: u32,
    /// Whether old records go by themselves.
    pub retention: bool,
    /// Whether an operator moves replicas meanwhile.
    pub operator: bool,
    /// When the last node joins the others, from the start of the load: it is not there before, and what
    /// the operator moves are replicas of the consumer groups as well. All form the cluster if absent.
    pub joins_after: Option<Duration>,
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
    /// What is broken; drawn from the seed if absent.
    pub schedule: Option<Schedule>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            partitions: 2,
            shards: 2,
            retention: false,
            operator: false,
            joins_after: None,
            real: false,
            faults_for: Duration::from_secs(20),
            recovery_max: Duration::from_secs(10),
            lying_disks: false,
            forgets_producers: false,
            schedule: None,
        }
    }
}

impl Options {
    /// The same, with what only some runs have: every second seed has a fourth node, some a fifth, and
    /// an operator; in some the fourth joins later; every third one has clients of the real library; some
    /// have one partition, some as many shards of the consumer groups as a cluster has by default.
    #[must_use]
    pub fn of_seed(&self, seed: u64) -> Self {
        let operator = seed % 2 == 1;
        Self {
            nodes: match seed % 16 {
                5 | 8 => self.nodes + 2,
                _ => self.nodes + u64::from(operator),
            },
            partitions: if seed % 5 == 4 { 1 } else { self.partitions },
            retention: seed % 4 == 2 || seed % 8 == 3,
            shards: if seed % 16 == 7 { 8 } else { self.shards },
            operator,
            joins_after: (seed % 16 == 9).then(|| Duration::from_secs(2 + seed / 16 % 16)),
            real: seed % 3 == 2,
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
    pub verdict: check::Verdict,
    /// Virtual time.
    pub took: Duration,
    /// Everything that went over the network and to the disks.
    pub trace: Summary,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.verdict.holds
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
    let recorder = run.recorder.clone();
    let header = run.header(seed);
    run.machines.views().clear();
    drop(run);
    let trace = trace::end().unwrap_or_default();
    let history = History {
        header,
        ops: recorder.take(),
    };
    Ok(Verdict {
        seed,
        verdict: check(&history),
        history,
        took,
        trace,
    })
}

struct Run {
    options: Options,
    world: World,
    machines: Machines,
    nemesis: Nemesis,
    from_birth: bool,
    switchboard: Switchboard,
    recorder: Recorder,
    board: Arc<Mutex<Board>>,
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
        .with_founders(options.nodes - u64::from(options.joins_after.is_some()))
        .with_grpc(options.real)
        .with_shards(options.shards);
        let recorder = Recorder::new(sim::clock::time);
        let real = options
            .real
            .then(|| Real::new(recorder.clone(), options.nodes));
        let schedule = options.schedule_of(seed);
        Self {
            options,
            world,
            machines,
            from_birth: schedule.from_birth,
            nemesis: Nemesis::new(schedule),
            switchboard,
            recorder,
            board: Arc::default(),
            real,
            crews: 0,
        }
    }

    /// What the history is about.
    fn header(&self, seed: u64) -> Header {
        let options = &self.options;
        let events = (0..options.partitions).map(|p| (TOPIC, p));
        let cells = [(CELLS, REGISTER), (CELLS, LEDGER)];
        let keys = events
            .chain(cells)
            .map(|(topic, p)| (key(topic, p), format!("{topic}-{p}")));
        let real = self.real.iter().flat_map(|real| real.work.keys().names());
        let recovery_max_ms = options.recovery_max.as_millis();
        Header {
            world: "sim".to_owned(),
            keys: keys.chain(real).collect(),
            nodes: options.nodes,
            seed: Some(seed),
            recovery_max_ms: Some(u64::try_from(recovery_max_ms).unwrap_or(u64::MAX)),
            workloads: [
                Workload::Append,
                Workload::Idempotent,
                Workload::Conditional,
                Workload::Ledger,
                Workload::Consume,
                Workload::Offsets,
                Workload::Trim,
                Workload::Register,
                Workload::Final,
                Workload::Replicas,
                Workload::Recover,
            ]
            .into_iter()
            .chain(self.real.as_ref().map(|_| Workload::GroupConsume))
            .collect(),
            ..Header::default()
        }
    }

    fn note(&self, what: &str) {
        self.recorder.impossible(what);
    }

    /// Starts jobs that share a client.
    fn crew(&mut self, jobs: impl FnOnce(&Client) -> Vec<Job>) -> io::Result<Crew> {
        let stop = Arc::new(AtomicBool::new(false));
        let client = Client {
            rpc: self.switchboard.clone(),
            recorder: self.recorder.clone(),
            board: Arc::clone(&self.board),
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
        self.machines.boot_founders(&mut self.world)?;
        let (partitions, retention) = (self.options.partitions, self.options.retention);
        let crew = self.crew(|client| {
            let topics = [(TOPIC, partitions), (CELLS, 2)];
            let create = |(topic, partitions)| -> Job {
                Box::pin(create_topic(client.clone(), topic, partitions, retention))
            };
            topics.map(create).into()
        })?;
        let real = self.real_crew(|work, mix| vec![work.create(mix)])?;
        let done = || crew.done() && real.done();
        if !self.from_birth {
            return Ok(self.world.run_until(PATIENCE, done));
        }
        self.nemesis.begin(self.world.now());
        let deadline = self.world.now() + self.options.faults_for + PATIENCE;
        while !done() && self.world.now() < deadline {
            self.act()?;
            self.world.step();
        }
        Ok(done())
    }

    /// Breaks and mends what is due.
    fn act(&mut self) -> io::Result<()> {
        let events = self.nemesis.act(&mut self.world, &self.machines)?;
        self.tell(events);
        Ok(())
    }

    fn tell(&self, events: Vec<Event>) {
        for event in events {
            self.recorder.fault(event);
        }
    }

    fn work(&mut self) -> io::Result<()> {
        let workers = self.crew(workers)?;
        let mut real = Vec::new();
        for jobs in self.real.iter().flat_map(Real::crews).collect::<Vec<_>>() {
            real.push(self.real_crew(jobs)?);
        }
        if self.options.operator {
            let groups = self.options.joins_after.map(|_| self.options.shards);
            let operator =
                self.crew(|client| vec![Box::pin(operator::moves(client.clone(), groups))])?;
            self.faults()?;
            operator.stop.store(true, Ordering::Relaxed);
        } else {
            self.faults()?;
        }
        let process = self.recorder.process();
        let recovering = self.recorder.invoke(process, None, Action::Recover);
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
            self.recorder.ok(recovering, Action::Recover);
        } else {
            let why = "some partition took no append, or the group no commit";
            let _over = self.recorder.info(recovering, Action::Recover, why);
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
            let all = read_at_end(client.partitions).into_iter();
            let mut jobs: Vec<Job> = all
                .map(|place| -> Job { Box::pin(workload::read_all(client.clone(), place)) })
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
        let finals = self.recorder.finals();
        let names = self.header(0).keys;
        let comparers = self.crew(|client| {
            let read = finals.into_iter().filter_map(|(key, range)| {
                let (topic, partition) = names.get(&key)?.rsplit_once('-')?;
                Some((key, (topic.to_owned(), partition.parse().ok()?), range))
            });
            let images: Job = Box::pin(operator::compare_images(client.clone()));
            read.map(|(key, place, range)| -> Job {
                Box::pin(operator::compare(client.clone(), key, place, range))
            })
            .chain([images])
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
        let mut joins_at = self.options.joins_after.map(|after| begin + after);
        while !self.nemesis.is_over() || self.world.now() < begin + self.options.faults_for {
            if joins_at.is_some_and(|at| at <= self.world.now()) {
                joins_at = None;
                self.machines.boot(&mut self.world, self.options.nodes)?;
            }
            self.act()?;
            self.world.step();
        }
        let events = self.nemesis.finish(&mut self.world, &self.machines)?;
        self.tell(events);
        Ok(())
    }
}

/// The partitions that are read to their ends, and compared, when all is over. The register's records
/// are no sends.
fn read_at_end(partitions: i32) -> Vec<(&'static str, i32)> {
    let events = (0..partitions).map(|p| (TOPIC, p));
    events.chain([(CELLS, LEDGER)]).collect()
}

fn workers(client: &Client) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for partition in 0..client.partitions {
        // The last ones are silent for longer than the file lasts that their batch went to.
        for (producer, pause) in [(1, 20), (2, 100), (3, 300), (4, 15_000), (6, 60_000)] {
            let pause = Duration::from_millis(pause);
            let job = workload::idempotent(client.clone(), producer, partition, pause);
            jobs.push(Box::pin(job));
        }
        let pause = Duration::from_millis(1500);
        let several = pipeline::pipelined(client.clone(), 5, partition, pause);
        jobs.push(Box::pin(several));
        let pause = Duration::from_secs(2);
        jobs.push(Box::pin(workload::trim(client.clone(), partition, pause)));
        jobs.push(Box::pin(workload::damaged(
            client.clone(),
            51,
            partition,
            2 * pause,
        )));
        let pause = Duration::from_millis(500);
        jobs.push(Box::pin(workload::conditional(
            client.clone(),
            50,
            (TOPIC, partition),
            pause,
        )));
    }
    for user in 0..3 {
        let pause = Duration::from_millis(600);
        let ledger = (CELLS, LEDGER);
        let appends = workload::conditional(client.clone(), 60 + user, ledger, pause);
        jobs.push(Box::pin(appends));
        jobs.push(Box::pin(cells::register(client.clone(), 70 + user, pause)));
    }
    for _ in 0..SEATS + rng::below(2) {
        jobs.push(Box::pin(members::seat(client.clone())));
    }
    let pause = Duration::from_millis(400);
    jobs.push(Box::pin(members::watch(client.clone(), pause)));
    for _ in 1..=3 {
        let pause = Duration::from_millis(200);
        jobs.push(Box::pin(workload::consume(client.clone(), pause)));
    }
    jobs
}

async fn create_topic(client: Client, topic: &str, partitions: i32, retention: bool) {
    let settings = SETTINGS.into_iter().chain(retention.then_some(RETENTION));
    loop {
        let request = v1::CreateTopicRequest {
            name: topic.to_owned(),
            partitions,
            replication_factor: 3,
            settings: settings
                .clone()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
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
