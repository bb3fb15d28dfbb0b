//! `seriatim demo`: a real cluster of three processes on this machine, a month of real events, a
//! killed leader, and a check of everything that was promised.

mod events;
mod nodes;
mod replicas;
mod run;
mod verdict;

use std::time::Duration;

use anyhow::Context as _;
use seriatim_client::{Admin, Client, NewTopic};
use seriatim_runtime::clock;

use self::{nodes::Nodes, run::Run, verdict::Verdict};

const TOPIC: &str = "flights";
const PARTITIONS: i32 = 6;
const REPLICAS: u32 = 3;

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
        .tempdir()?;
    if args.keep {
        folder.disable_cleanup(true);
    }
    tokio::select! {
        outcome = in_folder(&args, folder.path()) => outcome,
        // The nodes are ended when their handles are dropped.
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted")
        }
    }
}

async fn in_folder(args: &DemoArgs, folder: &std::path::Path) -> anyhow::Result<()> {
    let began = clock::now();
    say(&format!("starting three nodes in {}", folder.display()));
    let mut nodes = Nodes::start(folder)?;
    let client = connect(&mut nodes).await?;
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
    let mut run = Run::new(client, events, args.rate);
    let outcome = run.go(&admin, &mut nodes).await?;
    caught_up(&admin).await?;
    nodes.stop().await?;
    say("comparing the replicas byte by byte");
    let compared = replicas::compare(&nodes.data_dirs()).await;
    let verdict = Verdict::judge(&run, &outcome, compared, ready);
    verdict.print()?;
    verdict.into_result()
}

/// A line about progress.
#[expect(clippy::print_stderr, reason = "progress goes to standard error")]
fn say(line: &str) {
    eprintln!("{line}");
}

async fn connect(nodes: &mut Nodes) -> anyhow::Result<Client> {
    let deadline = clock::now() + Duration::from_secs(20);
    loop {
        nodes.check_running()?;
        match Client::connect(&nodes.servers()).await {
            Ok(client) => {
                let described = client.admin().cluster_status().await;
                if described.is_ok_and(|s| s.nodes.len() == 3 && s.controller.is_some()) {
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
            "the nodes formed no cluster within 20 s"
        );
        clock::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until every replica has the whole log.
async fn caught_up(admin: &Admin) -> anyhow::Result<()> {
    let deadline = clock::now() + Duration::from_secs(20);
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
            "{behind} replicas have not caught up within 20 s"
        );
        clock::sleep(Duration::from_millis(50)).await;
    }
}
