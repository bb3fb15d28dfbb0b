//! Three node processes of this binary.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use seriatim_runtime::{clock, rng};
use tokio::process::{Child, Command};

/// Lines of a log that are shown when something failed.
const LOG_LINES: usize = 10;

/// The processes. Dropping it ends those that run.
pub(super) struct Nodes {
    nodes: Vec<Node>,
}

struct Node {
    id: u64,
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    grpc: String,
    child: Child,
}

impl Nodes {
    pub(super) fn start(folder: &Path) -> anyhow::Result<Self> {
        let ports = free_addresses(9)?;
        let [g1, r1, h1, g2, r2, h2, g3, r3, h3] = ports.as_slice() else {
            bail!("no free ports");
        };
        let seeds = format!("[\"{r1}\", \"{r2}\", \"{r3}\"]");
        let addresses = [(g1, r1, h1), (g2, r2, h2), (g3, r3, h3)];
        let mut nodes = Vec::new();
        for (id, (grpc, replication, http)) in (1..).zip(addresses) {
            let data = folder.join(format!("node{id}"));
            let config = folder.join(format!("node{id}.toml"));
            let log = folder.join(format!("node{id}.log"));
            let text = format!(
                "node_id = {id}\ndata_dir = \"{}\"\nseeds = {seeds}\n\n[listen]\ngrpc = \"{grpc}\"\n\
                 replication = \"{replication}\"\nhttp = \"{http}\"\n",
                data.display()
            );
            fs::write(&config, text)?;
            let child = spawn(&config, &log)?;
            nodes.push(Node {
                id,
                config,
                data,
                log,
                grpc: grpc.clone(),
                child,
            });
        }
        Ok(Self { nodes })
    }

    pub(super) fn servers(&self) -> String {
        let servers: Vec<&str> = self.nodes.iter().map(|node| node.grpc.as_str()).collect();
        servers.join(",")
    }

    pub(super) fn data_dirs(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(|node| node.data.clone()).collect()
    }

    fn node(&mut self, id: u64) -> anyhow::Result<&mut Node> {
        let at = usize::try_from(id)?.checked_sub(1);
        at.and_then(|at| self.nodes.get_mut(at))
            .context("no such node")
    }

    /// Fails if a node has ended by itself.
    pub(super) fn check_running(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            if let Some(status) = node.child.try_wait()? {
                bail!("node {} ended by itself ({status})", node.id);
            }
        }
        Ok(())
    }

    /// The last lines of every node's log.
    pub(super) fn log_ends(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let log = fs::read_to_string(&node.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines.get(lines.len().saturating_sub(LOG_LINES)..);
            text += &format!(
                "the log of node {} ends with:\n  {}\n",
                node.id,
                end.unwrap_or_default().join("\n  ")
            );
        }
        text
    }

    /// SIGKILL to those that still run, and waits for them.
    pub(super) async fn end(&mut self) {
        for node in &mut self.nodes {
            // One that has ended already is as good.
            let _ended = node.child.kill().await;
        }
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self, id: u64) -> anyhow::Result<()> {
        let node = self.node(id)?;
        node.child.kill().await.context("kill a node")
    }

    pub(super) fn restart(&mut self, id: u64) -> anyhow::Result<()> {
        let node = self.node(id)?;
        node.child = spawn(&node.config, &node.log)?;
        Ok(())
    }

    /// SIGTERM to all, and waits for them.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        for node in &self.nodes {
            let pid = node.child.id().and_then(|id| i32::try_from(id).ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
            }
        }
        for node in &mut self.nodes {
            match clock::timeout(Duration::from_secs(20), node.child.wait()).await {
                Ok(status) => {
                    let status = status?;
                    anyhow::ensure!(status.success(), "node {} ended with {status}", node.id);
                }
                Err(_late) => bail!("node {} did not stop within 20 s of SIGTERM", node.id),
            }
        }
        Ok(())
    }
}

fn spawn(config: &Path, log: &Path) -> anyhow::Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    Command::new(std::env::current_exe()?)
        .arg("start")
        .arg("--config")
        .arg(config)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("start a node")
}

/// Addresses on loopback that nobody uses at the moment. They are below the ports that the system
/// gives to outgoing connections: one of those could have the port of a killed node when it starts
/// again.
fn free_addresses(count: usize) -> anyhow::Result<Vec<String>> {
    let first = 20_000 + u16::try_from(rng::below(10_000))?;
    let mut addresses = Vec::with_capacity(count);
    for port in first..first + 2_000 {
        if addresses.len() == count {
            break;
        }
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() {
            addresses.push(address);
        }
    }
    anyhow::ensure!(addresses.len() == count, "find {count} free ports");
    Ok(addresses)
}
