//! One node: the layers wired together, from start to shutdown.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use seriatim_broker::{Broker, BrokerLimits};
use seriatim_cluster::{Cluster, ClusterOptions};
use seriatim_consensus::{Consensus, Lane};
use seriatim_gateway::{grpc, http};
use seriatim_groups::Groups;
use seriatim_runtime::{
    clock,
    net::Net,
    task::{self, TaskGroup},
};
use seriatim_storage::{Storage, disk::PosixDisk};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::config::Config;

/// How long each part may take to stop.
const STOP: Duration = Duration::from_secs(3);

/// How long a stopping node may take to hand over what it leads.
const HAND_OVER: Duration = Duration::from_secs(4);

/// How long calls under way may take to end after that.
const LAST_CALLS: Duration = Duration::from_millis(1500);

/// Runs a node until SIGTERM or SIGINT, or until it finds that it cannot be part of its cluster.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let prometheus = crate::metrics::install()?;
    let storage = open_storage(&config).await?;
    let grpc_listener = bind("listen.grpc", &config.listen.grpc).await?;
    let http_listener = bind("listen.http", &config.listen.http).await?;
    let tasks = TaskGroup::new();
    let identity = storage.clone();
    let lane = Lane::start(
        Net::tokio(),
        &config.listen.replication,
        config.node_id,
        move || {
            identity
                .identity()
                .read()
                .ok()
                .flatten()
                .and_then(|id| id.cluster_id)
        },
        tasks.clone(),
    )
    .await
    .with_context(|| listening("listen.replication", &config.listen.replication))?;
    let consensus = Consensus::new(config.consensus.clone(), storage.clone(), lane.clone());
    let groups = Groups::new(storage.clone(), config.groups.clone());
    let cluster = Cluster::start(
        cluster_options(&config),
        storage.clone(),
        consensus.clone(),
        lane,
        groups.host(),
        tasks.clone(),
    )
    .await?;
    groups.attach(&cluster);
    let broker = Broker::new(
        cluster.clone(),
        groups,
        storage.clone(),
        &BrokerLimits {
            append_bytes: config.append_bytes,
        },
    );
    let grpc = serve(
        &config,
        (grpc_listener, http_listener),
        &broker,
        (prometheus, &consensus),
        &tasks,
    );

    let outcome = tokio::select! {
        signal = stop_signal() => signal,
        error = cluster.failed() => Err(anyhow::Error::new(error).context("this node cannot go on")),
    };
    if outcome.is_ok() {
        hand_over(&cluster).await;
    }
    broker.stop();
    if clock::timeout(LAST_CALLS, grpc).await.is_err() {
        tracing::info!("some clients keep their connections: closing them");
    }
    cluster.shutdown().await;
    consensus.shutdown().await;
    if !tasks.shutdown(STOP).await {
        tracing::warn!("some connections did not end in time");
    }
    storage.shutdown().await;
    tracing::info!("stopped");
    outcome
}

/// Gives away what this node leads, so that nobody has to wait for an election; a second signal ends
/// that at once.
async fn hand_over(cluster: &Cluster) {
    tracing::info!("stopping: handing over what this node leads");
    tokio::select! {
        left = cluster.hand_over(clock::now() + HAND_OVER) => {
            if left > 0 {
                tracing::info!(groups = left, "nobody could take over some groups");
            }
        }
        _second = stop_signal() => tracing::warn!("stopping at once"),
    }
}

fn cluster_options(config: &Config) -> ClusterOptions {
    ClusterOptions {
        node_id: config.node_id,
        rack: config.rack.clone(),
        seeds: config.seeds.clone(),
        grpc_addr: config.advertise.grpc.clone(),
        replication_addr: config.advertise.replication.clone(),
        http_addr: config.advertise.http.clone(),
        retention_interval: config.retention_interval,
        leader_balance_interval: config.leader_balance_interval,
        ..ClusterOptions::default()
    }
}

async fn open_storage(config: &Config) -> anyhow::Result<Storage> {
    let dir = config.data_dir.clone();
    std::fs::create_dir_all(&dir)
        .with_context(|| format!("make the data folder {}", dir.display()))?;
    let options = config.storage.clone();
    let open = move || Storage::open(Arc::new(PosixDisk), &dir, options);
    let opened = task::blocking("open-storage", open).await;
    opened.with_context(|| format!("open the data folder {}", config.data_dir.display()))
}

fn serve(
    config: &Config,
    (grpc_listener, http_listener): (TcpListener, TcpListener),
    broker: &Broker,
    (prometheus, consensus): (PrometheusHandle, &Consensus),
    tasks: &TaskGroup,
) -> task::JoinHandle<()> {
    let (ready_sender, ready) = watch::channel(false);
    let cluster = broker.cluster().clone();
    let node = config.node_id.0;
    let _task = tasks.spawn("ready", async move {
        if cluster.ready().await.is_ok() {
            tracing::info!(node, cluster = %cluster.image().cluster_id, "this node is ready");
            let _old = ready_sender.send_replace(true);
        }
    });
    tracing::info!(
        node,
        grpc = %config.listen.grpc,
        replication = %config.listen.replication,
        http = %config.listen.http,
        "listening"
    );
    let (of_grpc, broker_of_grpc) = (tasks.clone(), broker.clone());
    let grpc = task::spawn("grpc", async move {
        if let Err(error) = grpc::serve(grpc_listener, broker_of_grpc, of_grpc).await {
            tracing::error!(%error, "the gRPC listener failed");
        }
    });
    let (groups, partitions) = (consensus.clone(), broker.clone());
    let state = http::HttpState {
        prometheus,
        refresh_gauges: Arc::new(move || {
            groups.refresh_gauges();
            partitions.refresh_gauges();
        }),
        broker: broker.clone(),
        ready,
    };
    let of_http = tasks.clone();
    let _task = task::spawn("http", async move {
        if let Err(error) = http::serve(http_listener, state, of_http).await {
            tracing::error!(%error, "the HTTP listener failed");
        }
    });
    grpc
}

fn listening(name: &str, address: &str) -> String {
    format!("{name}: cannot listen at {address}; is another process using it?")
}

async fn bind(name: &str, address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| listening(name, address))
}

async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for signals")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
