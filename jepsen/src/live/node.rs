//! One node process.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use seriatim_runtime::clock::{self, Instant};
use tokio::process::{Child, Command};

use super::{
    clocks::Clock,
    http,
    janitor::{Chore, Janitor},
    wait,
};

/// How long a node may take to be part of its cluster.
const READY: Duration = Duration::from_secs(60);
/// How long a process may take to end.
const END: Duration = Duration::from_secs(30);

/// How long a process may take until it listens to signals.
const YOUNG: Duration = Duration::from_secs(5);

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) grpc: SocketAddr,
    pub(super) replication: SocketAddr,
    pub(super) http: SocketAddr,
}

impl Addresses {
    pub(super) const fn at(address: IpAddr) -> Self {
        Self {
            grpc: SocketAddr::new(address, 7401),
            replication: SocketAddr::new(address, 7402),
            http: SocketAddr::new(address, 7403),
        }
    }
}

/// What a node is made of.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    /// Its id.
    pub(super) id: u64,
    /// Where it listens.
    pub(super) listen: Addresses,
    /// What it tells others.
    pub(super) advertise: Addresses,
    /// Replication addresses of the first nodes.
    pub(super) seeds: Vec<SocketAddr>,
    /// Its data folder.
    pub(super) data: PathBuf,
    /// The binary.
    pub(super) binary: PathBuf,
    /// What it is started through.
    pub(super) enter: Vec<String>,
    /// Its wall clock, if it has one of its own.
    pub(super) clock: Option<Clock>,
}

/// A node: its files, and its process while it runs.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) spec: Spec,
    /// Its configuration file.
    pub(super) config: PathBuf,
    log: PathBuf,
    janitor: Janitor,
    running: Option<(Child, Chore)>,
    started: Option<Instant>,
    /// The process id while it runs, for those who cannot wait for the node.
    pid: Arc<AtomicU32>,
}

impl Node {
    /// Writes the node's configuration; starts nothing.
    pub(super) fn new(spec: Spec, folder: &Path, janitor: Janitor) -> anyhow::Result<Self> {
        let id = spec.id;
        let config = folder.join(format!("n{id}.toml"));
        let Spec {
            listen, advertise, ..
        } = &spec;
        let seeds: Vec<String> = spec.seeds.iter().map(ToString::to_string).collect();
        let addresses = |of: &Addresses| {
            let Addresses {
                grpc,
                replication,
                http,
            } = of;
            format!("grpc = \"{grpc}\"\nreplication = \"{replication}\"\nhttp = \"{http}\"\n")
        };
        let text = format!(
            "node_id = {id}\ndata_dir = {:?}\nseeds = {seeds:?}\nretention_interval_ms = 1000\n\n\
             [listen]\n{}\n[advertise]\n{}",
            spec.data,
            addresses(listen),
            addresses(advertise)
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        Ok(Self {
            log: folder.join(format!("n{id}.log")),
            spec,
            config,
            janitor,
            running: None,
            started: None,
            pid: Arc::default(),
        })
    }

    /// Starts the process; does not wait until it is ready.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let id = self.spec.id;
        ensure!(self.running.is_none(), "node {id} runs already");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        let mut words = self.spec.enter.iter().map(AsRef::as_ref);
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new::<&std::ffi::OsStr>(program);
                let _through = command.args(words).arg(&self.spec.binary);
                command
            }
            None => Command::new(&self.spec.binary),
        };
        let child = command
            .args(["start", "--config"])
            .arg(&self.config)
            .envs(self.spec.clock.iter().flat_map(Clock::environment))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start node {id}"))?;
        let pid = child.id().context("it has ended already")?;
        let chore = self.janitor.kill_after(pid)?;
        self.pid.store(pid, Ordering::Relaxed);
        self.running = Some((child, chore));
        self.started = Some(clock::now());
        Ok(())
    }

    /// Waits until the node is part of its cluster.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let id = self.spec.id;
        let what = format!("node {id} is ready");
        let status = wait::until(&what, READY, async || {
            if let Some(status) = self.ended()? {
                return Ok(Some(Some(status)));
            }
            let code = http::get(self.spec.listen.http, "/readyz").await?;
            Ok((code == 200).then_some(None))
        });
        match status.await? {
            None => Ok(()),
            Some(status) => bail!("node {id} ended ({status}) before it was ready"),
        }
    }

    /// Whether a process was started that nobody has waited for.
    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn child(&mut self) -> anyhow::Result<&mut Child> {
        let id = self.spec.id;
        let running = self.running.as_mut();
        let (child, _chore) = running.with_context(|| format!("node {id} does not run"))?;
        Ok(child)
    }

    /// Where the id of its process stands while it runs; 0 otherwise.
    pub(super) fn pid(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.pid)
    }

    fn ended_now(&mut self) {
        self.pid.store(0, Ordering::Relaxed);
        if let Some((_child, chore)) = self.running.take() {
            chore.done();
        }
    }

    /// How the process has ended, if it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child()?.try_wait()?)
    }

    /// Sends a signal.
    pub(super) fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        let id = self.spec.id;
        let pid = self.child()?.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("node {id} has ended by itself"))?;
        kill_process(pid, signal).with_context(|| format!("signal node {id}"))
    }

    /// Waits for the end of the process.
    pub(super) async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let what = format!("node {} ends", self.spec.id);
        let status = wait::until(&what, END, async || self.ended()).await?;
        self.ended_now();
        Ok(status)
    }

    /// SIGKILL; the process is gone on return.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        let _status = self.wait().await?;
        Ok(())
    }

    /// SIGTERM; the process has ended well on return.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let young = self.started.is_none_or(|at| at.elapsed() < YOUNG);
        self.signal(Signal::TERM)?;
        let status = self.wait().await?;
        // One that was only just started ends by the signal itself.
        let unready = status.signal() == Some(Signal::TERM.as_raw()) && young;
        ensure!(
            status.success() || unready,
            "node {} was asked to stop and ended with {status}",
            self.spec.id
        );
        Ok(())
    }

    /// Takes note that the process is gone without anybody having asked for it.
    pub(super) fn gone(&mut self) -> Option<ExitStatus> {
        let status = self.ended().ok().flatten()?;
        self.ended_now();
        Some(status)
    }

    /// What its processes have logged.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }
}
