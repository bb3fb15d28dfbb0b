//! The logs of all replicas, compared byte by byte after the nodes have stopped.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use seriatim_client::Client;
use seriatim_proto::{
    batch::BatchHeader,
    ids::Offset,
    v1::{self, admin_client::AdminClient},
};
use seriatim_runtime::clock;
use seriatim_storage::{
    Log, LogKey, LogOptions, Storage, StorageOptions,
    disk::{Disk, PosixDisk},
    verify,
};

use super::wait;

/// How long replicas may take to catch up after everything is mended.
const SETTLE: Duration = Duration::from_secs(90);
/// How long a node may take to say what it holds.
const ASK: Duration = Duration::from_secs(5);
/// Bytes compared at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// A replica: on which node, and its number, which no other replica has.
pub(super) type Place = (u64, u64);

/// What each replica is a replica of.
pub(super) type Places = BTreeMap<Place, (String, i32)>;

/// Waits until every partition has a leader and every replica runs without lag.
pub(super) async fn settle(client: &Client) -> anyhow::Result<()> {
    let admin = client.admin();
    wait::until("all replicas have caught up", SETTLE, async || {
        let status = admin.cluster_status().await?;
        let behind = status.partitions.iter().find(|partition| {
            partition.leader.is_none()
                || partition.moving.is_some()
                || partition.is_under_replicated()
                || partition
                    .replicas
                    .iter()
                    .any(|replica| replica.lag != Some(0))
        });
        match behind {
            Some(partition) => bail!("{partition:?}"),
            None => Ok((!status.partitions.is_empty()).then_some(())),
        }
    })
    .await
}

/// Asks each node what it holds.
pub(super) async fn places(nodes: &[(u64, SocketAddr)]) -> anyhow::Result<Places> {
    let mut places = Places::new();
    for &(node, address) in nodes {
        let what = || format!("ask node {node} for its replicas");
        let ask = async {
            let mut admin = AdminClient::connect(format!("http://{address}")).await?;
            let status = admin.node_status(v1::NodeStatusRequest {}).await?;
            anyhow::Ok(status.into_inner())
        };
        let status = clock::timeout(ASK, ask).await.with_context(what)?;
        for replica in status.with_context(what)?.replicas {
            let place = (node, replica.replica_id);
            let _none = places.insert(place, (replica.topic, replica.partition));
        }
    }
    Ok(places)
}

/// The replicas that a stopped node holds.
pub(super) struct Opened {
    node: u64,
    storage: Storage,
    logs: Vec<(LogKey, anyhow::Result<Log>)>,
}

impl Opened {
    /// Opens what lies in a data folder.
    pub(super) async fn open(node: u64, folder: &Path) -> anyhow::Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(PosixDisk);
        let storage = Storage::open(disk, folder, StorageOptions::default())
            .with_context(|| format!("open {}", folder.display()))?;
        let mut logs = Vec::new();
        for key in storage.logs() {
            let log = storage.open_log(key, LogOptions::default()).await;
            logs.push((key, log.with_context(|| format!("open log {key}"))));
        }
        Ok(Self {
            node,
            storage,
            logs,
        })
    }

    /// The logs of partitions that somebody knows, with what they are of.
    pub(super) fn known<'a>(
        &'a self,
        places: &'a Places,
    ) -> impl Iterator<Item = (&'a (String, i32), &'a anyhow::Result<Log>)> {
        self.logs.iter().filter_map(|(key, log)| {
            let place = (self.node, key.replica.0);
            Some((places.get(&place)?, log))
        })
    }

    pub(super) async fn close(self) {
        drop(self.logs);
        self.storage.shutdown().await;
    }
}

/// Stands for the bytes of the batches between two offsets (FNV-1a, 64 bits).
pub(super) async fn digest(
    log: &anyhow::Result<Log>,
    start: i64,
    end: i64,
) -> anyhow::Result<String> {
    let log = match log {
        Ok(log) => log,
        Err(error) => bail!("{error:#}"),
    };
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut from = Offset(start);
    while from.0 < end {
        let pieces = log.read_batches(from, Offset(end), CHUNK_BYTES).await?;
        let bytes: Vec<u8> = pieces.into_iter().flatten().collect();
        let next = end_of(&bytes)?;
        let next = next.with_context(|| format!("offset {} cannot be read", from.0))?;
        for byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        from = next;
    }
    Ok(format!("{hash:016x}"))
}

/// The offset after the last of whole batches.
fn end_of(mut batches: &[u8]) -> anyhow::Result<Option<Offset>> {
    let mut end = None;
    while !batches.is_empty() {
        let header = BatchHeader::parse(batches)?;
        end = Some(header.next_offset());
        let rest = batches.get(header.total_bytes()..);
        batches = rest.context("a batch is cut off")?;
    }
    Ok(end)
}

/// Damage in a data folder.
pub(super) fn damage(folder: &Path) -> anyhow::Result<Vec<String>> {
    let disk: Arc<dyn Disk> = Arc::new(PosixDisk);
    let report = verify::verify_dir(&disk, folder, &mut |_, _| {})?;
    let places = report.damage.iter().map(|damage| {
        let file: PathBuf = damage.file.clone();
        format!(
            "{} at byte {}: {}",
            file.display(),
            damage.position,
            damage.what
        )
    });
    Ok(places.collect())
}
