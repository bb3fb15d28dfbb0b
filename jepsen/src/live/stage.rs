//! What a run is played on: network, proxies and nodes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use parking_lot::Mutex;

use super::{
    cluster::Cluster,
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
    /// The binary that nodes which are added run.
    pub(super) binary: Mutex<PathBuf>,
    janitor: Janitor,
    seeds: u64,
    /// Clients reach nodes through proxies.
    proxied: bool,
    proxies: Mutex<BTreeMap<u64, Vec<Proxy>>>,
}

/// How to set a stage.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) folder: PathBuf,
    pub(super) nodes: u64,
    pub(super) binary: PathBuf,
    pub(super) proxied: bool,
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
            janitor,
            seeds: setup.nodes,
            proxies: Mutex::default(),
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
        let data = self.folder.join("data").join(format!("n{id}"));
        std::fs::create_dir_all(&data).with_context(what)?;
        let spec = Spec {
            id,
            listen,
            advertise,
            seeds: seeds.collect(),
            data,
            binary: self.binary.lock().clone(),
            enter: self.network.enter(id),
            environment: Vec::new(),
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

    /// Where data lies.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Takes what a run leaves behind that nobody wants: data and configuration.
    pub(super) async fn discard(&self) -> anyhow::Result<()> {
        remove(&self.data())?;
        for id in self.cluster.ids() {
            remove(&self.cluster.node(id).await?.config)?;
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
