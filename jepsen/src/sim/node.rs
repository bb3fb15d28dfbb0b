//! One whole node on a simulated disk and network. Clients call its broker in memory, or over gRPC on
//! the simulated network.

use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use seriatim_broker::{Broker, BrokerLimits, MemberStream};
use seriatim_cluster::{Cluster, ClusterOptions};
use seriatim_consensus::{Consensus, ConsensusOptions, Lane};
use seriatim_gateway::grpc;
use seriatim_groups::{GroupOptions, Groups};
use seriatim_proto::{
    batch::{BatchHeader, HEADER_BYTES, RecordBatch},
    ids::{NodeId, Offset, ProducerId, TopicPartition},
    v1,
};
use seriatim_runtime::{
    clock,
    net::Net,
    sim::trace,
    task::{self, TaskGroup},
};
use seriatim_storage::{Storage, StorageOptions, disk::sim::SimDisk};
use tokio::sync::mpsc;

use super::{
    rpc::{Answer, Call, Envelope, Switchboard},
    stop::{self, Running},
    views::Views,
};

/// Replication port of every node.
const PORT: u16 = 7402;

/// Port of every node for clients.
const GRPC_PORT: u16 = 7401;

/// Bytes of log after which consumer groups are compacted: so few that a run sees it, and replicas that
/// were away get snapshots.
const GROUPS_LOG_BYTES: u64 = 32 << 10;

/// How often a node looks for old records.
const RETENTION: Duration = Duration::from_millis(500);

/// What a hash begins with: the offset basis of FNV-1a.
const HASH: u64 = 0xcbf2_9ce4_8422_2325;

/// Pause before a node that could not start, or go on, tries again, as a supervisor would.
const RESTART: Duration = Duration::from_millis(500);

/// What one node needs to start.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// From 1.
    pub id: u64,
    /// Nodes that form the cluster; those after them join it.
    pub founders: u64,
    /// Its disk.
    pub disk: SimDisk,
    /// Its network.
    pub net: Net,
    /// Where clients call it.
    pub switchboard: Switchboard,
    /// Where it shows what it believes.
    pub views: Views,
    /// A planted bug: producer sessions are ignored, so that a retry is stored twice.
    pub forgets_producers: bool,
    /// Shards of the consumer groups.
    pub shards: u32,
    /// Whether it serves gRPC, which costs work even if nobody calls.
    pub grpc: bool,
}

/// The name of a node's host.
pub fn host(node: u64) -> String {
    format!("n{node}")
}

fn address(node: u64) -> String {
    format!("{}:{PORT}", host(node))
}

/// Where a node serves gRPC.
pub fn grpc_address(node: u64) -> String {
    format!("{}:{GRPC_PORT}", host(node))
}

/// Runs a node until its executor is dropped.
pub async fn run(spec: NodeSpec) {
    loop {
        let tasks = TaskGroup::new();
        match start(&spec, &tasks).await {
            Ok(running) => {
                let broker = running.broker.clone();
                let grpc = match spec.grpc {
                    true => serve_grpc(&spec, &running.broker, &tasks).await,
                    false => None,
                };
                spec.views.up(spec.id, broker.clone());
                let mut calls = spec.switchboard.connect(spec.id);
                let failed = tokio::select! {
                    biased;
                    error = broker.cluster().failed() => Some(error),
                    () = serve(&spec, &broker, &mut calls) => None,
                };
                match &failed {
                    Some(error) => spec.views.down(spec.id, error.to_string()),
                    None => stop::hand_over(&broker, serve(&spec, &broker, &mut calls)).await,
                }
                stop::close(running, grpc).await;
                if failed.is_none() {
                    return;
                }
                clock::sleep(RESTART).await;
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(node = spec.id, error, "cannot start");
                spec.views.down(spec.id, error);
                clock::sleep(RESTART).await;
            }
        }
    }
}

async fn serve_grpc(
    spec: &NodeSpec,
    broker: &Broker,
    tasks: &TaskGroup,
) -> Option<task::JoinHandle<()>> {
    let (node, broker, tasks) = (spec.id, broker.clone(), tasks.clone());
    match spec.net.listen(&grpc_address(node)).await {
        Ok(listener) => {
            let serving = task::spawn("grpc", async move {
                if let Err(error) = grpc::serve_on(listener, broker, tasks).await {
                    tracing::error!(node, %error, "the gRPC listener failed");
                }
            });
            Some(serving)
        }
        Err(error) => {
            tracing::error!(node, %error, "cannot serve gRPC");
            None
        }
    }
}

async fn start(spec: &NodeSpec, tasks: &TaskGroup) -> anyhow::Result<Running> {
    let storage = Storage::open(
        Arc::new(spec.disk.clone()),
        Path::new("/data"),
        StorageOptions::default(),
    )?;
    let node_id = NodeId(spec.id);
    let identity = storage.clone();
    let cluster_id = move || identity.identity().read().ok().flatten()?.cluster_id;
    let lane = Lane::start(
        spec.net.clone(),
        &address(spec.id),
        node_id,
        cluster_id,
        tasks.clone(),
    )
    .await?;
    let options = ConsensusOptions {
        node_id,
        ..ConsensusOptions::default()
    };
    let consensus = Consensus::new(options, storage.clone(), lane.clone());
    let options = ClusterOptions {
        node_id,
        seeds: (1..=spec.founders).map(address).collect(),
        replication_addr: address(spec.id),
        grpc_addr: grpc_address(spec.id),
        retention_interval: RETENTION,
        ..ClusterOptions::default()
    };
    let of_groups = GroupOptions {
        shards: spec.shards,
        log_bytes: GROUPS_LOG_BYTES,
        ..GroupOptions::default()
    };
    let groups = Groups::new(storage.clone(), of_groups);
    let cluster = Cluster::start(
        options,
        storage.clone(),
        consensus.clone(),
        lane,
        groups.host(),
        tasks.clone(),
    )
    .await?;
    groups.attach(&cluster);
    let limits = BrokerLimits::default();
    Ok(Running {
        broker: Broker::new(cluster, groups, storage.clone(), &limits),
        consensus,
        storage,
        tasks: tasks.clone(),
    })
}

/// Answers calls until the node is asked to stop.
async fn serve(spec: &NodeSpec, broker: &Broker, calls: &mut mpsc::Receiver<Envelope>) {
    while let Some(Envelope { mut call, reply }) = calls.recv().await {
        if matches!(call, Call::Stop) {
            return;
        }
        if spec.forgets_producers {
            forget_producers(&mut call);
        }
        let broker = broker.clone();
        let _call = task::spawn("call", async move {
            let answer = answer(&broker, call).await;
            // A caller that has given up needs no answer.
            let _gone = reply.send(answer).is_err();
        });
    }
}

async fn answer(broker: &Broker, call: Call) -> Answer {
    match call {
        Call::Produce(request) => Answer::Produced(broker.produce(request, None).await),
        Call::Fetch(request) => Answer::Fetched(broker.fetch(request).await),
        Call::InitProducer => match broker.init_producer().await {
            Ok(session) => Answer::Producer(session),
            Err(error) => Answer::Failed(error),
        },
        Call::CreateTopic(request) => match broker.create_topic(request).await {
            Ok(_created) => Answer::Created,
            Err(error) => Answer::Failed(error),
        },
        Call::Describe(request) => Answer::Described(broker.describe(&request)),
        Call::Reassign(request) => match broker.reassign(request).await {
            Ok(_moves) => Answer::Moving,
            Err(error) => Answer::Failed(error),
        },
        Call::Trim(request) => Answer::Trimmed(broker.trim(request).await),
        Call::FindCoordinators(request) => match broker.find_coordinators(&request).await {
            Ok(found) => Answer::Coordinators(found),
            Err(error) => Answer::Failed(error),
        },
        Call::Member {
            join,
            requests,
            responses,
        } => match broker.join_group(join).await {
            Ok((member, told)) => {
                let line = member_line(member, told, requests, responses);
                let _line = task::spawn("member", line);
                Answer::Joined
            }
            Err(error) => Answer::Failed(error),
        },
        Call::Commit(request) => Answer::Committed(broker.commit_offsets(request).await),
        Call::Offsets(request) => Answer::Offsets(broker.fetch_offsets(request).await),
        // Seen before it comes here.
        Call::Stop => Answer::Stopping,
        Call::Digest {
            topic,
            partition,
            start,
            end,
        } => {
            let range = Offset(start)..Offset(end);
            let tp = TopicPartition::new(topic, partition);
            Answer::Digest(digest(broker, &tp, range).await)
        }
        Call::Image => {
            let image = format!("{:?}", broker.cluster().image());
            Answer::Digest(Some(trace::hash(HASH, image.as_bytes())))
        }
    }
}

/// Carries a member's messages until one side ends.
async fn member_line(
    member: MemberStream,
    mut told: mpsc::Receiver<v1::MemberResponse>,
    mut requests: mpsc::Receiver<v1::MemberRequest>,
    responses: mpsc::Sender<v1::MemberResponse>,
) {
    loop {
        tokio::select! {
            biased;
            message = told.recv() => {
                let Some(message) = message else { return };
                if responses.send(message).await.is_err() {
                    return;
                }
            }
            request = requests.recv() => {
                let Some(request) = request else { return };
                member.receive(request).await;
            }
        }
    }
}

/// Over the batches of this node's replica, stamped headers included.
async fn digest(broker: &Broker, tp: &TopicPartition, range: Range<Offset>) -> Option<u64> {
    let end = range.end;
    let partition = broker.cluster().partition(tp)?;
    if partition.status().high_watermark < end {
        tracing::debug!(%tp, %end, "not far enough to compare");
        return None;
    }
    let (mut hash, mut from) = (HASH, range.start);
    while from < end {
        let log = partition.group().log();
        let batches = match log.read_batches(from, end, 1 << 20).await {
            Ok(batches) => batches,
            Err(error) => {
                tracing::debug!(%tp, %from, %end, %error, "cannot read to compare");
                return None;
            }
        };
        let begun = from;
        // Batch by batch: nodes may cut the same log into other pieces, and a batch into two.
        let mut bytes = Bytes::from(batches.concat());
        while bytes.len() >= HEADER_BYTES {
            let header = BatchHeader::parse(&bytes).ok()?;
            from = header.next_offset();
            let batch = bytes.split_to(header.total_bytes().min(bytes.len()));
            hash = trace::hash(hash, &batch);
        }
        if from <= begun {
            tracing::debug!(%tp, %from, %end, "nothing to read to compare");
            return None;
        }
    }
    Some(hash)
}

fn forget_producers(call: &mut Call) {
    let Call::Produce(v1::ProduceRequest { batches, .. }) = call else {
        return;
    };
    for batch in batches {
        if let Ok(mut parsed) = RecordBatch::parse(batch.record_batch.clone()) {
            parsed.header.producer_id = ProducerId::NONE;
            parsed.header.producer_epoch = -1;
            parsed.header.base_sequence = -1;
            parsed.header.crc = parsed.header.compute_crc(&parsed.body);
            let mut bytes = parsed.header.encode().to_vec();
            bytes.extend_from_slice(&parsed.body);
            batch.record_batch = bytes.into();
        }
    }
}
