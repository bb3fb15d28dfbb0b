//! Nodes of one process over loopback with one partition on real files; no cluster layer.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "each test file uses its own part; a helper that fails is a test that fails"
)]

use std::{collections::BTreeMap, net::TcpListener, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use seriatim_consensus::{Consensus, ConsensusOptions, Lane, Role};
use seriatim_partition::{
    Append, AppendError, Appended, Fetch, FetchError, Partition, PartitionSpec,
};
use seriatim_proto::{
    batch::RecordBatch,
    compression::Compression,
    ids::{GroupId, NodeId, Offset, ProducerId, ReplicaId, TopicPartition},
    record::{BatchBuilder, ProducerStamp, decode_records},
    settings::TopicSettings,
};
use seriatim_runtime::{
    clock::{self, Instant},
    net::Net,
    task::TaskGroup,
};
use seriatim_storage::{LogKey, Storage, StorageOptions, disk::PosixDisk};
use tempfile::TempDir;

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const GROUP: GroupId = GroupId(7);

pub(crate) fn deadline() -> Instant {
    clock::now() + PATIENCE
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = deadline();
    while !condition() {
        assert!(clock::now() < deadline, "not in time: {what}");
        clock::sleep(Duration::from_millis(5)).await;
    }
}

/// A batch of records with these values; `stamp` is producer and first sequence number.
pub(crate) fn batch(values: &[&str], stamp: Option<(i64, i32)>) -> RecordBatch {
    timed_batch(values, 1000, stamp)
}

/// The same, the first record at a time and each next one a millisecond later.
pub(crate) fn timed_batch(values: &[&str], time: i64, stamp: Option<(i64, i32)>) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for (at, value) in (time..).zip(values) {
        let _ = builder
            .push(at, None, Some(value.as_bytes()), &[])
            .expect("fits");
    }
    let stamp = stamp.map(|(id, base_sequence)| ProducerStamp {
        id: ProducerId(id),
        epoch: 0,
        base_sequence,
    });
    RecordBatch::from_producer(builder.finish(stamp).unwrap()).unwrap()
}

pub(crate) fn request(batch: RecordBatch) -> Append {
    Append {
        batch,
        expected_end: None,
        deadline: deadline(),
    }
}

pub(crate) async fn append(
    partition: &Partition,
    batch: RecordBatch,
) -> Result<Appended, AppendError> {
    partition.append(request(batch)).await
}

/// Everything from an offset to the high watermark, as (offset, value).
pub(crate) async fn read(
    partition: &Partition,
    from: i64,
) -> Result<Vec<(i64, String)>, FetchError> {
    let mut records = Vec::new();
    let mut next = Offset(from);
    loop {
        let fetched = partition
            .fetch(Fetch {
                offset: next,
                max_bytes: 1 << 20,
                deadline: deadline(),
            })
            .await?;
        let mut bytes = Bytes::from(fetched.batches.concat());
        assert_eq!(bytes.len(), fetched.bytes);
        while !bytes.is_empty() {
            let header = seriatim_proto::batch::BatchHeader::parse(&bytes).unwrap();
            let batch = RecordBatch::parse(bytes.split_to(header.total_bytes())).unwrap();
            for record in decode_records(&batch).unwrap() {
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                records.push((record.offset.0, value));
            }
            next = header.next_offset();
        }
        if next >= fetched.high_watermark {
            return Ok(records);
        }
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) partition: Partition,
    pub(crate) storage: Storage,
    consensus: Consensus,
    tasks: TaskGroup,
}

impl Node {
    async fn start(
        dir: &Path,
        (number, replica): (usize, u64),
        addresses: &[String],
        settings: TopicSettings,
    ) -> Self {
        let id = |number: usize| u64::try_from(number).unwrap();
        let tasks = TaskGroup::new();
        let disk = Arc::new(PosixDisk);
        let options = StorageOptions {
            // Most reads meet the files.
            cache_bytes: 64 << 10,
            ..StorageOptions::default()
        };
        let storage = Storage::open(disk, dir, options).expect("open");
        let me = NodeId(id(number));
        let lane = Lane::start(
            Net::tokio(),
            &addresses[number - 1],
            me,
            || Some("test".to_owned()),
            tasks.clone(),
        )
        .await
        .expect("listen");
        for (peer, address) in (1..).zip(addresses) {
            lane.set_peer(NodeId(id(peer)), Some(address.clone()));
        }
        let options = ConsensusOptions {
            node_id: me,
            ..ConsensusOptions::default()
        };
        let consensus = Consensus::new(options, storage.clone(), lane);
        let spec = PartitionSpec {
            name: TopicPartition::new("flights", 0),
            key: LogKey {
                group: GROUP,
                replica: ReplicaId(replica),
            },
            settings,
        };
        let partition = Partition::open(&consensus, spec).await.expect("open");
        Self {
            partition,
            storage,
            consensus,
            tasks,
        }
    }

    async fn stop(self) {
        self.partition.close().await;
        self.consensus.shutdown().await;
        let _ = self.tasks.shutdown(PATIENCE).await;
        self.storage.shutdown().await;
    }

    pub(crate) fn leads(&self) -> bool {
        self.partition.group().state().borrow().role == Role::Leader
    }
}

/// Nodes 1 to n with their folders; a node may be down.
pub(crate) struct Nodes {
    dirs: Vec<TempDir>,
    addresses: Vec<String>,
    settings: TopicSettings,
    /// Replica id of each node.
    replicas: BTreeMap<usize, u64>,
    pub(crate) running: BTreeMap<usize, Node>,
}

impl Nodes {
    /// Starts n nodes and initializes the partition on all of them.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, TopicSettings::default()).await
    }

    /// The same with other settings of the topic.
    pub(crate) async fn start_with(count: usize, settings: TopicSettings) -> Self {
        // All ports are held at once, so that they differ.
        let listeners: Vec<TcpListener> = (0..count)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses = listeners
            .iter()
            .map(|l| l.local_addr().unwrap().to_string())
            .collect();
        drop(listeners);
        let mut nodes = Self {
            dirs: (0..count).map(|_| TempDir::new().unwrap()).collect(),
            addresses,
            settings,
            replicas: (1..=count)
                .map(|n| (n, u64::try_from(n).unwrap()))
                .collect(),
            running: BTreeMap::new(),
        };
        for number in 1..=count {
            nodes.start_node(number).await;
        }
        let members = (1..=u64::try_from(count).unwrap())
            .map(|id| (ReplicaId(id), NodeId(id)))
            .collect();
        let first = nodes.running[&1].partition.group().clone();
        first.initialize(members).await.unwrap();
        nodes
    }

    pub(crate) async fn start_node(&mut self, number: usize) {
        let dir = self.dirs[number - 1].path();
        let place = (number, self.replicas[&number]);
        let node = Node::start(dir, place, &self.addresses, self.settings.clone()).await;
        let _ = self.running.insert(number, node);
    }

    /// Takes the folder of a stopped node away; when it starts again it has another replica.
    pub(crate) fn lose_disk(&mut self, number: usize, replica: u64) {
        self.dirs[number - 1] = TempDir::new().unwrap();
        let _ = self.replicas.insert(number, replica);
    }

    /// Bytes of the segments of a node.
    pub(crate) fn disk_bytes(&self, number: usize) -> u64 {
        let mut dirs = vec![self.dirs[number - 1].path().join("logs")];
        let mut bytes = 0;
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
                if entry.path().is_dir() {
                    dirs.push(entry.path());
                } else if entry.path().extension().is_some_and(|e| e == "seg") {
                    // It may be removed right now.
                    bytes += entry.metadata().map_or(0, |meta| meta.len());
                }
            }
        }
        bytes
    }

    pub(crate) async fn stop_node(&mut self, number: usize) {
        self.running.remove(&number).expect("running").stop().await;
    }

    pub(crate) async fn stop(mut self) {
        for number in self.running.keys().copied().collect::<Vec<_>>() {
            self.stop_node(number).await;
        }
    }

    /// The node that leads, once one does and serves.
    pub(crate) async fn leader(&self) -> usize {
        let deadline = deadline();
        loop {
            for (number, node) in &self.running {
                let fetch = Fetch {
                    offset: Offset(0),
                    max_bytes: 1,
                    deadline,
                };
                let fetched = node.partition.fetch(fetch).await;
                // Out of range: old records are gone, and it knows how far there are others.
                let serves = matches!(fetched, Ok(_) | Err(FetchError::OffsetOutOfRange { .. }));
                if node.leads() && serves {
                    return *number;
                }
            }
            assert!(clock::now() < deadline, "no leader in time");
            clock::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn leading(&self) -> Partition {
        self.running[&self.leader().await].partition.clone()
    }
}
