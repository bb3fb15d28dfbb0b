//! What an operator does takes as long as it takes, and waits for what is broken meanwhile.

use std::time::Duration;

use anyhow::bail;
use seriatim_client::Client;
use seriatim_runtime::clock;

use super::Nemesis;
use crate::live::{cluster::Claim, http};

/// Longest wait for one step.
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(200);

impl Nemesis {
    /// Asks until there is an answer; `None` if all faults are to end before.
    ///
    /// # Errors
    /// If there is none for far too long.
    pub(super) async fn patiently<T>(
        &self,
        what: &str,
        mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        let deadline = clock::now() + PATIENCE;
        let mut last = "it does not hold".to_owned();
        while clock::now() < deadline {
            match self.enough.run_until_cancelled(ask()).await {
                Some(Ok(Some(answer))) => return Ok(Some(answer)),
                Some(Ok(None)) => {}
                Some(Err(error)) => last = format!("{error:#}"),
                None => return Ok(None),
            }
            let pause = self.enough.run_until_cancelled(clock::sleep(PAUSE));
            if pause.await.is_none() {
                return Ok(None);
            }
        }
        bail!("{what}: not within {PATIENCE:?}: {last}")
    }

    /// A client of its own.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        let servers = self.stage.cluster.servers().await;
        Ok(Client::connect(&servers).await?)
    }

    /// These nodes, once no other fault has them.
    pub(super) async fn claim(&self, nodes: &[u64]) -> Option<Claim> {
        let claimed = self.patiently("nobody has the node", async || {
            Ok(self.stage.cluster.claim(nodes))
        });
        claimed.await.ok().flatten()
    }

    /// Waits until a node is part of the cluster.
    pub(super) async fn ready(&self, node: u64) -> anyhow::Result<()> {
        let address = self.stage.cluster.node(node).await?.spec.listen.http;
        let ready = self.patiently("the node is ready", async || {
            let code = http::get(address, "/readyz").await?;
            Ok((code == 200).then_some(()))
        });
        let _early = ready.await?;
        Ok(())
    }

    /// Waits until every replica runs where it is to be.
    pub(super) async fn replicated(&self) -> anyhow::Result<()> {
        let admin = self.client().await?.admin();
        let replicated = self.patiently("every replica runs", async || {
            let status = admin.cluster_status().await?;
            let behind = status.partitions.iter().find(|partition| {
                partition.leader.is_none()
                    || partition.is_under_replicated()
                    || partition.moving.is_some()
            });
            match behind {
                Some(partition) => bail!("{partition:?}"),
                None => Ok((!status.partitions.is_empty()).then_some(())),
            }
        });
        let _early = replicated.await?;
        Ok(())
    }
}
