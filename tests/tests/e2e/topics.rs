//! Topics through the command line.

use std::{fs, path::Path, time::Duration};

use anyhow::Context as _;
use serde_json::json;
use seriatim_tests::{
    cluster::{Cluster, Setup},
    story::{Load, Outcome, story},
    wait,
};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_topic_is_created_described_altered_and_deleted() -> Outcome {
    story(Load::Shared, async {
        let cluster = Cluster::of_three().await?;
        let cli = cluster.cli();
        let created = cli
            .json(&[
                "topic",
                "create",
                "flights",
                "--partitions",
                "6",
                "--replicas",
                "3",
            ])
            .await?;
        assert_eq!(
            created,
            json!({"topic": "flights", "created": true, "partitions": 6, "replicas": 3})
        );
        let _created = cli
            .json(&["topic", "create", "by-default", "--set", "durability=os"])
            .await?;

        let listed = cli.json(&["topic", "list"]).await?;
        let listed = listed.as_array().context("not an array")?;
        let names: Vec<_> = listed.iter().filter_map(|t| t["topic"].as_str()).collect();
        assert_eq!(names, ["by-default", "flights"]);
        assert_eq!(
            listed[0]["replication_factor"], 3,
            "as many as there are nodes, up to 3"
        );
        assert_eq!(listed[0]["settings"]["durability"], "os");

        let described = cli.json(&["topic", "describe", "flights"]).await?;
        let partitions = described["partitions"]
            .as_array()
            .context("no partitions")?;
        assert_eq!(partitions.len(), 6);
        for (number, partition) in partitions.iter().enumerate() {
            assert_eq!(partition["partition"], number);
            assert!(
                (1..=3).contains(&partition["leader"].as_u64().unwrap_or(0)),
                "{partition}"
            );
            let mut replicas: Vec<_> = partition["replicas"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            replicas.sort_by_key(|node| node.as_u64());
            assert_eq!(replicas, [json!(1), json!(2), json!(3)]);
        }

        let alter = [
            "topic",
            "alter",
            "flights",
            "--set",
            "segment.bytes=1048576",
        ];
        let altered = cli.json(&alter).await?;
        assert_eq!(altered["settings"]["segment.bytes"], "1048576");
        let back = cli
            .json(&["topic", "alter", "flights", "--set", "segment.bytes="])
            .await?;
        assert_eq!(back["settings"]["segment.bytes"], "134217728");

        let deleted = cli.json(&["topic", "delete", "flights"]).await?;
        assert_eq!(deleted, json!({"topic": "flights", "deleted": true}));
        let gone = cli.run(&["topic", "describe", "flights"]).await?;
        let says = gone.stderr.contains("'flights' does not exist");
        assert!(gone.status.code() == Some(1) && says, "{gone:?}");
        Ok(())
    })
}

#[test]
fn names_and_settings_that_cannot_be_are_refused() -> Outcome {
    story(Load::Shared, async {
        let cluster = Setup::nodes(1).start().await?;
        let cli = cluster.cli();
        let _created = cli.ok(&["topic", "create", "a.b"]).await?;
        let long = "x".repeat(250);
        let refused: [(&[&str], &str); 11] = [
            (&["topic", "create", "."], "'.'"),
            (&["topic", "create", ".."], "'..'"),
            (&["topic", "create", ""], "empty"),
            (&["topic", "create", &long], "249"),
            (&["topic", "create", "a b"], "letters"),
            (&["topic", "create", "a/b"], "letters"),
            (&["topic", "create", "a_b"], "a.b"),
            (&["topic", "create", "a.b"], "exists"),
            (&["topic", "create", "c", "--replicas", "3"], "node"),
            (
                &["topic", "create", "c", "--set", "durability=never"],
                "fsync or os",
            ),
            (
                &["topic", "alter", "a.b", "--set", "durabilty=os"],
                "durability",
            ),
        ];
        for (args, says) in refused {
            let finished = cli.run(args).await?;
            assert_eq!(finished.status.code(), Some(1), "{args:?}: {finished:?}");
            assert_eq!(finished.stdout, "", "{args:?}");
            assert!(
                finished.stderr.contains(says),
                "{args:?}: {}",
                finished.stderr
            );
        }
        let topics = cli.json(&["topic", "list"]).await?;
        assert_eq!(
            topics.as_array().map(Vec::len),
            Some(1),
            "nothing else was created"
        );
        let _longest = cli.ok(&["topic", "create", &long[..249]]).await?;
        Ok(())
    })
}

#[test]
fn the_data_of_a_deleted_topic_is_gone_from_disk() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Cluster::of_three().await?;
        let cli = cluster.cli();
        let secret = "a line that nobody else writes";
        for topic in ["doomed", "kept"] {
            let _created = cli
                .ok(&["topic", "create", topic, "--partitions", "2"])
                .await?;
            let line = format!("{secret} {topic}\n");
            let produced = cli.run_with(&["produce", topic], line.as_bytes()).await?;
            assert!(produced.status.success(), "{}", produced.stderr);
        }
        cluster.settle().await?;
        let on_disk = |cluster: &Cluster, topic: &str| {
            let text = format!("{secret} {topic}");
            let nodes = cluster.nodes().iter();
            let with = nodes.map(|node| contains(&node.data.join("logs"), text.as_bytes()));
            with.collect::<anyhow::Result<Vec<bool>>>()
        };
        assert_eq!(
            on_disk(&cluster, "doomed")?,
            [true; 3],
            "the search finds what is there"
        );

        // Node 3 is down while it happens and catches up later.
        cluster.node_mut(3)?.kill().await?;
        let _deleted = cluster.cli().ok(&["topic", "delete", "doomed"]).await?;
        wait::until("two nodes have removed the data", LIMIT, async || {
            Ok((on_disk(&cluster, "doomed")?[..2] == [false; 2]).then_some(()))
        })
        .await?;
        cluster.node_mut(3)?.start()?;
        wait::until("the third node has removed the data", LIMIT, async || {
            Ok((on_disk(&cluster, "doomed")? == [false; 3]).then_some(()))
        })
        .await?;
        assert_eq!(on_disk(&cluster, "kept")?, [true; 3]);

        // The name is free, and a topic of that name begins anew.
        let cli = cluster.cli();
        let _created = cli
            .ok(&["topic", "create", "doomed", "--partitions", "2"])
            .await?;
        let read = cli
            .ok(&["consume", "doomed", "--from", "start", "--until", "end"])
            .await?;
        assert_eq!(read, "");
        Ok(())
    })
}

/// Whether a file below a folder contains the text.
fn contains(folder: &Path, text: &[u8]) -> anyhow::Result<bool> {
    // What disappears while it is looked at contains nothing.
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(false);
    };
    for entry in entries {
        let path = entry?.path();
        let here = if path.is_dir() {
            contains(&path, text)?
        } else {
            let bytes = fs::read(&path).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text)
        };
        if here {
            return Ok(true);
        }
    }
    Ok(false)
}
