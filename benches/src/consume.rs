//! `consume`: reads a whole topic from the start with consumers that know nothing yet.

use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use seriatim_client::{Client, Position};
use seriatim_proto::ids::TopicPartition;
use seriatim_runtime::{clock, task};

use crate::{
    field::Field,
    load::{Orders, send_all},
    output,
    plan::Load,
    report::Measured,
    tally::Tally,
    window::Window,
};

/// How long a consumer waits for records that are there.
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub(crate) async fn run(load: &Load, field: &Field, fill_bytes: u64) -> anyhow::Result<Measured> {
    let filled = fill(load, field, fill_bytes).await?;
    let shares = shares(load, field).await?;
    let bar = output::progress("consume");
    let before = field.meter.read().await;
    let began = clock::now();
    let mut readers = Vec::new();
    for (client, share) in field.clients.iter().zip(shares) {
        let (client, topic, bar) = (client.clone(), field.topic.clone(), bar.clone());
        readers.push(task::spawn("consume", async move {
            read(&client, &topic, &share, &bar).await
        }));
    }
    let mut tally = Tally::default();
    for reader in readers {
        tally.merge(&reader.await??);
    }
    let length = began.elapsed();
    let cost = field.meter.since(before).await;
    bar.finish_and_clear();
    if tally.records < filled.records {
        let missing = filled.records - tally.records;
        tally.failures.add(missing, &"acknowledged and not read");
    }
    tally.failures.merge(&filled.failures);
    Ok(Measured {
        tally,
        unsent: 0,
        length,
        cost,
        read: None,
    })
}

async fn fill(load: &Load, field: &Field, fill_bytes: u64) -> anyhow::Result<Tally> {
    let bar = output::progress("fill");
    let orders = Orders {
        topic: field.topic.clone(),
        window: Window::open(clock::now()),
        records: Some(fill_bytes.div_ceil(u64::try_from(load.record_size)?)),
        rate: None,
        stamped: false,
    };
    let sending = send_all(load, &field.clients, &orders, &bar).await?;
    bar.finish_and_clear();
    Ok(sending.tally)
}

/// A partition and the number of records in it.
type Share = Vec<(i32, i64)>;

/// The partitions of each client.
async fn shares(load: &Load, field: &Field) -> anyhow::Result<Vec<Share>> {
    let client = field.clients.first().context("there is no client")?;
    let ends: Vec<_> = (0..load.partitions)
        .map(|partition| (TopicPartition::new(&field.topic, partition), Position::End))
        .collect();
    let ends = client.admin().list_offsets(&ends).await?;
    let mut shares = vec![Share::new(); field.clients.len()];
    let turns = (0..shares.len()).cycle();
    for ((partition, end), turn) in (0..).zip(ends).zip(turns) {
        if let Some(share) = shares.get_mut(turn) {
            share.push((partition, end.0));
        }
    }
    Ok(shares)
}

async fn read(
    client: &Client,
    topic: &str,
    share: &Share,
    bar: &ProgressBar,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut left: i64 = share.iter().map(|(_, end)| end).sum();
    if left == 0 {
        return Ok(tally);
    }
    let mut builder = client.consumer();
    for (partition, _) in share {
        builder = builder.assign(topic, *partition, Position::Start);
    }
    let mut consumer = builder.build().await?;
    while left > 0 {
        let asked = clock::now();
        let next = clock::timeout(SILENCE_MAX, consumer.next_batch()).await;
        let Ok(batch) = next else {
            bail!("{left} records did not arrive within {SILENCE_MAX:?}");
        };
        let batch = batch.context("the consumer ended")??;
        let waited = asked.elapsed();
        let (mut records, mut bytes) = (0, 0);
        for record in batch.records()? {
            let value = record?.value.unwrap_or_default();
            records += 1;
            bytes += u64::try_from(value.len())?;
        }
        tally.read(records, bytes, waited);
        bar.inc(records);
        left -= i64::try_from(records)?;
    }
    Ok(tally)
}
