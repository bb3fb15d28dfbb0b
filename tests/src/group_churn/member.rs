//! One member of the group, in a process of its own.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::StreamExt as _;
use seriatim_client::{Client, Consumer, GroupBatch, Rebalance, TopicPartition};
use tokio::signal::unix::{SignalKind, signal};

use super::journal::{Event, Journal};

/// What a member has to know.
#[derive(Debug, clap::Args)]
pub struct MemberArgs {
    /// gRPC addresses of the cluster
    #[arg(long)]
    servers: String,
    /// The topic
    #[arg(long)]
    topic: String,
    /// The group
    #[arg(long)]
    group: String,
    /// Its name in the journal
    #[arg(long)]
    name: String,
    /// Where to write what it does
    #[arg(long)]
    journal: PathBuf,
    /// Milliseconds
    #[arg(long)]
    session_timeout_ms: u64,
}

/// Reads as a member until SIGTERM, and leaves then.
///
/// # Errors
/// Whatever ends the member before.
pub async fn run(args: MemberArgs) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let journal = Arc::new(Journal::open(&args.journal)?);
    let client = Client::connect(&args.servers).await?;
    let told = Arc::clone(&journal);
    let name = args.name.clone();
    let builder = Consumer::group(&client, args.group)
        .topics([args.topic])
        .client_id(args.name.clone())
        .session_timeout(Duration::from_millis(args.session_timeout_ms))
        .on_rebalance(move |change, _handle| {
            let noted = note(&told, &name, change);
            // A journal that cannot be written is no evidence.
            noted.expect("the journal can be written");
            std::future::ready(())
        });
    let mut consumer = builder.build().await.context("join")?;
    loop {
        let batch = tokio::select! {
            _ = term.recv() => break,
            batch = consumer.next() => batch,
        };
        let batch = batch.context("the member has ended")??;
        process(&journal, &args.name, &batch)?;
    }
    consumer.close().await.context("leave")
}

fn process(journal: &Journal, name: &str, batch: &GroupBatch) -> anyhow::Result<()> {
    let partition = batch.partition();
    for record in batch.records()? {
        let record = record?;
        let expected = value(partition, record.offset.0);
        if record.value.as_deref() != Some(expected.as_bytes()) {
            journal.append(&Event::Wrong(name.to_owned(), partition, record.offset.0))?;
        }
    }
    let (from, to) = (batch.first_offset().0, batch.next_offset().0);
    journal.append(&Event::Processed(name.to_owned(), partition, from, to))
}

fn note(journal: &Journal, name: &str, change: Rebalance) -> anyhow::Result<()> {
    let all = |make: fn(String, i32) -> Event, partitions: Vec<TopicPartition>| {
        let mut events = partitions
            .into_iter()
            .map(|tp| make(name.to_owned(), tp.partition.0));
        events.try_for_each(|event| journal.append(&event))
    };
    match change {
        Rebalance::Assigned(partitions) => all(Event::Gained, partitions),
        Rebalance::Revoked(partitions) => all(Event::Given, partitions),
        Rebalance::Lost(partitions) => all(Event::Lost, partitions),
    }
}

/// The event at an offset: one producer fills each partition in order.
pub(super) fn value(partition: i32, offset: i64) -> String {
    format!("event {offset} of partition {partition}")
}
