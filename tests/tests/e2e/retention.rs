//! Old records go: by themselves, and on request.

use seriatim_tests::{
    cli::Cli,
    cluster::{Cluster, Setup},
    retention::{self, Flood, VALUE_BYTES},
    story::{Load, Outcome, story},
};

const MIB: u64 = 1 << 20;

/// What a command says that fails.
async fn refused(cli: &Cli, args: &[&str]) -> anyhow::Result<String> {
    let finished = cli.run(args).await?;
    anyhow::ensure!(!finished.status.success(), "{args:?} succeeded");
    Ok(finished.stderr)
}

#[test]
fn much_is_written_little_is_kept_and_no_reader_is_deceived() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Setup::nodes(3)
            .setting("retention_interval_ms = 500")
            .start()
            .await?;
        let flood = Flood {
            bytes: 200 * MIB,
            retained: 24 * MIB,
            kill: true,
        };
        let seen = retention::run(&mut cluster, flood, &mut |_, _| {}).await?;
        assert!(seen.log_start > 0 && seen.reread > 0, "{seen:?}");
        let kept = seen.written - u64::try_from(seen.log_start)?;
        assert!(kept * u64::try_from(VALUE_BYTES)? >= 20 * MIB, "{seen:?}");
        assert!(seen.end_bytes <= 36 * MIB, "{seen:?}");
        cluster.stop_and_check().await
    })
}

#[test]
fn records_are_trimmed_on_request() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Cluster::of_three().await?;
        let cli = cluster.cli().clone();
        let _created = cli
            .ok(&["topic", "create", "t", "--partitions", "2"])
            .await?;
        let client = cluster.client().await?;
        let producer = client.producer().build().await?;
        for n in 0..20 {
            let record = seriatim_client::ProducerRecord::new("t", n.to_string());
            let _stored = producer.send(record.partition(n % 2)).await?.await?;
        }
        let trim = ["topic", "trim", "t", "--partition", "1", "--before", "4"];
        let trimmed = cli.json(&trim).await?;
        assert_eq!(trimmed["partitions"][0]["log_start_offset"], 4, "{trimmed}");
        let consume = ["consume", "t", "--partition", "1", "--until", "end"];
        let from = |at| [&consume[..], &["--from", at]].concat();
        assert_eq!(cli.ok(&from("start")).await?, "9\n11\n13\n15\n17\n19\n");
        let beyond = ["topic", "trim", "t", "--partition", "1", "--before", "11"];
        let why = refused(&cli, &beyond).await?;
        assert!(why.contains("ends at 10"), "{why}");
        // All partitions, to their ends; and still so after all nodes were killed.
        let all = cli.json(&["topic", "trim", "t", "--before", "end"]).await?;
        let starts = (0..2).map(|n| all["partitions"][n]["log_start_offset"].clone());
        assert_eq!(starts.collect::<Vec<_>>(), [10, 10], "{all}");
        cluster.kill_all().await?;
        cluster.start_all()?;
        cluster.ready_all().await?;
        let status = cluster.status().await?;
        for partition in status["partitions"].as_array().into_iter().flatten() {
            assert_eq!(partition["high_watermark"], 10, "{status}");
        }
        assert_eq!(cli.ok(&from("start")).await?, "");
        let gone = refused(&cli, &from("3")).await?;
        assert!(gone.contains("10"), "{gone}");
        cluster.stop_and_check().await
    })
}
