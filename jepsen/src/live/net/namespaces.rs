//! Each node in a network namespace of its own, all joined by a bridge that has one too, so that no
//! firewall of this machine stands between them.

use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};

use super::{
    rules::Rules,
    subnet::{GATEWAY, Subnet},
};
use crate::live::{janitor::Janitor, tool};

/// Most nodes: their numbers are those of their addresses.
const NODES_MAX: u64 = 200;

/// The network of a run.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// Names begin with it: `sj` and the id of this process.
    pub(super) prefix: String,
    subnet: Subnet,
    janitor: Janitor,
}

impl Namespaces {
    /// The bridge, and this machine's own place at it.
    pub(super) async fn new(janitor: Janitor) -> anyhow::Result<Self> {
        let pid = std::process::id();
        let prefix = format!("{}{pid}", super::leftovers::PREFIX);
        let routes = tool::run("ip", &["-4", "-o", "route", "show", "table", "all"]).await?;
        let subnet = Subnet::free(&routes, pid)?;
        let this = Self {
            prefix,
            subnet,
            janitor,
        };
        let switch = this.switch();
        this.namespace(&switch).await?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]).await?;
        ip(&["-n", &switch, "link", "set", "br0", "up"]).await?;
        let link = &this.prefix;
        let _chore = this.janitor.after(&format!("ip link del {link}"))?;
        ip(&[
            "link", "add", link, "type", "veth", "peer", "name", "p0", "netns", &switch,
        ])
        .await?;
        let own = format!("{}/24", this.gateway());
        ip(&["addr", "add", &own, "dev", link]).await?;
        ip(&["link", "set", link, "up"]).await?;
        this.plug("p0").await?;
        this.try_filter().await?;
        Ok(this)
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.prefix)
    }

    /// The name of a node's namespace.
    pub(super) fn name(&self, node: u64) -> String {
        format!("{}-n{node}", self.prefix)
    }

    async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let _chore = self.janitor.after(&format!("ip netns del {name}"))?;
        ip(&["netns", "add", name]).await
    }

    async fn plug(&self, port: &str) -> anyhow::Result<()> {
        ip(&[
            "-n",
            &self.switch(),
            "link",
            "set",
            port,
            "master",
            "br0",
            "up",
        ])
        .await
    }

    /// A namespace for one more node.
    pub(super) async fn add(&self, node: u64) -> anyhow::Result<()> {
        ensure!(node <= NODES_MAX, "node {node}: at most {NODES_MAX}");
        let (name, switch, port) = (self.name(node), self.switch(), format!("p{node}"));
        self.namespace(&name).await?;
        ip(&[
            "-n", &name, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns",
            &switch,
        ])
        .await?;
        self.plug(&port).await?;
        let own = format!("{}/24", self.address(node));
        ip(&["-n", &name, "addr", "add", &own, "dev", "eth0"]).await?;
        ip(&["-n", &name, "link", "set", "lo", "up"]).await?;
        ip(&["-n", &name, "link", "set", "eth0", "up"]).await
    }

    /// The address of a node.
    pub(super) fn address(&self, node: u64) -> Ipv4Addr {
        self.subnet.host(u8::try_from(node).unwrap_or(u8::MAX))
    }

    /// This machine's own address in the network.
    pub(super) const fn gateway(&self) -> Ipv4Addr {
        self.subnet.host(GATEWAY)
    }

    /// What a process of the node is started through.
    pub(super) fn enter(&self, node: u64) -> Vec<String> {
        let file = format!("--net=/run/netns/{}", self.name(node));
        vec!["nsenter".to_owned(), file, "--".to_owned()]
    }

    /// Replaces the filter of a node's packets.
    pub(super) async fn filter(&self, node: u64, table: &str) -> anyhow::Result<()> {
        let filtered = filter(&self.name(node), table).await;
        filtered.with_context(|| format!("filter the packets of node {node}"))
    }

    /// Whether packets can be filtered here: not every kernel can, nor may every root.
    async fn try_filter(&self) -> anyhow::Result<()> {
        let table = Rules::example().table(1, |node| self.address(node));
        let filtered = filter(&self.switch(), &table).await;
        filtered.context("filter packets")
    }
}

async fn filter(namespace: &str, table: &str) -> anyhow::Result<()> {
    let file = format!("--net=/run/netns/{namespace}");
    let args = [&file, "--", "iptables-restore", "-w"];
    let _nothing = tool::feed("nsenter", &args, table).await?;
    Ok(())
}

async fn ip(args: &[&str]) -> anyhow::Result<()> {
    let _nothing = tool::run("ip", args).await?;
    Ok(())
}
