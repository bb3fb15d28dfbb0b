//! Nothing acknowledged is lost and nothing is repeated, whichever nodes are killed.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use seriatim_tests::{
    cli,
    cluster::Cluster,
    events, judge,
    story::{Load, Outcome, story},
    wait,
};
use tokio::process::Child;

const LIMIT: Duration = Duration::from_secs(60);

/// Lines a second: slow enough that every kill falls into the writing.
const RATE: &str = "2500";

#[test]
fn nodes_killed_in_turn_lose_nothing_acknowledged() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Cluster::of_three().await?;
        create(&cluster, &[]).await?;
        let producing = Producing::start(&cluster)?;
        for (victim, acknowledged) in [(1, 3_000), (2, 9_000), (3, 15_000)] {
            producing.reach(acknowledged).await?;
            cluster.node_mut(victim)?.kill().await?;
            // Two nodes go on alone for a while.
            producing.reach(acknowledged + 2_000).await?;
            cluster.node_mut(victim)?.start()?;
            cluster.node_mut(victim)?.ready().await?;
        }
        producing.finish(&mut cluster).await
    })
}

#[test]
fn all_nodes_killed_at_once_lose_nothing_acknowledged() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Cluster::of_three().await?;
        create(&cluster, &[]).await?;
        let producing = Producing::start(&cluster)?;
        for acknowledged in [4_000, 12_000] {
            producing.reach(acknowledged).await?;
            cluster.kill_all().await?;
            cluster.start_all()?;
            cluster.ready_all().await?;
        }
        producing.finish(&mut cluster).await
    })
}

#[test]
fn a_killed_process_loses_nothing_of_a_topic_without_fsync() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Cluster::of_three().await?;
        create(&cluster, &["--set", "durability=os"]).await?;
        let producing = Producing::start(&cluster)?;
        producing.reach(5_000).await?;
        cluster.kill_all().await?;
        cluster.start_all()?;
        producing.reach(10_000).await?;
        let leader = cluster.leader("flights", 0).await?;
        cluster.node_mut(leader)?.kill().await?;
        cluster.node_mut(leader)?.start()?;
        producing.finish(&mut cluster).await
    })
}

async fn create(cluster: &Cluster, more: &[&str]) -> anyhow::Result<()> {
    let create = [
        "topic",
        "create",
        "flights",
        "--partitions",
        "6",
        "--replicas",
        "3",
    ];
    let args: Vec<&str> = create.iter().chain(more).copied().collect();
    let _created = cluster.cli().ok(&args).await?;
    Ok(())
}

/// A `seriatim produce` of a month of flights under way.
struct Producing {
    child: Child,
    acknowledged: PathBuf,
}

impl Producing {
    fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let acknowledged = cluster.folder().join("acknowledged");
        let file = events::file();
        let files = (file.to_str(), acknowledged.to_str());
        let (Some(file), Some(acked)) = files else {
            anyhow::bail!("a path is not UTF-8");
        };
        let child = cluster.cli().spawn(&[
            "produce",
            "flights",
            "--file",
            file,
            "--key-field",
            "tailnum",
            "--rate",
            RATE,
            "--acknowledged",
            acked,
        ])?;
        Ok(Self {
            child,
            acknowledged,
        })
    }

    /// Waits until so many lines are acknowledged.
    async fn reach(&self, count: usize) -> anyhow::Result<()> {
        let what = format!("{count} lines are acknowledged");
        wait::until(&what, LIMIT, async || {
            let acknowledged = judge::acknowledged(&self.acknowledged)?.len();
            Ok((acknowledged >= count).then_some(()))
        })
        .await
    }

    /// Waits for the end, reads everything back and checks it, and the files of the nodes.
    async fn finish(self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let finished = cli::finish(self.child).await?;
        ensure!(finished.status.success(), "produce: {}", finished.stderr);
        let lines = events::lines(&events::file())?;
        let acknowledged = judge::acknowledged(&self.acknowledged)?;
        assert_eq!(
            acknowledged.len(),
            lines.len(),
            "all lines are acknowledged"
        );
        let consume = ["consume", "flights", "--from", "start", "--until", "end"];
        let args: Vec<&str> = consume.into_iter().chain(["--output", "json"]).collect();
        let consumed = judge::consumed(&cluster.cli().ok(&args).await?)?;
        assert_eq!(
            consumed.len(),
            lines.len(),
            "all lines are read, and no more"
        );
        judge::exactly_once(&lines, &acknowledged, &consumed)?;
        for record in &consumed {
            assert_eq!(
                record.key,
                events::tailnum(&record.value)?,
                "keyed by aircraft"
            );
        }
        cluster.stop_and_check().await.context("after all was read")
    }
}
