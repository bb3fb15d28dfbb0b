//! Three node processes of this binary.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use seriatim_runtime::clock;
use tokio::process::{Child, Command};

/// The processes. Dropping it ends those that run.
pub(super) struct Nodes {
    nodes: Vec<Node>,
}

struct Node {
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
                let log = fs::read_to_string(&node.log).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(5).collect();
                bail!(
                    "a node ended ({status}); its log ends with:\n{}",
                    end.join("\n")
                );
            }
        }
        Ok(())
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
            match clock::timeout(Duration::from_secs(10), node.child.wait()).await {
                Ok(status) => {
                    let status = status?;
                    anyhow::ensure!(status.success(), "a node ended with {status}");
                }
                Err(_late) => bail!("a node did not stop within 10 s of SIGTERM"),
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

/// Addresses on loopback that nobody uses at the moment.
fn free_addresses(count: usize) -> anyhow::Result<Vec<String>> {
    let bound: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("find free ports")?;
    bound
        .iter()
        .map(|listener| Ok(listener.local_addr()?.to_string()))
        .collect()
}
