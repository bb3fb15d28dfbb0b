//! What a run is played on: network, proxies and nodes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use super::{
    clocks::Clock,
    cluster::Cluster,
    disk::Disk,
    janitor::Janitor,
    net::Network,
    node::{Addresses, Node, Spec},
    proxy::{Admit, Pass, Proxy, Source},
    schedule::Weather,
};

/// Ports of the proxies: this and the node's number.
const GRPC_PORTS: u16 = 7_500;
const REPLICATION_PORTS: u16 = 7_700;

/// Nodes that exist in the beginning are the seeds of all.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) network: Arc<Network>,
    pub(super) cluster: Cluster,
    /// The build that nodes which are added run.
    pub(super) binary: Mutex<PathBuf>,
    /// The build that nodes are upgraded to.
    pub(super) newest: PathBuf,
    janitor: Janitor,
    seeds: u64,
    /// Clients reach nodes through proxies.
    proxied: bool,
    proxies: Mutex<BTreeMap<u64, Vec<Proxy>>>,
    /// What disks forget follows from it; without, nodes use the disk of this machine.
    disk_seed: Option<u64>,
    disks: AsyncMutex<BTreeMap<u64, Disk>>,
    /// Nodes have wall clocks of their own.
    clocks: bool,
}

/// How to set a stage.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) folder: PathBuf,
    pub(super) nodes: u64,
    /// What nodes run in the beginning.
    pub(super) binary: PathBuf,
    /// What they are upgraded to.
    pub(super) newest: PathBuf,
    /// Clients reach nodes through proxies.
    pub(super) proxied: bool,
    /// Disks can be told to fail, and what they forget follows from this.
    pub(super) disk_seed: Option<u64>,
    /// Nodes have wall clocks of their own.
    pub(super) clocks: bool,
}

impl Stage {
    /// Makes everything that the first nodes need; starts none.
    pub(super) async fn set(
        setup: Setup,
        network: Network,
        janitor: Janitor,
    ) -> anyhow::Result<Self> {
        let stage = Self {
            folder: setup.folder,
            proxied: setup.proxied || network.is_loopback(),
            network: Arc::new(network),
            cluster: Cluster::default(),
            binary: Mutex::new(setup.binary),
            newest: setup.newest,
            janitor,
            seeds: setup.nodes,
            proxies: Mutex::default(),
            disk_seed: setup.disk_seed,
            disks: AsyncMutex::default(),
            clocks: setup.clocks,
        };
        for node in 1..=setup.nodes {
            stage.add(node).await?;
        }
        Ok(stage)
    }

    /// Makes everything that a node needs; does not start it.
    pub(super) async fn add(&self, id: u64) -> anyhow::Result<()> {
        let what = || format!("make node {id}");
        self.network.add(id).await.with_context(what)?;
        let listen = Addresses::at(self.network.address(id));
        let advertise = self.advertised(id, listen);
        self.proxy(id, listen, advertise).await.with_context(what)?;
        let seeds = (1..=self.seeds).map(|seed| {
            let listen = Addresses::at(self.network.address(seed));
            self.advertised(seed, listen).replication
        });
        let data = self.data_of(id).await.with_context(what)?;
        let clock = self.folder.join(format!("n{id}.clock"));
        let clock = self.clocks.then(|| Clock::right(clock)).transpose()?;
        let spec = Spec {
            id,
            listen,
            advertise,
            seeds: seeds.collect(),
            data,
            binary: self.binary.lock().clone(),
            enter: self.network.enter(id),
            clock,
        };
        let node = Node::new(spec, &self.folder, self.janitor.clone())?;
        self.cluster.add(node);
        Ok(())
    }

    fn advertised(&self, id: u64, listen: Addresses) -> Addresses {
        let own = self.network.own_address();
        let number = u16::try_from(id).unwrap_or_default();
        let mut advertise = listen;
        if self.proxied {
            advertise.grpc = SocketAddr::new(own, GRPC_PORTS + number);
        }
        if self.network.is_loopback() {
            advertise.replication = SocketAddr::new(own, REPLICATION_PORTS + number);
        }
        advertise
    }

    /// Starts the proxies in front of a node.
    async fn proxy(&self, id: u64, listen: Addresses, advertise: Addresses) -> anyhow::Result<()> {
        let mut proxies = Vec::new();
        if advertise.grpc != listen.grpc {
            let all: Pass = Arc::new(|| true);
            let admit: Admit = Arc::new(move |_| Arc::clone(&all));
            proxies.push(Proxy::start(advertise.grpc, listen.grpc, admit).await?);
        }
        if advertise.replication != listen.replication {
            let admit = self.between(id);
            proxies.push(Proxy::start(advertise.replication, listen.replication, admit).await?);
        }
        let _before = self.proxies.lock().insert(id, proxies);
        Ok(())
    }

    /// Admits connections of nodes that the network does not cut off from this one.
    fn between(&self, id: u64) -> Admit {
        let (cluster, network) = (self.cluster.clone(), Arc::clone(&self.network));
        Arc::new(move |from| {
            let source = Source {
                processes: cluster.pids(),
            };
            let network = Arc::clone(&network);
            match source.of(from) {
                Some(node) => Arc::new(move || !network.cut(node, id) && !network.cut(id, node)),
                // Its process has ended since.
                None => Arc::new(|| false),
            }
        })
    }

    /// What becomes of the connections of a node's clients.
    pub(super) fn weather(&self, node: u64, weather: Option<Weather>) {
        let proxies = self.proxies.lock();
        if let Some(of_clients) = proxies.get(&node).and_then(|all| all.first()) {
            of_clients.set(weather);
        }
    }

    /// The data folder of a new node, on a disk of its own where there are such.
    async fn data_of(&self, id: u64) -> anyhow::Result<PathBuf> {
        let name = format!("n{id}");
        let data = self.folder.join("data").join(&name);
        let Some(seed) = self.disk_seed else {
            std::fs::create_dir_all(&data)?;
            return Ok(data);
        };
        let store = self.folder.join("disks").join(&name);
        let disk = Disk::mount(&data, &store, seed.wrapping_add(id), &self.janitor).await?;
        let _before = self.disks.lock().await.insert(id, disk);
        Ok(data)
    }

    /// Does something to the disk of a node.
    pub(super) async fn disk<T>(
        &self,
        node: u64,
        work: impl AsyncFnOnce(&mut Disk) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut disks = self.disks.lock().await;
        let disk = disks.get_mut(&node);
        let disk = disk.with_context(|| format!("node {node} has the disk of this machine"))?;
        let done = work(disk).await;
        done.with_context(|| format!("the disk of node {node}"))
    }

    /// Empties the disk of a node that does not run.
    pub(super) async fn wipe(&self, node: u64) -> anyhow::Result<()> {
        let process = self.cluster.node(node).await?;
        ensure!(!process.is_running(), "node {node} runs");
        let data = &process.spec.data;
        let wipe = || {
            for entry in std::fs::read_dir(data)? {
                remove(&entry?.path())?;
            }
            anyhow::Ok(())
        };
        wipe().with_context(|| format!("empty {}", data.display()))
    }

    /// Ends what the nodes stood on. All must have ended.
    pub(super) async fn strike(&self) -> anyhow::Result<()> {
        self.proxies.lock().clear();
        for disk in std::mem::take(&mut *self.disks.lock().await).into_values() {
            disk.unmount().await?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    removed.with_context(|| format!("remove {}", path.display()))
}
