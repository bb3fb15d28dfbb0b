//! One live run: form a cluster, work and break, mend, read everything, compare, judge.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use seriatim_client::Client;
use seriatim_runtime::clock::{self, Instant};
use tokio::task::JoinSet;

use super::{
    Options, binary, clocks, disk,
    janitor::Janitor,
    nemesis::{Nemesis, Tally},
    net::{self, Network},
    progress::{Counters, Progress},
    schedule::{self, Kind, Plan, Schedule},
    stage::{Setup, Stage},
};
use crate::{
    history::{Action, Header, History, Op, Recorder, Workload},
    work::{Connect, Job, Keys, Mix, Target, Work},
};

/// How long clients may take to finish what they are at.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long recovery is waited for; longer than it may take, so that its time is known.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);
/// Producers.
const PRODUCERS: u64 = 12;
/// Records that a producer sends at a time, on average.
const BURST: u64 = 2;
/// Topics and their partitions. Groups read the first; the last is trimmed.
const TOPICS: [(&str, i32); 2] = [("orders", 4), ("audit", 2)];
/// What the clients do.
const WORKLOADS: [Workload; 12] = [
    Workload::Append,
    Workload::Idempotent,
    Workload::Conditional,
    Workload::Ledger,
    Workload::Consume,
    Workload::GroupConsume,
    Workload::Offsets,
    Workload::Trim,
    Workload::Register,
    Workload::Final,
    Workload::Replicas,
    Workload::Recover,
];

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What happened.
    pub history: History,
    /// What the history does not tell.
    pub notes: Notes,
}

/// What the history of a run does not tell, as it stands in `run.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    /// Faults made.
    pub struck: usize,
    /// Faults left out because another one had the node.
    pub skipped: usize,
    /// Nemeses that were asked for and are not possible here, each with the reason.
    pub left_out: Vec<String>,
    /// Why the run proves nothing, even if no promise was broken.
    pub failures: Vec<String>,
}

impl Notes {
    /// The name of the file.
    pub const FILE: &str = "run.json";

    /// The failure of a run that was told to end early.
    const INTERRUPTED: &str = "it was interrupted";

    /// Whether it was told to end early.
    pub fn was_interrupted(&self) -> bool {
        self.failures.iter().any(|why| why == Self::INTERRUPTED)
    }
}

/// Makes a run.
///
/// # Errors
/// If it cannot be made. What it did to the machine is undone in any case.
pub async fn run(options: Options) -> anyhow::Result<Outcome> {
    let folder = prepare(&options.out)?;
    let janitor = Janitor::new()?;
    let ended = play(&options, &folder, &janitor).await;
    janitor.clean();
    // Nobody can tell what is what in the bytes of a disk that has ended.
    remove(&folder.join("disks"))?;
    let outcome = ended?;
    let tidy = outcome.notes.failures.is_empty() && !has_impossible(&outcome.history.ops);
    if tidy {
        remove(&folder.join("data"))?;
    }
    Ok(outcome)
}

/// Removes a folder, if it is there.
fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn has_impossible(ops: &[Op]) -> bool {
    ops.iter()
        .any(|op| matches!(op.action, Action::Impossible(_)))
}

/// An empty folder for what a run leaves.
fn prepare(out: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
    let folder = out.canonicalize()?;
    let mut entries = std::fs::read_dir(&folder)?;
    ensure!(
        entries.next().is_none(),
        "{} is not empty; name another folder with --out",
        folder.display()
    );
    Ok(folder)
}

/// The network, and the nemeses that are possible in it.
async fn network(options: &Options, janitor: &Janitor, left_out: &mut Vec<String>) -> Network {
    let obstacle = if options.loopback {
        Some("asked to stay on loopback".to_owned())
    } else {
        net::obstacle()
    };
    let why = match obstacle {
        Some(why) => why,
        None => match Network::namespaces(janitor.clone()).await {
            Ok(network) => return network,
            // Root need not be allowed to, as in a container.
            Err(error) => format!("{error:#}"),
        },
    };
    left_out.push(format!(
        "network namespaces: {why}; nodes are on loopback, behind a proxy"
    ));
    Network::loopback()
}

async fn play(options: &Options, folder: &Path, janitor: &Janitor) -> anyhow::Result<Outcome> {
    let mut left_out = Vec::new();
    net::leftovers::unmount().await?;
    let newest = binary::find(options.binary.as_deref())?;
    let network = network(options, janitor, &mut left_out).await;
    let kinds = possible(&options.kinds, &network, &mut left_out);
    let has = |kind| kinds.contains(&kind);
    let oldest = match &options.old_binary {
        Some(path) if has(Kind::Upgrade) => binary::find(Some(path))?,
        _ => newest.clone(),
    };
    let setup = Setup {
        folder: folder.to_owned(),
        nodes: options.nodes,
        binary: oldest,
        newest,
        proxied: has(Kind::Proxy),
        disk_seed: kinds
            .iter()
            .any(|kind| kind.is_disk())
            .then_some(options.seed),
        clocks: has(Kind::Clock),
    };
    if has(Kind::Upgrade) && options.old_binary.is_none() {
        left_out.push("upgrade: without --old-bin nodes restart with the same build".to_owned());
    }
    let schedule = schedule(options, kinds)?;
    write_json(&folder.join("schedule.json"), &schedule)?;
    let stage = Arc::new(Stage::set(setup, network, janitor.clone()).await?);
    stage.cluster.start_all().await?;
    stage.cluster.ready_all().await?;
    let run = Run::new(options, folder, stage).await?;
    run.topics().await?;
    run.play(&schedule).await?;
    let places = run.places().await?;
    run.stage.cluster.stop_all().await?;
    run.compare(&places).await?;
    run.stage.strike().await?;
    run.finish(left_out).await
}

/// Without those that cannot be here; says why.
fn possible(kinds: &[Kind], network: &Network, left_out: &mut Vec<String>) -> Vec<Kind> {
    let (disks, clocks) = (disk::obstacle(), clocks::obstacle());
    let why_not = |kind: Kind| match kind {
        Kind::Loss if network.is_loopback() => Some("it needs network namespaces"),
        Kind::Clock => clocks.as_deref(),
        kind if kind.is_disk() => disks.as_deref(),
        _ => None,
    };
    let mut here = Vec::new();
    for &kind in kinds {
        match why_not(kind) {
            Some(why) => left_out.push(format!("{}: {why}", kind.name())),
            None => here.push(kind),
        }
    }
    here
}

/// The schedule that is named, or one that is drawn.
fn schedule(options: &Options, kinds: Vec<Kind>) -> anyhow::Result<Schedule> {
    if let Some(path) = &options.schedule {
        let what = || format!("the schedule {}", path.display());
        let text = std::fs::read(path).with_context(what)?;
        let schedule: Schedule = serde_json::from_slice(&text).with_context(what)?;
        ensure!(
            schedule.nodes == options.nodes,
            "{} is for {} nodes; say --nodes {}",
            what(),
            schedule.nodes,
            schedule.nodes
        );
        return Ok(schedule);
    }
    Ok(schedule::draw(&Plan {
        seed: options.seed,
        nodes: options.nodes,
        time: options.time,
        kinds,
    }))
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let what = || format!("write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(what)?);
    serde_json::to_writer_pretty(&mut file, value).with_context(what)?;
    file.flush().with_context(what)
}

/// A run whose cluster is there.
pub(super) struct Run<'a> {
    options: &'a Options,
    folder: &'a Path,
    pub(super) stage: Arc<Stage>,
    pub(super) recorder: Recorder,
    counters: Counters,
    nemesis: Nemesis,
    pub(super) work: Work,
    pub(super) mix: Mix,
    /// What an operator would talk to the cluster through.
    pub(super) admin: Client,
    failures: Mutex<Vec<String>>,
}

impl<'a> Run<'a> {
    async fn new(
        options: &'a Options,
        folder: &'a Path,
        stage: Arc<Stage>,
    ) -> anyhow::Result<Self> {
        let servers: Arc<str> = stage.cluster.servers().await.into();
        let admin = Client::connect(&servers).await?;
        let connect: Connect = Arc::new(move || {
            let servers = Arc::clone(&servers);
            Box::pin(async move { Client::connect(&servers).await })
        });
        let counters = Counters::default();
        let began = clock::now();
        let counted = counters.clone();
        let recorder = Recorder::new(move || began.elapsed()).with_sink(move |op| counted.note(op));
        Ok(Self {
            options,
            folder,
            nemesis: Nemesis::new(Arc::clone(&stage), recorder.clone()),
            stage,
            recorder: recorder.clone(),
            counters,
            work: Work::new(recorder, Keys::from(0), connect),
            mix: mix(options.rate),
            admin,
            failures: Mutex::default(),
        })
    }

    async fn topics(&self) -> anyhow::Result<()> {
        let created = self.work.create(&self.mix);
        let created = clock::timeout(PATIENCE, created).await;
        created.context("the topics could not be created")
    }

    pub(super) fn impossible(&self, what: impl Into<String>) {
        self.recorder.impossible(what);
    }

    /// Clients and faults, until everything is mended and read.
    async fn play(&self, schedule: &Schedule) -> anyhow::Result<()> {
        let began = clock::now();
        let progress = Progress {
            counters: self.counters.clone(),
            nemesis: self.nemesis.clone(),
            began,
            time: self.options.time,
        };
        let (work, mix) = (&self.work, &self.mix);
        let mut jobs = work.writers(mix);
        jobs.extend(work.readers(mix));
        jobs.extend(work.members(mix));
        jobs.extend(work.operators(mix));
        let mut clients = spawned(jobs);
        tokio::select! {
            biased;
            () = progress.show() => {}
            () = self.watch() => {}
            () = self.interrupted() => {}
            () = self.faults(schedule, began) => {}
        }
        self.recover().await;
        work.stop();
        if !ended(&mut clients, PATIENCE).await {
            self.impossible("clients did not end");
        }
        work.go_on();
        let mut readers = spawned(work.read_all(mix));
        if !ended(&mut readers, PATIENCE).await {
            self.impossible("a partition could not be read to its end");
        }
        Ok(())
    }

    /// Faults, all of which end when the time is over.
    async fn faults(&self, schedule: &Schedule, began: Instant) {
        let end = async {
            self.nemesis
                .or_enough(clock::sleep_until(began + self.options.time))
                .await;
            self.nemesis.enough();
        };
        let ((), ()) = tokio::join!(end, self.nemesis.play(schedule, began));
    }

    /// On Ctrl-C all faults end, and what there is is judged. Never returns.
    async fn interrupted(&self) {
        if tokio::signal::ctrl_c().await.is_ok() {
            tracing::warn!("interrupted: mending; a second Ctrl-C ends at once");
            let why = Notes::INTERRUPTED.to_owned();
            self.failures.lock().push(why);
            self.nemesis.enough();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
        std::future::pending::<()>().await;
    }

    /// Nodes that end by themselves are bugs. Never returns.
    async fn watch(&self) {
        loop {
            clock::sleep(Duration::from_millis(200)).await;
            for (node, status) in self.stage.cluster.gone() {
                self.impossible(format!(
                    "node {node} ended by itself ({status}): see n{node}.log"
                ));
                let Ok(mut node) = self.stage.cluster.node(node).await else {
                    continue;
                };
                if let Err(error) = node.start() {
                    self.failures.lock().push(format!("{error:#}"));
                }
            }
        }
    }

    async fn recover(&self) {
        let recovery = self.work.recover(&self.mix);
        if clock::timeout(RECOVERY_PATIENCE, recovery).await.is_err() {
            self.impossible(format!("no recovery within {RECOVERY_PATIENCE:?}"));
        }
    }

    async fn finish(self, left_out: Vec<String>) -> anyhow::Result<Outcome> {
        for (node, log) in self.stage.cluster.logs().await {
            for line in panics(&log)? {
                self.impossible(format!("node {node} panicked: {line}"));
            }
        }
        let Tally {
            struck,
            skipped,
            failures,
        } = self.nemesis.tally();
        let mut all = self.failures.into_inner();
        all.extend(failures);
        let header = Header {
            world: "live".to_owned(),
            keys: self.work.keys().names(),
            nodes: self.options.nodes,
            seed: Some(self.options.seed),
            replay: Some(replay(self.options, self.folder)),
            recovery_max_ms: u64::try_from(Options::RECOVERY_MAX.as_millis()).ok(),
            workloads: WORKLOADS.into(),
            ..Header::default()
        };
        Ok(Outcome {
            history: History {
                header,
                ops: self.recorder.take(),
            },
            notes: Notes {
                struck,
                skipped,
                left_out,
                failures: all,
            },
        })
    }
}

/// What the clients do when they send so many records per second together.
fn mix(rate: u64) -> Mix {
    let targets = TOPICS.map(|(topic, partitions)| Target {
        topic: topic.to_owned(),
        partitions,
    });
    let rate = rate.max(1);
    Mix {
        targets: targets.to_vec(),
        replicas: 3,
        settings: [("segment.bytes".to_owned(), "1048576".to_owned())].into(),
        producers: usize::try_from(PRODUCERS).unwrap_or(1),
        produce_every: Duration::from_micros(1_000_000 * PRODUCERS * BURST / rate),
        consumers: 2,
        conditional_every: Duration::from_millis(100),
        cells: 3,
        members: 3,
        fleeting: 1,
        trim_every: Some(Duration::from_secs(5)),
    }
}

/// The command that makes the same faults again.
fn replay(options: &Options, folder: &Path) -> String {
    let schedule = folder.join("schedule.json");
    format!(
        "seriatim-jepsen run --live --nodes {} --time {} --rate {} --schedule {} --out AGAIN",
        options.nodes,
        options.time.as_secs(),
        options.rate,
        schedule.display()
    )
}

/// Lines of a node's log that tell of a panic.
fn panics(log: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter(|line| line.contains("panicked at"));
    Ok(lines.take(3).map(str::to_owned).collect())
}

fn spawned(jobs: Vec<Job>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for job in jobs {
        let _task = tasks.spawn(job);
    }
    tasks
}

/// Waits for jobs; says whether all ended in time.
async fn ended(jobs: &mut JoinSet<()>, limit: Duration) -> bool {
    let all = async {
        while let Some(ended) = jobs.join_next().await {
            if let Err(error) = ended {
                bail!("{error}");
            }
        }
        Ok(())
    };
    matches!(clock::timeout(limit, all).await, Ok(Ok(())))
}
