//! A topic that is written to for long and keeps little: whether the disk stays small and readers
//! right.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use seriatim_client::{
    Client, Compression, Consumer, ErrorCode, NewTopic, Position, ProducerRecord,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{cluster::Cluster, wait};

const TOPIC: &str = "flood";

/// Size of a value.
pub const VALUE_BYTES: usize = 16 << 10;

/// Pause between two looks at the data folders.
const LOOK: Duration = Duration::from_millis(100);

/// Longest that the writer may wait for one acknowledgement, or a reader for a batch.
const STALL: Duration = Duration::from_secs(60);

/// Longest until a follower that was away has dropped what the others have, and the disk is small.
const CALM: Duration = Duration::from_secs(60);

/// How much to write and to keep.
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    /// Bytes of values to write.
    pub bytes: u64,
    /// The topic's `retention.bytes`.
    pub retained: u64,
    /// Whether a follower is killed for the middle third.
    pub kill: bool,
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Records written, all of them acknowledged.
    pub written: u64,
    /// How long that took.
    pub seconds: f64,
    /// Records that the reader at the end has checked.
    pub tailed: u64,
    /// Records that the readers from the start have checked.
    pub reread: u64,
    /// Times that a reader was told that its records are gone.
    pub resets: u64,
    /// Most bytes of a data folder at any time.
    pub peak_bytes: u64,
    /// Bytes of the largest data folder at the end.
    pub end_bytes: u64,
    /// Where the records began at the end.
    pub log_start: i64,
}

/// Writes, reads and looks at the disk, all at once; fails at the first wrong record. `progress` is told
/// the records written and the largest data folder every few seconds.
///
/// # Errors
/// What is wrong.
pub async fn run(
    cluster: &mut Cluster,
    flood: Flood,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Seen> {
    let client = cluster.client().await?;
    create(&client, flood.retained).await?;
    let records = flood.bytes / u64::try_from(VALUE_BYTES)?;
    let shared = Arc::new(Shared::default());
    let mut readers = JoinSet::new();
    let _tail = readers.spawn(tail(cluster.client().await?, records, Arc::clone(&shared)));
    for pause_ms in [0, 20] {
        let client = cluster.client().await?;
        let pause = Duration::from_millis(pause_ms);
        let _reader = readers.spawn(from_start(client, pause, Arc::clone(&shared)));
    }
    let began = Instant::now();
    let mut writer = JoinSet::new();
    let _writer = writer.spawn(write(client, records, Arc::clone(&shared)));
    let watched = watch(cluster, flood, records, &shared, progress).await;
    shared.done.store(true, Ordering::Relaxed);
    watched?;
    while let Some(written) = writer.join_next().await {
        written??;
    }
    let seconds = began.elapsed().as_secs_f64();
    while let Some(reader) = readers.join_next().await {
        reader??;
    }
    let (log_start, end_bytes) = calm(cluster, flood.retained).await?;
    let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
    Ok(Seen {
        written: records,
        seconds,
        tailed: read(&shared.tailed),
        reread: read(&shared.reread),
        resets: read(&shared.resets),
        peak_bytes: read(&shared.peak),
        end_bytes,
        log_start,
    })
}

/// The value with this number: told apart from every other in each of its words.
pub fn value(number: u64) -> Bytes {
    let mut out = Vec::with_capacity(VALUE_BYTES);
    let mut word = number;
    while out.len() < VALUE_BYTES {
        out.extend_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
    out.into()
}

#[derive(Debug, Default)]
struct Shared {
    written: AtomicU64,
    tailed: AtomicU64,
    reread: AtomicU64,
    resets: AtomicU64,
    peak: AtomicU64,
    /// The writer has ended, or what it does no longer matters.
    done: AtomicBool,
}

impl Shared {
    /// Returns once `done` is set.
    async fn ended(&self) {
        while !self.done.load(Ordering::Relaxed) {
            sleep(LOOK).await;
        }
    }
}

async fn create(client: &Client, retained: u64) -> anyhow::Result<()> {
    let settings = [
        ("retention.bytes", retained.to_string()),
        ("retention.ms", "-1".to_owned()),
    ];
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: 1,
        replication_factor: 3,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
    };
    let _created = client.admin().create_topic(topic).await?;
    Ok(())
}

/// One producer and one partition: the number of a record is its offset.
async fn write(client: Client, records: u64, shared: Arc<Shared>) -> anyhow::Result<()> {
    let producer = client
        .producer()
        .compression(Compression::None)
        .build()
        .await?;
    let mut deliveries = std::collections::VecDeque::new();
    for number in 0..records {
        let record = ProducerRecord::new(TOPIC, value(number)).partition(0);
        deliveries.push_back((number, producer.send(record).await?));
        while deliveries.len() > 256 || (number + 1 == records && !deliveries.is_empty()) {
            let Some((number, delivery)) = deliveries.pop_front() else {
                break;
            };
            let stored = timeout(STALL, delivery)
                .await
                .context("no acknowledgement")??;
            ensure!(
                u64::try_from(stored.offset.0)? == number,
                "record {number} was stored at offset {}",
                stored.offset
            );
            shared.written.store(number + 1, Ordering::Relaxed);
        }
    }
    producer.close().await?;
    Ok(())
}

/// Checks the records of the next batch; `None` where its records are gone.
async fn check(consumer: &mut Consumer) -> anyhow::Result<Option<(u64, i64)>> {
    let next = timeout(STALL, consumer.next_batch()).await;
    let batch = match next.context("nothing to read")?.context("no partition")? {
        Ok(batch) => batch,
        Err(error) if error.code() == Some(ErrorCode::OffsetOutOfRange) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut count = 0;
    let mut end = 0;
    for record in batch.records()? {
        let record = record?;
        let offset = record.offset.0;
        let number = u64::try_from(offset)?;
        ensure!(
            record.value == Some(value(number)),
            "offset {offset} reads another record than was written there"
        );
        count += 1;
        end = offset + 1;
    }
    Ok(Some((count, end)))
}

/// Reads to the end; where records are gone, goes on at the start.
async fn tail(client: Client, records: u64, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut consumer = client
        .consumer()
        .assign(TOPIC, 0, Position::Start)
        .build()
        .await?;
    let mut end = 0;
    while u64::try_from(end)? < records {
        match check(&mut consumer).await? {
            Some((count, next)) => {
                ensure!(
                    next > end || count == 0,
                    "read backwards: {next} after {end}"
                );
                end = next.max(end);
                let _before = shared.tailed.fetch_add(count, Ordering::Relaxed);
            }
            None => {
                let _before = shared.resets.fetch_add(1, Ordering::Relaxed);
                let start = consumer.seek(TOPIC, 0, Position::Start).await?;
                ensure!(start.0 > end, "there are records at {end}, after {start}");
            }
        }
    }
    Ok(())
}

/// Reads from the start again and again, slowly: always where records are being removed.
async fn from_start(client: Client, pause: Duration, shared: Arc<Shared>) -> anyhow::Result<()> {
    /// Batches until it begins anew.
    const BATCHES: usize = 40;
    let mut consumer = client
        .consumer()
        .assign(TOPIC, 0, Position::Start)
        .build()
        .await?;
    let mut batches = 0;
    while !shared.done.load(Ordering::Relaxed) {
        // At the end of the log nothing comes any more once the writer has ended.
        let checked = tokio::select! {
            checked = check(&mut consumer) => checked?,
            () = shared.ended() => return Ok(()),
        };
        match checked {
            Some((count, _)) => {
                batches += 1;
                let _before = shared.reread.fetch_add(count, Ordering::Relaxed);
            }
            None => {
                let _before = shared.resets.fetch_add(1, Ordering::Relaxed);
                batches = BATCHES;
            }
        }
        if batches >= BATCHES {
            batches = 0;
            let _start = consumer.seek(TOPIC, 0, Position::Start).await?;
        }
        sleep(pause).await;
    }
    Ok(())
}

/// Looks at the data folders until all is written, and kills a follower for a while.
async fn watch(
    cluster: &mut Cluster,
    flood: Flood,
    records: u64,
    shared: &Shared,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<()> {
    let mut told = Instant::now();
    let mut since = (0, Instant::now());
    let mut away = None;
    loop {
        let written = shared.written.load(Ordering::Relaxed);
        let largest = largest_folder(cluster)?;
        let _before = shared.peak.fetch_max(largest, Ordering::Relaxed);
        if written >= records {
            return Ok(());
        }
        if written > since.0 {
            since = (written, Instant::now());
        }
        ensure!(
            since.1.elapsed() < STALL,
            "no record is acknowledged any more"
        );
        if told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            progress(written, largest);
        }
        if flood.kill && away.is_none() && written >= records / 3 {
            let follower = cluster.leader(TOPIC, 0).await? % 3 + 1;
            cluster.node_mut(follower)?.kill().await?;
            away = Some(follower);
        }
        if let Some(follower) = away
            && written >= records * 2 / 3
            && !cluster.node(follower)?.is_running()
        {
            cluster.node_mut(follower)?.start()?;
        }
        sleep(LOOK).await;
    }
}

/// Waits until all replicas are alike and every data folder is small again; where the records begin,
/// and the largest folder.
async fn calm(cluster: &mut Cluster, retained: u64) -> anyhow::Result<(i64, u64)> {
    cluster.ready_all().await?;
    cluster.settle().await?;
    let client = cluster.client().await?;
    let position = [(
        seriatim_client::TopicPartition::new(TOPIC, 0),
        Position::Start,
    )];
    let start = client.admin().list_offsets(&position).await?;
    let start = start.first().context("no offset")?.0;
    let largest = wait::until("the data folders are small", CALM, async || {
        let largest = largest_folder(cluster)?;
        ensure!(largest <= retained * 3 / 2, "{largest} bytes");
        Ok(Some(largest))
    })
    .await?;
    Ok((start, largest))
}

fn largest_folder(cluster: &Cluster) -> anyhow::Result<u64> {
    let sizes = cluster.nodes().iter().map(|node| size(&node.data));
    let mut largest = 0;
    for size in sizes {
        largest = largest.max(size?);
    }
    Ok(largest)
}

/// Bytes that a folder takes on disk, without what is set aside.
fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // It may be gone already.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let taken = metadata.blocks() * 512;
        // The metadata store sets space aside behind its end, whatever the logs keep.
        let is_store = entry.path().ends_with("meta/db");
        bytes += if is_store {
            taken.min(metadata.len())
        } else {
            taken
        };
        if metadata.is_dir() {
            match size(&entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                inner => bytes += inner?,
            }
        }
    }
    Ok(bytes)
}
