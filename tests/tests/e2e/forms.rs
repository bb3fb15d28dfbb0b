//! The forms of the command line that other programs rely on.

use anyhow::Context as _;
use serde_json::{Value, json};
use seriatim_client::{Position, ProducerRecord};
use seriatim_tests::{
    cli::Cli,
    cluster::{Cluster, Setup},
    judge, ports,
    story::{Load, Outcome, story},
};

async fn one_node_with(topic: &[&str]) -> anyhow::Result<Cluster> {
    let cluster = Setup::nodes(1).start().await?;
    let create = ["topic", "create"];
    let args: Vec<&str> = create.iter().chain(topic).copied().collect();
    let _created = cluster.cli().ok(&args).await?;
    Ok(cluster)
}

#[test]
fn produce_tells_where_each_line_was_stored() -> Outcome {
    story(Load::Shared, async {
        let cluster = one_node_with(&["t", "--partitions", "3"]).await?;
        let input = cluster.folder().join("input.ndjson");
        let acked = cluster.folder().join("acked");
        let lines: Vec<String> = (0..200)
            .map(|n| json!({"tailnum": format!("N{}", n % 7), "n": n}).to_string())
            .collect();
        std::fs::write(&input, lines.join("\n") + "\n")?;
        let paths = (input.to_str(), acked.to_str());
        let (Some(input), Some(acked_text)) = paths else {
            anyhow::bail!("a path is not UTF-8");
        };
        let produced = cluster
            .cli()
            .json(&[
                "produce",
                "t",
                "--file",
                input,
                "--key-field",
                "tailnum",
                "--rate",
                "1000",
                "--acknowledged",
                acked_text,
            ])
            .await?;
        assert_eq!(
            (&produced["acknowledged"], &produced["failed"]),
            (&json!(200), &json!(0))
        );
        assert!(
            produced["seconds"].as_f64() >= Some(0.19),
            "--rate is kept: {produced}"
        );
        let acknowledged = judge::acknowledged(&acked)?;
        assert_eq!(acknowledged.len(), 200);
        let consume = [
            "consume", "t", "--from", "start", "--until", "end", "--output", "json",
        ];
        let consumed = judge::consumed(&cluster.cli().ok(&consume).await?)?;
        judge::exactly_once(&lines, &acknowledged, &consumed)
    })
}

#[test]
fn produce_reads_standard_input_and_fails_where_a_line_cannot_be_sent() -> Outcome {
    story(Load::Shared, async {
        let cluster = one_node_with(&["t"]).await?;
        let cli = cluster.cli();
        // The last line needs no end; an empty line is a record.
        let produced = cli.run_with(&["produce", "t"], b"one\r\n\ntwo").await?;
        assert!(produced.status.success(), "{}", produced.stderr);
        let consume = ["consume", "t", "--from", "start", "--until", "end"];
        assert_eq!(cli.ok(&consume).await?, "one\n\ntwo\n");

        let no_json = cli
            .run_with(&["produce", "t", "--key-field", "k"], b"{\"k\":1}\nno\n")
            .await?;
        assert_eq!(no_json.status.code(), Some(1));
        assert!(no_json.stderr.contains("line 1"), "{}", no_json.stderr);
        assert_eq!(
            cli.ok(&consume).await?.lines().count(),
            4,
            "what came before was stored"
        );
        let no_topic = cli.run_with(&["produce", "nowhere"], b"x\n").await?;
        assert_eq!(no_topic.status.code(), Some(1));
        assert!(
            no_topic.stderr.contains("'nowhere' does not exist"),
            "{}",
            no_topic.stderr
        );
        Ok(())
    })
}

#[test]
fn consume_prints_text_as_text_and_bytes_as_base64() -> Outcome {
    story(Load::Shared, async {
        let cluster = one_node_with(&["t"]).await?;
        let client = cluster.client().await?;
        let producer = client.producer().build().await?;
        let text = ProducerRecord::new("t", "flügge")
            .key("k")
            .timestamp_ms(1_000);
        let bytes = ProducerRecord::new("t", vec![0xff, 0xfe])
            .key(vec![0x80])
            .timestamp_ms(2_000);
        let mut bare = ProducerRecord::new("t", "").timestamp_ms(3_000);
        bare.value = None;
        let records = [
            text.header("source", "a").header("raw", vec![0xc0]),
            bytes,
            bare,
        ];
        for record in records {
            let _stored = producer.send(record).await?.await?;
        }
        let consume = [
            "consume", "t", "--from", "start", "--until", "end", "--output", "json",
        ];
        let printed = cluster.cli().ok(&consume).await?;
        let printed: Vec<Value> = printed
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        let expected = [
            json!({
                "partition": 0, "offset": 0, "timestamp": 1_000, "key": "k", "value": "flügge",
                "headers": [{"key": "source", "value": "a"}, {"key": "raw", "value_base64": "wA=="}],
            }),
            json!({
                "partition": 0, "offset": 1, "timestamp": 2_000, "key_base64": "gA==",
                "value_base64": "//4=", "headers": [],
            }),
            json!({
                "partition": 0, "offset": 2, "timestamp": 3_000, "key": null, "value": null,
                "headers": [],
            }),
        ];
        assert_eq!(printed, expected);
        Ok(())
    })
}

#[test]
fn consume_begins_and_ends_where_it_is_told() -> Outcome {
    story(Load::Shared, async {
        let cluster = one_node_with(&["t"]).await?;
        let client = cluster.client().await?;
        let producer = client.producer().build().await?;
        // One a day.
        for n in 0..10 {
            let at = 1_357_000_000_000 + n * 86_400_000;
            let record = ProducerRecord::new("t", n.to_string()).timestamp_ms(at);
            let _stored = producer.send(record).await?.await?;
        }
        let expected: [(&[&str], &str); 6] = [
            (
                &["--from", "start", "--until", "end"],
                "0 1 2 3 4 5 6 7 8 9",
            ),
            (&["--from", "7", "--until", "end"], "7 8 9"),
            (&["--from", "10", "--until", "end"], ""),
            (&["--from", "end", "--until", "end"], ""),
            (&["--from", "start", "--count", "3"], "0 1 2"),
            (&["--from", "2013-01-05T00:00:00Z", "--count", "2"], "4 5"),
        ];
        for (args, values) in expected {
            let args: Vec<&str> = ["consume", "t"].iter().chain(args).copied().collect();
            let printed = cluster.cli().ok(&args).await?;
            let read: Vec<&str> = printed.lines().collect();
            assert_eq!(read.join(" "), values, "{args:?}");
        }
        let beyond = cluster
            .cli()
            .run(&["consume", "t", "--from", "11", "--count", "1"])
            .await?;
        assert_eq!(beyond.status.code(), Some(1), "{beyond:?}");
        assert!(
            beyond.stdout.is_empty() && !beyond.stderr.is_empty(),
            "{beyond:?}"
        );

        // Without --until it waits for what comes: here for the eleventh record.
        let waiting = cluster
            .cli()
            .spawn(&["consume", "t", "--from", "10", "--count", "1"])?;
        let _stored = producer
            .send(ProducerRecord::new("t", "late"))
            .await?
            .await?;
        let finished = seriatim_tests::cli::finish(waiting).await?;
        assert_eq!(
            (finished.status.success(), finished.stdout.as_str()),
            (true, "late\n")
        );
        let mut consumer = client
            .consumer()
            .assign("t", 0, Position::Start)
            .build()
            .await?;
        let first = consumer
            .next_batch()
            .await
            .context("nothing is assigned")??;
        assert_eq!(first.first_offset().0, 0);
        Ok(())
    })
}

#[test]
fn cluster_status_tells_of_every_replica() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Cluster::of_three().await?;
        let create = [
            "topic",
            "create",
            "t",
            "--partitions",
            "2",
            "--replicas",
            "3",
        ];
        let _created = cluster.cli().ok(&create).await?;
        let produced = cluster
            .cli()
            .run_with(&["produce", "t"], b"a\nb\nc\n")
            .await?;
        assert!(produced.status.success(), "{}", produced.stderr);
        cluster.settle().await?;
        let status = cluster.status().await?;
        let partitions = status["partitions"].as_array().context("no partitions")?;
        assert_eq!(partitions.len(), 2);
        let mut records = 0;
        for (number, partition) in partitions.iter().enumerate() {
            assert_eq!(
                (&partition["topic"], &partition["partition"]),
                (&json!("t"), &json!(number))
            );
            assert!(
                partition["leader"].is_u64() && partition["term"].is_u64(),
                "{partition}"
            );
            records += partition["high_watermark"]
                .as_i64()
                .context("no high watermark")?;
            let replicas = partition["replicas"].as_array().context("no replicas")?;
            let nodes: Vec<_> = replicas.iter().map(|r| (&r["node"], &r["lag"])).collect();
            let zero = json!(0);
            let expected = [(&json!(1), &zero), (&json!(2), &zero), (&json!(3), &zero)];
            assert_eq!(nodes, expected);
        }
        assert_eq!(records, 3);
        assert_eq!(
            (&status["under_replicated"], &status["leaderless"]),
            (&json!(0), &json!(0))
        );

        // A node that is gone is part of the status, too.
        cluster.node_mut(3)?.kill().await?;
        let status = cluster.status().await?;
        assert_eq!(status["under_replicated"], 2, "{status}");
        assert_eq!(status["nodes"][2]["state"], "unreachable", "{status}");
        Ok(())
    })
}

#[test]
fn results_and_complaints_go_to_their_own_places() -> Outcome {
    story(Load::Shared, async {
        let nobody = Cli::new(ports::free_address()?);
        let version = nobody.ok(&["--version"]).await?;
        assert!(version.starts_with("seriatim "), "{version}");
        for command in [
            "produce", "consume", "topic", "cluster", "start", "log", "demo", "dev",
        ] {
            let help = nobody.ok(&[command, "--help"]).await?;
            assert!(help.contains("Usage: seriatim"), "{help}");
        }
        for command in ["produce", "consume", "topic", "cluster", "start"] {
            let help = nobody.ok(&[command, "--help"]).await?;
            assert!(
                help.contains("Example"),
                "{command} --help shows no example"
            );
        }
        let completions = nobody.ok(&["completions", "bash"]).await?;
        assert!(completions.contains("_seriatim"), "no completions");
        let wrong = nobody.run(&["topic", "crate", "t"]).await?;
        assert_eq!(wrong.status.code(), Some(2), "wrong usage");
        assert_eq!(wrong.stdout, "");
        let unreachable = nobody.run(&["topic", "list"]).await?;
        assert_eq!(unreachable.status.code(), Some(1));
        assert_eq!(unreachable.stdout, "");
        let complaint = unreachable
            .stderr
            .lines()
            .find(|l| l.starts_with("error: "));
        assert!(complaint.is_some(), "{}", unreachable.stderr);
        let nothing = nobody
            .run(&["log", "verify", "/nonexistent/folder"])
            .await?;
        assert_eq!(nothing.status.code(), Some(1));
        assert!(
            nothing.stderr.contains("/nonexistent/folder"),
            "{}",
            nothing.stderr
        );
        Ok(())
    })
}
