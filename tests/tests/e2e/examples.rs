//! What shows how to use it does what it says: the client's examples and the demo.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use seriatim_tests::{
    binary,
    cli::{Cli, finish},
    cluster::Cluster,
    story::{Load, Outcome, story},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// Longest that a line of an example may take to come.
const LINE: Duration = Duration::from_secs(30);

fn command(cluster: &Cluster, example: &Path, topic: &str) -> Command {
    let mut command = Command::new(example);
    let _command = command
        .arg(topic)
        .env_clear()
        .env("SERIATIM_SERVERS", cluster.servers())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn interrupt(child: &Child) -> anyhow::Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(Pid::from_raw).context("it has ended")?;
    Ok(kill_process(pid, Signal::INT)?)
}

async fn run(cluster: &Cluster, example: &Path, topic: &str) -> anyhow::Result<String> {
    let child = command(cluster, example, topic).spawn()?;
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
fn the_example_of_a_group_shares_and_goes_on() -> Outcome {
    story(Load::Shared, async {
        let (produce, group) = (binary::example("produce")?, binary::example("group")?);
        let cluster = Cluster::of_three().await?;
        let create = ["topic", "create", "example", "--partitions", "3"];
        let _created = cluster.cli().ok(&create).await?;
        for round in 1..=2 {
            let _produced = run(&cluster, &produce, "example").await?;
            let mut child = command(&cluster, &group, "example")
                .stderr(Stdio::inherit())
                .spawn()?;
            let stdout = child.stdout.take().context("no standard output")?;
            let mut lines = BufReader::new(stdout).lines();
            let mut values = Vec::new();
            while values.len() < 10 {
                let line = timeout(LINE, lines.next_line()).await??;
                let line = line.context("it ended")?;
                values.extend(line.split(": event ").nth(1).map(str::to_owned));
            }
            values.sort_unstable();
            let expected: Vec<String> = (0..10).map(|n| n.to_string()).collect();
            assert_eq!(values, expected, "round {round}: each event once");
            interrupt(&child)?;
            let ended = timeout(LINE, child.wait()).await??;
            ensure!(ended.success(), "{ended}");
        }
        let described = cluster
            .cli()
            .json(&["group", "describe", "example"])
            .await?;
        let partitions = described.get("partitions").and_then(|p| p.as_array());
        let lags: Vec<_> = partitions
            .context("no partitions")?
            .iter()
            .filter_map(|p| p.get("lag").and_then(serde_json::Value::as_i64))
            .collect();
        assert!(
            !lags.is_empty() && lags.iter().all(|lag| *lag == 0),
            "{described}"
        );
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
