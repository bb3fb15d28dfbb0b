//! `seriatim demo`: a real cluster of three processes on this machine, a month of real events, a
//! killed leader, and a check of everything that was promised.

mod events;
mod nodes;
mod replicas;
mod run;
mod verdict;

use std::time::Duration;

use anyhow::Context as _;
use seriatim_client::{Admin, Client, ClusterStatus, NewTopic};
use seriatim_runtime::clock;

use self::{nodes::Nodes, run::Run, verdict::Verdict};
use crate::cli::{Interrupted, common::tell, interrupted};

const TOPIC: &str = "flights";
const PARTITIONS: i32 = 6;
const REPLICAS: u32 = 3;
/// Longest wait for anything that takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// Options of the demo.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seriatim demo\n  seriatim demo --rate 10000 --keep")]
pub(crate) struct DemoArgs {
    /// Events per second
    #[arg(long, default_value_t = 3000, value_name = "EVENTS_PER_S", value_parser = clap::value_parser!(u32).range(100..=100_000))]
    rate: u32,
    /// Keep the data folder and the nodes' logs
    #[arg(long)]
    keep: bool,
}

/// Runs the demo; fails if anything that was promised did not hold.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut folder = tempfile::Builder::new()
        .prefix("seriatim-demo-")
        .tempdir()
        .context("make a temporary folder")?;
    if args.keep {
        folder.disable_cleanup(true);
    }
    tell(&format!(
        "starting three nodes in {}",
        folder.path().display()
    ));
    let mut nodes = Nodes::start(folder.path())?;
    let outcome = tokio::select! {
        outcome = show(&args, &mut nodes) => outcome,
        interrupted = interrupted() => Err(interrupted),
    };
    if let Err(error) = &outcome
        && !error.is::<Interrupted>()
    {
        tell(&nodes.log_ends());
    }
    // Before the folder goes, so that nobody writes to it any more.
    nodes.end().await;
    if args.keep {
        tell(&format!("data and logs are in {}", folder.path().display()));
    } else {
        let path = folder.path().display().to_string();
        folder.close().with_context(|| format!("remove {path}"))?;
    }
    outcome
}

async fn show(args: &DemoArgs, nodes: &mut Nodes) -> anyhow::Result<()> {
    let began = clock::now();
    let client = connect(nodes).await?;
    let admin = client.admin();
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: PARTITIONS,
        replication_factor: REPLICAS,
        ..NewTopic::default()
    };
    let _shape = admin
        .create_topic(topic)
        .await
        .context("create the topic")?;
    let ready = began.elapsed();
    let events = events::load()?;
    tell(&format!(
        "topic {TOPIC}: {PARTITIONS} partitions on {REPLICAS} replicas; producing {} events",
        events.len()
    ));
    let mut run = Run::new(client, events, args.rate);
    let outcome = run.go(&admin, nodes).await?;
    caught_up(&admin).await?;
    nodes.stop().await?;
    tell("comparing the replicas byte by byte");
    let compared = replicas::compare(&nodes.data_dirs()).await;
    let verdict = Verdict::judge(&run, &outcome, compared, ready);
    verdict.print()?;
    verdict.into_result()
}

async fn connect(nodes: &mut Nodes) -> anyhow::Result<Client> {
    let deadline = clock::now() + PATIENCE;
    loop {
        nodes.check_running()?;
        match Client::connect(&nodes.servers()).await {
            Ok(client) => {
                let described = client.admin().cluster_status().await;
                if described.is_ok_and(|status| is_formed(&status)) {
                    return Ok(client);
                }
            }
            Err(error) if clock::now() >= deadline => {
                return Err(error).context("the nodes do not answer");
            }
            Err(_not_yet) => {}
        }
        anyhow::ensure!(
            clock::now() < deadline,
            "the nodes formed no cluster within {} s",
            PATIENCE.as_secs()
        );
        clock::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether every node is part of the cluster and answers.
fn is_formed(status: &ClusterStatus) -> bool {
    let up = status.nodes.iter().filter(|n| n.unreachable.is_none());
    status.controller.is_some() && up.count() == 3
}

/// Waits until every replica has the whole log.
async fn caught_up(admin: &Admin) -> anyhow::Result<()> {
    let deadline = clock::now() + PATIENCE;
    loop {
        let behind = match admin.cluster_status().await {
            Ok(status) => {
                let replicas = status.partitions.iter().flat_map(|p| &p.replicas);
                replicas
                    .filter(|r| r.state != "running" || r.lag != Some(0))
                    .count()
            }
            Err(_not_now) => usize::MAX,
        };
        if behind == 0 {
            return Ok(());
        }
        anyhow::ensure!(
            clock::now() < deadline,
            "{behind} replicas have not caught up within {} s",
            PATIENCE.as_secs()
        );
        clock::sleep(Duration::from_millis(50)).await;
    }
}
