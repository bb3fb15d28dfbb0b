//! A cluster of node processes.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde_json::Value;
use seriatim_client::Client;
use tempfile::TempDir;

use crate::{
    cli::Cli,
    node::{Addresses, Node},
    ports, replicas,
    small_disk::SmallDisk,
    wait,
};

/// How long replicas may take to catch up with their leaders.
const SETTLE: Duration = Duration::from_secs(60);

/// How to start a cluster.
#[derive(Debug)]
#[must_use]
pub struct Setup {
    nodes: u64,
    /// Nodes that are no seeds and are started by hand.
    later: u64,
    settings: String,
    disk: Option<SmallDisk>,
}

impl Setup {
    /// So many nodes with default settings.
    pub const fn nodes(nodes: u64) -> Self {
        Self {
            nodes,
            later: 0,
            settings: String::new(),
            disk: None,
        }
    }

    /// Prepares so many more nodes, which join when they are started; their ids follow the others'.
    pub const fn later(mut self, nodes: u64) -> Self {
        self.later = nodes;
        self
    }

    /// Adds a line to each configuration file.
    pub fn setting(mut self, line: &str) -> Self {
        self.settings.push_str(line);
        self.settings.push('\n');
        self
    }

    /// Puts all data folders on one small disk.
    pub fn on(mut self, disk: SmallDisk) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Writes the files; starts no process.
    ///
    /// # Errors
    /// If there are no free ports or the files cannot be written.
    pub fn prepare(self) -> anyhow::Result<Cluster> {
        let dir = tempfile::Builder::new().prefix("seriatim-e2e-").tempdir()?;
        let data_root = self.disk.as_ref().map_or(dir.path(), SmallDisk::path);
        let prefix = self
            .disk
            .as_ref()
            .map(SmallDisk::prefix)
            .unwrap_or_default();
        let mut all = Vec::new();
        for _ in 0..self.nodes + self.later {
            all.push(Addresses {
                grpc: ports::free_address()?,
                replication: ports::free_address()?,
                http: ports::free_address()?,
            });
        }
        let first = usize::try_from(self.nodes)?;
        let seeds = all.iter().take(first).map(|a| a.replication.clone());
        let seeds: Vec<String> = seeds.collect();
        let servers: Vec<String> = all.iter().take(first).map(|a| a.grpc.clone()).collect();
        let mut nodes = Vec::new();
        for (id, addresses) in (1..).zip(all) {
            let data = data_root.join(format!("data{id}"));
            let folders = (dir.path(), data.as_path());
            let node = Node::new(id, addresses, &seeds, folders, &self.settings)?;
            nodes.push(node.through(&prefix));
        }
        Ok(Cluster {
            nodes,
            cli: Cli::new(servers.join(",")),
            servers: servers.join(","),
            disk: self.disk,
            dir,
        })
    }

    /// Starts the nodes and waits until all are ready.
    ///
    /// # Errors
    /// If one is not in time.
    pub async fn start(self) -> anyhow::Result<Cluster> {
        let seeds = self.nodes;
        let mut cluster = self.prepare()?;
        for id in 1..=seeds {
            cluster.node_mut(id)?.start()?;
        }
        cluster.ready_all().await?;
        Ok(cluster)
    }
}

/// Nodes with the same seeds. Their ids are 1, 2, 3 and so on.
#[derive(Debug)]
pub struct Cluster {
    // Processes end before their files go.
    nodes: Vec<Node>,
    cli: Cli,
    servers: String,
    disk: Option<SmallDisk>,
    dir: TempDir,
}

impl Cluster {
    /// Three nodes with default settings, ready.
    ///
    /// # Errors
    /// If one is not in time.
    pub async fn of_three() -> anyhow::Result<Self> {
        Setup::nodes(3).start().await
    }

    /// gRPC addresses of all nodes.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// The command line for this cluster.
    pub const fn cli(&self) -> &Cli {
        &self.cli
    }

    /// The command line for what lies in the data folders.
    pub fn offline_cli(&self) -> Cli {
        let prefix = self
            .disk
            .as_ref()
            .map(SmallDisk::prefix)
            .unwrap_or_default();
        self.cli.clone().through(&prefix)
    }

    /// The small disk that the data folders are on.
    ///
    /// # Errors
    /// If they are on an ordinary one.
    pub fn disk(&self) -> anyhow::Result<&SmallDisk> {
        self.disk
            .as_ref()
            .context("the cluster is on no small disk")
    }

    /// A folder for files of the story, gone with the cluster.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// A new client.
    ///
    /// # Errors
    /// If no node answers.
    pub async fn client(&self) -> anyhow::Result<Client> {
        Client::connect(&self.servers).await.context("connect")
    }

    /// All nodes in the order of their ids.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn node(&self, id: u64) -> anyhow::Result<&Node> {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.with_context(|| format!("no node {id}"))
    }

    /// One node, to start or end it.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn node_mut(&mut self, id: u64) -> anyhow::Result<&mut Node> {
        let node = self.nodes.iter_mut().find(|node| node.id == id);
        node.with_context(|| format!("no node {id}"))
    }

    /// Starts every node that does not run.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        let mut down = self.nodes.iter_mut().filter(|node| !node.is_running());
        down.try_for_each(Node::start)
    }

    /// Waits until every node that was started is ready.
    ///
    /// # Errors
    /// If one is not in time.
    pub async fn ready_all(&mut self) -> anyhow::Result<()> {
        for node in self.nodes.iter_mut().filter(|node| node.is_running()) {
            node.ready().await?;
        }
        Ok(())
    }

    /// SIGKILL to every node, with nothing between them.
    ///
    /// # Errors
    /// If one does not run.
    pub async fn kill_all(&mut self) -> anyhow::Result<()> {
        for node in &self.nodes {
            node.signal(Signal::KILL)?;
        }
        for node in &mut self.nodes {
            let _status = node.wait().await?;
        }
        Ok(())
    }

    /// SIGTERM to every node that runs; all must end with exit code 0.
    ///
    /// # Errors
    /// If one does not.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            node.signal(Signal::TERM)?;
        }
        for node in self.nodes.iter_mut().filter(|node| node.is_running()) {
            let status = node.wait().await?;
            ensure!(status.success(), "node {} ended with {status}", node.id);
        }
        Ok(())
    }

    /// What `cluster status --output json` prints.
    ///
    /// # Errors
    /// If it fails.
    pub async fn status(&self) -> anyhow::Result<Value> {
        self.cli.json(&["cluster", "status"]).await
    }

    /// The node that leads a partition, once one does.
    ///
    /// # Errors
    /// If none does in time.
    pub async fn leader(&self, topic: &str, partition: i32) -> anyhow::Result<u64> {
        let admin = self.client().await?.admin();
        wait::until("the partition has a leader", SETTLE, async || {
            let described = admin.describe(topic).await?;
            let partition = described
                .partitions
                .iter()
                .find(|p| p.partition == partition);
            Ok(partition.and_then(|p| p.leader))
        })
        .await
    }

    /// Waits until every partition has a leader and all of its replicas run without lag.
    ///
    /// # Errors
    /// If that is not in time.
    pub async fn settle(&self) -> anyhow::Result<()> {
        let admin = self.client().await?.admin();
        wait::until("replicas have caught up", SETTLE, async || {
            let status = admin.cluster_status().await?;
            let behind = status.partitions.iter().find(|p| {
                p.leader.is_none()
                    || p.is_under_replicated()
                    || p.replicas.iter().any(|r| r.lag != Some(0))
            });
            match behind {
                Some(partition) => anyhow::bail!("{partition:?}"),
                None => Ok((!status.partitions.is_empty()).then_some(())),
            }
        })
        .await
    }

    /// Stops a cluster that nobody writes to and checks what it leaves on disk: no damage, and
    /// replicas that are equal.
    ///
    /// # Errors
    /// If anything is wrong.
    pub async fn stop_and_check(&mut self) -> anyhow::Result<()> {
        self.settle().await?;
        let running = self.nodes.iter().filter(|node| node.is_running());
        let ids: Vec<u64> = running.map(|node| node.id).collect();
        self.stop().await?;
        let cli = self.offline_cli();
        let stopped = || self.nodes.iter().filter(|node| ids.contains(&node.id));
        for node in stopped() {
            let _report = verify_clean(&cli, &node.data).await?;
        }
        let folders: Vec<&Path> = stopped().map(|node| node.data.as_path()).collect();
        replicas::equal(&cli, &folders).await
    }
}

/// What `log verify --output json` prints of a folder without damage.
///
/// # Errors
/// If there is any.
pub async fn verify_clean(cli: &Cli, data: &Path) -> anyhow::Result<Value> {
    let folder = data.to_str().context("the path is not UTF-8")?;
    let report = cli.json(&["log", "verify", folder]).await?;
    ensure!(report.get("clean") == Some(&Value::Bool(true)), "{report}");
    Ok(report)
}
