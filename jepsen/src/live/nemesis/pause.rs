//! SIGSTOP and SIGCONT: a process that does nothing for a while and does not know it.

use rustix::process::Signal;

use crate::live::stage::Stage;

pub(super) async fn begin(stage: &Stage, nodes: &[u64]) -> anyhow::Result<()> {
    signal(stage, nodes, Signal::STOP).await
}

pub(super) async fn end(stage: &Stage, nodes: &[u64]) -> anyhow::Result<()> {
    signal(stage, nodes, Signal::CONT).await
}

async fn signal(stage: &Stage, nodes: &[u64], signal: Signal) -> anyhow::Result<()> {
    for &node in nodes {
        stage.cluster.node(node).await?.signal(signal)?;
    }
    Ok(())
}
