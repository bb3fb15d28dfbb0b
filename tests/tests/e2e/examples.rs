//! What shows how to use it does what it says: the client's examples and the demo.

use std::{path::Path, process::Stdio};

use anyhow::ensure;
use seriatim_tests::{
    binary,
    cli::{Cli, finish},
    cluster::Cluster,
    story::{Load, Outcome, story},
};
use tokio::process::Command;

async fn run(cluster: &Cluster, example: &Path, topic: &str) -> anyhow::Result<String> {
    let child = Command::new(example)
        .arg(topic)
        .env_clear()
        .env("SERIATIM_SERVERS", cluster.servers())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let finished = finish(child).await?;
    ensure!(finished.status.success(), "{}", finished.stderr);
    Ok(finished.stdout)
}

#[test]
fn the_examples_run_against_a_cluster() -> Outcome {
    story(Load::Shared, async {
        let [produce, consume, append_if] =
            ["produce", "consume", "append_if"].map(binary::example);
        let cluster = Cluster::of_three().await?;
        let create = ["topic", "create", "example", "--partitions", "3"];
        let _created = cluster.cli().ok(&create).await?;
        let produced = run(&cluster, &produce?, "example").await?;
        assert_eq!(produced.lines().count(), 10, "{produced}");
        assert!(
            produced
                .lines()
                .all(|l| l.starts_with("partition ") && l.contains(" offset "))
        );
        let consumed = run(&cluster, &consume?, "example").await?;
        let mut values: Vec<_> = consumed
            .lines()
            .filter_map(|l| l.split(": ").nth(1))
            .collect();
        values.sort_unstable();
        let expected: Vec<String> = (0..10).map(|n| format!("event {n}")).collect();
        assert_eq!(values, expected);
        let _created = cluster.cli().ok(&["topic", "create", "accounts"]).await?;
        let append_if = append_if?;
        for end in 0..3 {
            let said = run(&cluster, &append_if, "accounts").await?;
            assert_eq!(said, format!("appended at {end}\n"));
        }
        Ok(())
    })
}

#[test]
fn the_demo_succeeds_and_shows_what_it_verified() -> Outcome {
    story(Load::Alone, async {
        let demo = Cli::new("").run(&["demo"]).await?;
        assert!(demo.status.success(), "{}{}", demo.stdout, demo.stderr);
        for row in [
            "27004",
            "acknowledged events read exactly once",
            "order kept for every key",
            "replicas byte-identical",
            "writes again after SIGKILL of the leader",
        ] {
            assert!(demo.stdout.contains(row), "{row}: {}", demo.stdout);
        }
        Ok(())
    })
}
