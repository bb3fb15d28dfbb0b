//! The real client and its workloads on hosts of the simulated network: gRPC over HTTP/2, with every
//! fault of the network between client and node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use seriatim_client::{Client, ClientError, Dialer};
use seriatim_runtime::{net::Net, sim::SimNet};

use super::node;
use crate::{
    history::Recorder,
    work::{Connect, Job, Keys, Mix, Target, Work},
};

/// The topic of the real clients that groups read; those of the bare protocol have another.
pub const TOPIC: &str = "orders";

/// The one of which old records are removed.
pub const TRIMMED: &str = "notes";

/// The first number of their partitions; those of the bare protocol are below.
const FIRST_KEY: u32 = 1000;

/// The real clients of a run.
#[derive(Debug)]
pub struct Real {
    /// What they share.
    pub work: Work,
    /// What they do.
    pub mix: Mix,
    nodes: u64,
}

impl Real {
    /// None yet; they will write to `recorder` and call the nodes 1 to `nodes`.
    pub fn new(recorder: Recorder, nodes: u64) -> Self {
        let nowhere: Connect = Arc::new(|| {
            let error = ClientError::Closed("a client without a host");
            Box::pin(async move { Err(error) })
        });
        Self {
            work: Work::new(recorder, Keys::from(FIRST_KEY), nowhere),
            mix: mix(),
            nodes,
        }
    }

    /// Workloads whose clients live at `host`.
    pub fn at(&self, net: &SimNet, host: &str) -> Work {
        self.work.elsewhere(connect(net.host(host), self.nodes))
    }

    /// The jobs of each host while things break. A host costs a turn each millisecond, so there are two.
    pub fn crews(&self) -> [Crew; 2] {
        [
            |work, mix| {
                work.writers(mix)
                    .into_iter()
                    .chain(work.operators(mix))
                    .collect()
            },
            |work, mix| {
                work.readers(mix)
                    .into_iter()
                    .chain(work.members(mix))
                    .collect()
            },
        ]
    }
}

/// The jobs of one host.
pub type Crew = fn(&Work, &Mix) -> Vec<Job>;

/// Clients that call the nodes 1 to `nodes` through `net`.
pub fn connect(net: Net, nodes: u64) -> Connect {
    let servers: Vec<_> = (1..=nodes).map(node::grpc_address).collect();
    let servers = servers.join(",");
    let dialer = Dialer::new(move |address: String| {
        let net = net.clone();
        async move { net.connect(&address).await }
    });
    Arc::new(move || {
        let (servers, dialer) = (servers.clone(), dialer.clone());
        Box::pin(async move { Client::connect_by(&servers, dialer).await })
    })
}

/// What they do: little, because every call costs the work of HTTP/2 and of several tasks.
pub fn mix() -> Mix {
    Mix {
        targets: [(TOPIC, 2), (TRIMMED, 1)]
            .map(|(topic, partitions)| Target {
                topic: topic.to_owned(),
                partitions,
            })
            .into(),
        replicas: 3,
        settings: BTreeMap::from([("segment.bytes".to_owned(), "1048576".to_owned())]),
        producers: 2,
        produce_every: Duration::from_millis(150),
        consumers: 1,
        conditional_every: Duration::from_millis(700),
        // Those of the bare protocol have a register and a ledger.
        cells: 0,
        members: 2,
        fleeting: 1,
        trim_every: Some(Duration::from_secs(2)),
    }
}
