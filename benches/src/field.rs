//! Where a run takes place: clients of a cluster, and a topic of the run's own.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use seriatim_client::{Client, ClientError, NewTopic};
use seriatim_runtime::clock;

use crate::{meter::Meter, nodes::Nodes, plan::Load};

/// How long a cluster that was just started may take to accept a topic.
const READY: Duration = Duration::from_secs(30);

static TOPICS: AtomicU32 = AtomicU32::new(0);

/// Clients, a topic and the cluster's counters.
#[derive(Debug)]
pub(crate) struct Field {
    /// One or more, with connections of their own.
    pub(crate) clients: Vec<Client>,
    pub(crate) topic: String,
    pub(crate) meter: Meter,
}

impl Field {
    /// Connects, waiting until the cluster is ready, and creates the topic.
    pub(crate) async fn lay_out(
        load: &Load,
        servers: &str,
        mut nodes: Option<&mut Nodes>,
    ) -> anyhow::Result<Self> {
        let deadline = clock::now() + READY;
        let number = TOPICS.fetch_add(1, Ordering::Relaxed);
        let topic = format!("seriatim-bench-{}-{number}", std::process::id());
        let first = loop {
            let error = match begin(load, servers, &topic).await {
                Ok(client) => break client,
                Err(error) => error,
            };
            if let Some(nodes) = &mut nodes {
                nodes.check_running()?;
            }
            if nodes.is_none() || clock::now() >= deadline {
                return Err(error).with_context(|| format!("create a topic at {servers}"));
            }
            clock::sleep(Duration::from_millis(50)).await;
        };
        let processes = nodes.map(|nodes| nodes.processes()).unwrap_or_default();
        let meter = Meter::new(&first, &processes).await?;
        let mut clients = vec![first];
        while clients.len() < usize::from(load.clients) {
            clients.push(Client::connect(servers).await?);
        }
        Ok(Self {
            clients,
            topic,
            meter,
        })
    }

    /// Deletes the topic.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        if let Some(client) = self.clients.first() {
            let deleted = client.admin().delete_topic(&self.topic).await;
            deleted.with_context(|| format!("delete the topic {}", self.topic))?;
        }
        Ok(())
    }
}

async fn begin(load: &Load, servers: &str, topic: &str) -> Result<Client, ClientError> {
    let client = Client::connect(servers).await?;
    let settings = BTreeMap::from([("durability".to_owned(), load.durability.as_str().to_owned())]);
    let new = NewTopic {
        name: topic.to_owned(),
        partitions: load.partitions,
        replication_factor: load.replicas,
        settings,
    };
    match client.admin().create_topic(new).await {
        // An earlier attempt whose answer was lost: the name is this run's own.
        Err(error) if error.code() == Some(seriatim_client::ErrorCode::TopicExists) => {}
        created => drop(created?),
    }
    Ok(client)
}
