//! The network between the nodes of a run, and what is wrong with it.

pub(super) mod leftovers;
mod namespaces;
mod rules;
mod subnet;

use std::net::{IpAddr, Ipv4Addr};

use parking_lot::Mutex;

pub use self::rules::Rule;
use self::{namespaces::Namespaces, rules::Rules, subnet::Subnet};
use super::{janitor::Janitor, tool};

/// Tools that namespaces need, and the Debian packages that have them.
const TOOLS: [(&str, &str); 3] = [
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
];

/// The network of a run.
#[derive(Debug)]
pub(super) struct Network {
    kind: Kind,
    rules: Mutex<Rules>,
}

#[derive(Debug)]
enum Kind {
    /// A namespace for each node.
    Namespaces(Namespaces),
    /// Addresses of loopback, with the first numbers behind 127; what is lost is lost in the proxies.
    Loopback([u8; 2]),
}

/// Why there are no namespaces, if so.
pub(super) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can make network namespaces".to_owned());
    }
    let missing: Vec<_> = TOOLS
        .into_iter()
        .filter(|(tool, _)| tool::find(tool).is_none())
        .collect();
    if missing.is_empty() {
        return None;
    }
    let names: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    Some(format!(
        "{} is missing: apt-get install {}",
        names.join(", "),
        packages.join(" ")
    ))
}

impl Network {
    /// A namespace for each node to come.
    pub(super) async fn namespaces(janitor: Janitor) -> anyhow::Result<Self> {
        for name in leftovers::remove().await? {
            tracing::warn!(name, "removed what a dead run left behind");
        }
        let namespaces = Namespaces::new(janitor).await?;
        Ok(Self::of(Kind::Namespaces(namespaces)))
    }

    /// Addresses on loopback.
    pub(super) fn loopback() -> Self {
        Self::of(Kind::Loopback(Subnet::loopback(std::process::id())))
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            rules: Mutex::default(),
        }
    }

    /// Whether nodes can be told apart by their addresses.
    pub(super) const fn is_loopback(&self) -> bool {
        matches!(self.kind, Kind::Loopback(_))
    }

    /// Room for one more node.
    pub(super) async fn add(&self, node: u64) -> anyhow::Result<()> {
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.add(node).await,
            Kind::Loopback(_) => Ok(()),
        }
    }

    /// Where a node listens.
    pub(super) fn address(&self, node: u64) -> IpAddr {
        let last = u8::try_from(node).unwrap_or(u8::MAX);
        IpAddr::V4(match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.address(node),
            Kind::Loopback([second, third]) => Ipv4Addr::new(127, *second, *third, last),
        })
    }

    /// Where this process listens for nodes and clients.
    pub(super) fn own_address(&self) -> IpAddr {
        IpAddr::V4(match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.gateway(),
            Kind::Loopback([second, third]) => Ipv4Addr::new(127, *second, *third, subnet::GATEWAY),
        })
    }

    /// What a process of the node is started through.
    pub(super) fn enter(&self, node: u64) -> Vec<String> {
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.enter(node),
            Kind::Loopback(_) => Vec::new(),
        }
    }

    /// Begins a fault among these nodes.
    pub(super) async fn begin(
        &self,
        fault: u64,
        rules: Vec<Rule>,
        nodes: &[u64],
    ) -> anyhow::Result<()> {
        self.rules.lock().set(fault, rules);
        self.apply(nodes).await
    }

    /// Ends one.
    pub(super) async fn end(&self, fault: u64, nodes: &[u64]) -> anyhow::Result<()> {
        self.rules.lock().lift(fault);
        self.apply(nodes).await
    }

    async fn apply(&self, nodes: &[u64]) -> anyhow::Result<()> {
        let Kind::Namespaces(namespaces) = &self.kind else {
            return Ok(());
        };
        for &node in nodes {
            let address = |node| namespaces.address(node);
            let table = self.rules.lock().table(node, address);
            namespaces.filter(node, &table).await?;
        }
        Ok(())
    }

    /// Whether what one node sends to another is lost.
    pub(super) fn cut(&self, from: u64, to: u64) -> bool {
        self.rules.lock().cut(from, to)
    }
}
