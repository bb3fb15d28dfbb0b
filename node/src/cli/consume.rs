//! `seriatim consume`: the records of a topic, one line each.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures::{FutureExt as _, StreamExt as _};
use seriatim_client::{Client, ConsumedBatch, Consumer, Offset, Position, TopicPartition};
use seriatim_runtime::clock;

use super::{
    common::{Servers, reader_gone},
    consume_group::{self, Member},
    fail::interrupted,
    position,
    record::write_json,
};

const EXAMPLES: &str = "Examples:
  seriatim consume flights --from start --until end --output json
  seriatim consume flights --from 2013-01-15T00:00:00Z --count 10
  seriatim consume flights --from -15m
  seriatim consume flights --from 500 --partition 2
  seriatim consume flights --group billing
  seriatim consume flights --group billing --instance-id worker-1 --reset end --output json";

/// How long the rest of the records may take to come where an end is known.
const SILENCE: Duration = Duration::from_secs(60);

/// Print the records of a topic
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The topic
    pub(super) topic: String,
    #[arg(
        long,
        default_value = "end",
        conflicts_with = "group",
        value_name = "start|end|OFFSET|TIME",
        allow_hyphen_values = true,
        help = format!("Where to begin: {}", position::FORMS),
        value_parser = position::parse
    )]
    from: Position,
    /// Stop at what is the end of the topic now (default: wait for more)
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "end",
        conflicts_with = "group"
    )]
    until: Option<Until>,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
    /// Only this partition; may be repeated
    #[arg(long, value_name = "P", conflicts_with = "group")]
    partition: Vec<i32>,
    #[command(flatten)]
    pub(super) group: Member,
    #[command(flatten)]
    pub(super) servers: Servers,
    /// How to print a record: its value and a line feed, or a JSON object a line with partition,
    /// offset, timestamp, key, value, headers
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(super) output: RecordOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Until {
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum RecordOutput {
    #[default]
    #[value(alias = "table")]
    Value,
    Json,
}

/// Runs the verb.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if args.group.group.is_some() {
        return Box::pin(consume_group::run(args)).await;
    }
    tokio::select! {
        biased;
        interrupted = interrupted() => Err(interrupted),
        copied = read(&args) => match copied {
            Err(error) if is_broken_pipe(&error) => Ok(()),
            other => other,
        },
        // Nobody would see what comes after this.
        () = reader_gone() => Ok(()),
    }
}

async fn read(args: &Args) -> anyhow::Result<()> {
    let client = args.servers.connect().await?;
    let partitions = partitions(&client, args).await?;
    let mut ends = BTreeMap::new();
    if args.until.is_some() {
        let at_end: Vec<_> = partitions
            .iter()
            .map(|tp| (tp.clone(), Position::End))
            .collect();
        let found = client.admin().list_offsets(&at_end).await?;
        ends.extend(partitions.iter().map(|tp| tp.partition.0).zip(found));
    }
    let mut builder = client.consumer();
    for tp in &partitions {
        builder = builder.assign(&tp.topic, tp.partition.0, args.from);
    }
    let consumer = builder.build().await?;
    let mut out = BufWriter::with_capacity(1 << 18, io::stdout());
    copy(consumer, args, ends, &mut out).await
}

/// The reader of the output has seen enough.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

async fn partitions(client: &Client, args: &Args) -> anyhow::Result<Vec<TopicPartition>> {
    let count = client.partitions(&args.topic).await?;
    let mut chosen = args.partition.clone();
    if chosen.is_empty() {
        chosen.extend(0..count);
    }
    chosen.sort_unstable();
    chosen.dedup();
    if let Some(bad) = chosen.iter().find(|p| !(0..count).contains(*p)) {
        bail!(
            "topic '{}' has no partition {bad}; it has 0 to {}",
            args.topic,
            count - 1
        );
    }
    Ok(chosen
        .into_iter()
        .map(|p| TopicPartition::new(&args.topic, p))
        .collect())
}

async fn copy(
    mut consumer: Consumer,
    args: &Args,
    ends: BTreeMap<i32, Offset>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut open = ends.clone();
    open.retain(|&p, end| {
        consumer
            .position(&args.topic, p)
            .is_some_and(|at| at < *end)
    });
    while left > 0 && (args.until.is_none() || !open.is_empty()) {
        let Some(batch) = next(&mut consumer, args, out).await? else {
            let missing: Vec<_> = open.keys().map(ToString::to_string).collect();
            bail!(
                "nothing came for {} s, but partition {} is not at its end; \
                 'seriatim cluster status' shows whether it has a leader",
                SILENCE.as_secs(),
                missing.join(", ")
            );
        };
        let end = ends.get(&batch.partition()).copied();
        left -= write_batch(&batch, end, left, args.output, out)?;
        if end.is_some_and(|end| batch.next_offset() >= end) {
            let _done = open.remove(&batch.partition());
            consumer.unassign(&args.topic, batch.partition());
        }
    }
    out.flush()?;
    Ok(())
}

/// The next batch; nothing after a long silence where an end is known. What there is goes out
/// before it waits.
async fn next(
    consumer: &mut Consumer,
    args: &Args,
    out: &mut impl Write,
) -> anyhow::Result<Option<ConsumedBatch>> {
    let next = match consumer.next().now_or_never() {
        Some(next) => next,
        None => {
            out.flush()?;
            if args.until.is_none() {
                consumer.next().await
            } else {
                match clock::timeout(SILENCE, consumer.next()).await {
                    Ok(next) => next,
                    Err(_silence) => return Ok(None),
                }
            }
        }
    };
    Ok(Some(next.context("nothing is assigned")??))
}

/// Writes the batch's records before `end`, at most `limit`; returns how many.
pub(super) fn write_batch(
    batch: &ConsumedBatch,
    end: Option<Offset>,
    limit: u64,
    output: RecordOutput,
    out: &mut impl Write,
) -> anyhow::Result<u64> {
    let mut written = 0;
    for record in batch.records()? {
        let record = record?;
        if written == limit || end.is_some_and(|end| record.offset >= end) {
            break;
        }
        match output {
            RecordOutput::Value => out.write_all(record.value.as_deref().unwrap_or_default())?,
            RecordOutput::Json => write_json(batch.partition(), &record, out)?,
        }
        out.write_all(b"\n")?;
        written += 1;
    }
    Ok(written)
}
