//! How nodes become a cluster, stay one, and refuse what is not theirs.

use std::{fs, time::Duration};

use anyhow::Context as _;
use seriatim_client::Client;
use seriatim_tests::{
    cli::{self, Cli, Finished},
    cluster::Setup,
    http,
    node::{Addresses, Node},
    ports,
    story::{Load, Outcome, story},
    wait,
};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

/// Runs `seriatim start` for a configuration that must be refused, and returns what it says.
async fn refused(node: &Node) -> anyhow::Result<String> {
    let cli = Cli::new("");
    let config = node.config().to_str().context("the path is not UTF-8")?;
    let running = cli.spawn(&["start", "--config", config])?;
    let Finished { status, stderr, .. } = timeout(LIMIT, cli::finish(running))
        .await
        .context("the node runs on")??;
    assert_eq!(status.code(), Some(1), "{stderr}");
    Ok(stderr)
}

fn addresses() -> anyhow::Result<Addresses> {
    Ok(Addresses {
        grpc: ports::free_address()?,
        replication: ports::free_address()?,
        http: ports::free_address()?,
    })
}

#[test]
fn three_nodes_with_the_same_seeds_are_one_cluster_and_find_it_again() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Setup::nodes(3).prepare()?;
        // The first seed comes last: the others wait for it.
        for id in [3, 2, 1] {
            cluster.node_mut(id)?.start()?;
        }
        cluster.ready_all().await?;
        let mut ids = Vec::new();
        for node in cluster.nodes() {
            ids.push(Client::connect(&node.addresses.grpc).await?.cluster_id());
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "one cluster id: {ids:?}");
        let _created = cluster
            .cli()
            .ok(&["topic", "create", "t", "--replicas", "3"])
            .await?;

        // Each comes back alone and into the same cluster.
        for id in [1, 2, 3] {
            cluster.node_mut(id)?.kill().await?;
            cluster.node_mut(id)?.start()?;
            cluster.node_mut(id)?.ready().await?;
            let address = &cluster.node(id)?.addresses.grpc;
            assert_eq!(Client::connect(address).await?.cluster_id(), ids[0]);
        }
        // All of them, orderly.
        cluster.stop().await?;
        cluster.start_all()?;
        cluster.ready_all().await?;
        let client = cluster.client().await?;
        assert_eq!(client.cluster_id(), ids[0]);
        assert_eq!(client.partitions("t").await?, 1);
        Ok(())
    })
}

#[test]
fn the_first_seed_comes_back_while_another_node_is_down() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Setup::nodes(3).start().await?;
        let create = ["topic", "create", "t", "--replicas", "3"];
        let _created = cluster.cli().ok(&create).await?;
        cluster.node_mut(3)?.kill().await?;
        // More than once: what it must not wait for may come first by chance.
        for _ in 0..4 {
            cluster.node_mut(1)?.kill().await?;
            cluster.node_mut(1)?.start()?;
            cluster.node_mut(1)?.ready().await?;
        }
        let produced = cluster.cli().run_with(&["produce", "t"], b"two of three\n");
        assert!(produced.await?.status.success(), "a majority is up");
        Ok(())
    })
}

#[test]
fn a_node_with_the_data_of_another_cluster_refuses_to_join() -> Outcome {
    story(Load::Shared, async {
        let mut theirs = Setup::nodes(1).start().await?;
        let ours = Setup::nodes(3).start().await?;
        theirs.stop().await?;
        let seeds: Vec<String> = ours
            .nodes()
            .iter()
            .map(|node| node.addresses.replication.clone())
            .collect();
        let folder = tempfile::tempdir()?;
        let data = &theirs.node(1)?.data;
        let node = Node::new(1, addresses()?, &seeds, (folder.path(), data), "")?;
        let says = refused(&node).await?;
        assert!(says.contains("belongs to cluster"), "{says}");
        assert!(says.contains(&ours.client().await?.cluster_id()), "{says}");

        // Nor may a node take over another's folder.
        let other = Node::new(2, addresses()?, &seeds, (folder.path(), data), "")?;
        let says = refused(&other).await?;
        assert!(says.contains("belongs to node 1"), "{says}");
        Ok(())
    })
}

#[test]
fn what_another_process_holds_is_named() -> Outcome {
    story(Load::Shared, async {
        let cluster = Setup::nodes(1).start().await?;
        let holder = cluster.node(1)?;
        let folder = tempfile::tempdir()?;

        let elsewhere = addresses()?;
        let seeds = [elsewhere.replication.clone()];
        let same_data = Node::new(1, elsewhere, &seeds, (folder.path(), &holder.data), "")?;
        let says = refused(&same_data).await?;
        let data = holder.data.to_str().context("the path is not UTF-8")?;
        assert!(says.contains(data) && says.contains("process"), "{says}");

        let taken = &holder.addresses;
        for name in ["grpc", "replication", "http"] {
            let mut mine = addresses()?;
            match name {
                "grpc" => mine.grpc.clone_from(&taken.grpc),
                "replication" => mine.replication.clone_from(&taken.replication),
                _ => mine.http.clone_from(&taken.http),
            }
            let data = folder.path().join(name);
            let seeds = [mine.replication.clone()];
            let node = Node::new(1, mine.clone(), &seeds, (folder.path(), &data), "")?;
            let says = refused(&node).await?;
            assert!(says.contains(&format!("listen.{name}")), "{says}");
        }

        // The one that was there is not disturbed, and its folder cannot be verified meanwhile.
        let _topics = cluster.cli().ok(&["topic", "list"]).await?;
        let busy = cluster.cli().run(&["log", "verify", data]).await?;
        assert_eq!(busy.status.code(), Some(1));
        assert!(busy.stderr.contains("process"), "{}", busy.stderr);
        Ok(())
    })
}

#[test]
fn an_unknown_key_names_the_nearest() -> Outcome {
    story(Load::Shared, async {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let mine = addresses()?;
        let seeds = [mine.replication.clone()];
        let node = Node::new(1, mine, &seeds, (folder.path(), &data), "append_byts = 1")?;
        let says = refused(&node).await?;
        assert!(
            says.contains("'append_byts'") && says.contains("'append_bytes'"),
            "{says}"
        );
        assert!(!fs::exists(&data)?, "nothing was made");
        Ok(())
    })
}

#[test]
fn the_file_is_below_the_environment_and_that_below_flags() -> Outcome {
    story(Load::Shared, async {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let mine = addresses()?;
        let (by_environment, by_flag) = (ports::free_address()?, ports::free_address()?);
        let seeds = [mine.replication.clone()];
        let node = Node::new(1, mine.clone(), &seeds, (folder.path(), &data), "")?;
        let config = node.config().to_str().context("the path is not UTF-8")?;
        let args = ["start", "--config", config, "--listen-grpc", &by_flag];
        let mut command = Cli::new("").command(&args)?;
        let _running = command
            .env("SERIATIM_LISTEN_GRPC", &by_environment)
            .env("SERIATIM_LISTEN_HTTP", &by_environment)
            .spawn()?;
        let ready = wait::until("it is ready", LIMIT, async || {
            let (code, _) = http::get(&by_environment, "/readyz").await?;
            Ok((code == 200).then_some(()))
        });
        ready.await?;
        let _topics = Cli::new(by_flag).ok(&["topic", "list"]).await?;
        assert!(tokio::net::TcpStream::connect(&mine.grpc).await.is_err());
        Ok(())
    })
}

#[test]
fn a_node_waits_for_its_seeds_without_being_ready() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Setup::nodes(3).prepare()?;
        cluster.node_mut(2)?.start()?;
        let http = cluster.node(2)?.addresses.http.clone();
        let alive = wait::until("it is alive", LIMIT, async || {
            let (code, _) = http::get(&http, "/healthz").await?;
            Ok((code == 200).then_some(()))
        });
        alive.await?;
        assert_eq!(http::get(&http, "/readyz").await?.0, 503);
        cluster.node_mut(1)?.start()?;
        cluster.node_mut(3)?.start()?;
        cluster.ready_all().await
    })
}

#[test]
fn dev_runs_one_node_with_its_data_here() -> Outcome {
    story(Load::Shared, async {
        let folder = tempfile::tempdir()?;
        let mine = addresses()?;
        let (grpc, http) = (mine.grpc.as_str(), mine.http.as_str());
        let listen = ["--listen-grpc", grpc, "--listen-http", http];
        let lane = ["--listen-replication", &mine.replication];
        let args: Vec<&str> = ["dev"].into_iter().chain(listen).chain(lane).collect();
        let dev = Cli::new(grpc);
        let running = dev.command(&args)?.current_dir(&folder).spawn()?;
        let ready = wait::until("it is ready", LIMIT, async || {
            Ok((http::get(http, "/readyz").await?.0 == 200).then_some(()))
        });
        ready.await?;
        let _created = dev.ok(&["topic", "create", "t"]).await?;
        let produced = dev.run_with(&["produce", "t"], b"hello\n").await?;
        assert!(produced.status.success(), "{}", produced.stderr);
        assert_eq!(
            dev.ok(&["consume", "t", "--from", "0", "--count", "1"])
                .await?,
            "hello\n"
        );
        assert!(fs::exists(folder.path().join("seriatim-data"))?);
        drop(running);
        Ok(())
    })
}
