//! What a run costs: processor time, memory and syncs.

use std::time::Duration;

use anyhow::Context as _;
use seriatim_client::Client;
use seriatim_proto::v1::{NodeStatusRequest, admin_client::AdminClient};
use seriatim_runtime::clock;
use tonic::transport::{Channel, Endpoint};

use crate::{usage, window::Window};

/// How long a node may take to tell its figures.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// The cost of a run; `None` is what cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Cost {
    /// Processor time of all nodes.
    pub(crate) cpu_nodes: Option<Duration>,
    /// Processor time of this process.
    pub(crate) cpu_client: Option<Duration>,
    /// The most memory that any one node has had resident since it started.
    pub(crate) peak_bytes: Option<u64>,
    /// Syncs of all nodes.
    pub(crate) fsyncs: Option<u64>,
}

/// Reads the counters of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    /// Empty if the nodes are not processes that this one started.
    processes: Vec<String>,
    admins: Vec<AdminClient<Channel>>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    cpu_nodes: Option<Duration>,
    cpu_client: Option<Duration>,
    fsyncs: Option<u64>,
}

impl Meter {
    pub(crate) async fn new(client: &Client, processes: &[u32]) -> anyhow::Result<Self> {
        let status = client.admin().cluster_status().await;
        let status = status.context("ask for the nodes of the cluster")?;
        let admin = |node: &seriatim_client::NodeStatus| {
            let endpoint = Endpoint::from_shared(format!("http://{}", node.grpc_address))?;
            anyhow::Ok(AdminClient::new(endpoint.connect_lazy()))
        };
        Ok(Self {
            processes: processes.iter().map(ToString::to_string).collect(),
            admins: status.nodes.iter().map(admin).collect::<Result<_, _>>()?,
        })
    }

    pub(crate) async fn read(&self) -> Reading {
        Reading {
            fsyncs: self.fsyncs().await,
            cpu_nodes: self.of_nodes(usage::cpu).map(|all| all.iter().sum()),
            cpu_client: usage::cpu("self"),
        }
    }

    /// The cost since `before`.
    pub(crate) async fn since(&self, before: Reading) -> Cost {
        let now = self.read().await;
        let passed =
            |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before?));
        let peak = self.of_nodes(usage::peak_resident_bytes);
        Cost {
            cpu_nodes: passed(now.cpu_nodes, before.cpu_nodes),
            cpu_client: passed(now.cpu_client, before.cpu_client),
            peak_bytes: peak.and_then(|all| all.into_iter().max()),
            fsyncs: now
                .fsyncs
                .zip(before.fsyncs)
                .and_then(|(now, before)| now.checked_sub(before)),
        }
    }

    /// The cost of a window that has not begun to count.
    pub(crate) async fn over(self, window: Window) -> Cost {
        clock::sleep_until(window.from).await;
        let before = self.read().await;
        clock::sleep_until(window.until).await;
        self.since(before).await
    }

    fn of_nodes<T>(&self, figure: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        if self.processes.is_empty() {
            return None;
        }
        self.processes
            .iter()
            .map(|process| figure(process))
            .collect()
    }

    async fn fsyncs(&self) -> Option<u64> {
        let mut sum = 0;
        for admin in &self.admins {
            let mut admin = admin.clone();
            let asked = admin.node_status(NodeStatusRequest {});
            let answer = clock::timeout(STATUS_TIMEOUT, asked).await.ok()?.ok()?;
            sum += answer.into_inner().fsyncs;
        }
        Some(sum)
    }
}
