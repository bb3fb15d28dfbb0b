//! Nothing acknowledged is lost and nothing is repeated, whichever nodes are killed.

use seriatim_tests::{
    cluster::Cluster,
    events,
    producing::Producing,
    story::{Load, Outcome, story},
};

/// Lines a second: slow enough that every kill falls into the writing.
const RATE: u32 = 2_500;

/// Lines in the file of events.
const LINES: usize = 27_004;

/// A cluster with a topic of six partitions, and a month of flights on its way there.
async fn under_way(more: &[&str]) -> anyhow::Result<(Cluster, Producing)> {
    let cluster = Cluster::of_three().await?;
    let create = ["topic", "create", "flights", "--partitions", "6"];
    let args = create.into_iter().chain(["--replicas", "3"]);
    let args: Vec<&str> = args.chain(more.iter().copied()).collect();
    let _created = cluster.cli().ok(&args).await?;
    let producing = Producing::start(&cluster, "flights", &events::file(), RATE)?;
    Ok((cluster, producing))
}

#[test]
fn nodes_killed_in_turn_lose_nothing_acknowledged() -> Outcome {
    story(Load::Shared, async {
        let (mut cluster, producing) = under_way(&[]).await?;
        for (victim, acknowledged) in [(1, 3_000), (2, 9_000), (3, 15_000)] {
            producing.reach(acknowledged).await?;
            cluster.node_mut(victim)?.kill().await?;
            // Two nodes go on alone for a while.
            producing.reach(acknowledged + 2_000).await?;
            cluster.node_mut(victim)?.start()?;
            cluster.node_mut(victim)?.ready().await?;
        }
        assert_eq!(producing.finish(&mut cluster).await?, LINES);
        Ok(())
    })
}

#[test]
fn all_nodes_killed_at_once_lose_nothing_acknowledged() -> Outcome {
    story(Load::Shared, async {
        let (mut cluster, producing) = under_way(&[]).await?;
        for acknowledged in [4_000, 12_000] {
            producing.reach(acknowledged).await?;
            cluster.kill_all().await?;
            cluster.start_all()?;
            cluster.ready_all().await?;
        }
        assert_eq!(producing.finish(&mut cluster).await?, LINES);
        Ok(())
    })
}

#[test]
fn killed_processes_lose_nothing_of_a_topic_without_fsync() -> Outcome {
    story(Load::Shared, async {
        let (mut cluster, producing) = under_way(&["--set", "durability=os"]).await?;
        producing.reach(5_000).await?;
        cluster.kill_all().await?;
        cluster.start_all()?;
        producing.reach(10_000).await?;
        let leader = cluster.leader("flights", 0).await?;
        cluster.node_mut(leader)?.kill().await?;
        cluster.node_mut(leader)?.start()?;
        assert_eq!(producing.finish(&mut cluster).await?, LINES);
        Ok(())
    })
}
