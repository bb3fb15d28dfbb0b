//! `seriatim produce`: the lines of a file or of standard input, one record each.

use std::{io::BufRead, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use seriatim_client::{Compression, Delivery, Producer, ProducerRecord};
use seriatim_runtime::{clock, task};
use tokio::sync::mpsc;

use super::{
    common::{Output, Servers},
    fail::interrupted,
    input::{self, Field},
    tally,
};

const EXAMPLES: &str = "Examples:
  seriatim produce flights --file flights.ndjson.gz --key-field tailnum
  echo hello | seriatim produce greetings
  seriatim produce flights --file f.ndjson --rate 500 --acknowledged acked.csv --output json";

/// Append each line of a file or of standard input as a record
///
/// Lines are numbered from 0. A line that cannot be a record ends the command: the lines before it
/// are appended, those after it are not.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The topic
    topic: String,
    /// Read from this file (one that ends in .gz is unpacked) instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Lines are JSON objects; use this field as the key, none where it is null
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// Append a line that has no such field without a key, instead of ending with an error
    #[arg(long, requires = "key_field")]
    key_optional: bool,
    /// At most this many records per second
    #[arg(long, value_name = "EVENTS_PER_S", value_parser = rate)]
    rate: Option<f64>,
    /// Write "partition,offset,line" to this file as each acknowledgement arrives; lines count from 0
    #[arg(long, value_name = "FILE")]
    acknowledged: Option<PathBuf>,
    /// How batches are compressed: none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none", value_name = "CODEC")]
    compression: Compression,
    /// How long a record may take until it is acknowledged, in seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    delivery_timeout: u64,
    #[command(flatten)]
    servers: Servers,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    output: Output,
}

/// Runs the verb.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let input = input::open(args.file.as_deref())?;
    let client = args.servers.connect().await?;
    // Before a line is read or a file is emptied: is there such a topic?
    let _partitions = client.partitions(&args.topic).await?;
    let file = args
        .acknowledged
        .as_deref()
        .map(tally::create)
        .transpose()?;
    let producer = client
        .producer()
        .compression(args.compression)
        .delivery_timeout(Duration::from_secs(args.delivery_timeout))
        .build()
        .await?;
    let started = clock::now();
    let (deliveries, acks) = mpsc::channel(tally::OUTSTANDING);
    let mut acks = task::spawn("acknowledgements", tally::collect(acks, file));
    let mut sent = tokio::select! {
        biased;
        interrupted = interrupted() => Err(interrupted),
        sent = send_lines(&args, &producer, input, deliveries) => sent,
    };
    // What was sent is waited for, unless Ctrl-C is pressed (again).
    let tally = tokio::select! {
        biased;
        tally = &mut acks => tally.context("collect acknowledgements")??,
        interrupted = interrupted() => return Err(interrupted),
    };
    if let Err(error) = producer.close().await {
        sent = sent.and(Err(error.into()));
    }
    if sent.is_ok() || !tally.is_empty() {
        tally.print(&args.topic, started.elapsed().as_secs_f64(), args.output)?;
    }
    sent?;
    if let (count, Some((line, error))) = tally.failed {
        return Err(anyhow::Error::new(error).context(format!(
            "{count} records were not acknowledged, the first is line {line}"
        )));
    }
    Ok(())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("expected a number above 0".to_owned()),
    }
}

async fn send_lines(
    args: &Args,
    producer: &Producer,
    input: Box<dyn BufRead + Send>,
    deliveries: mpsc::Sender<(u64, Delivery)>,
) -> anyhow::Result<()> {
    let (chunks, mut lines) = mpsc::channel(input::CHUNKS);
    // Not waited for: it may be blocked in standard input.
    let _reader = task::spawn(
        "lines",
        task::blocking("lines", move || input::read_lines(input, &chunks)),
    );
    let bar = progress();
    let started = clock::now();
    let mut number = 0_u64;
    while let Some(chunk) = lines.recv().await {
        for line in chunk.context("read the input")? {
            if let Some(rate) = args.rate {
                pace(started, number, rate).await;
            }
            let record = record(args, line).with_context(|| format!("line {number}"))?;
            let delivery = producer.send(record).await;
            let delivery = delivery.with_context(|| format!("line {number}"))?;
            if deliveries.send((number, delivery)).await.is_err() {
                bail!("acknowledgements cannot be written");
            }
            number += 1;
            if number.is_multiple_of(1024) {
                bar.set_position(number);
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn record(args: &Args, line: Bytes) -> anyhow::Result<ProducerRecord> {
    let mut key = None;
    if let Some(name) = &args.key_field {
        match input::field_of(&line, name) {
            Ok(Field::Text(text)) => key = Some(text),
            Ok(Field::Null) => {}
            Ok(Field::Missing) if args.key_optional => {}
            Ok(Field::Missing) => bail!(
                "there is no field '{name}' to take the key from; --key-optional appends such \
                 lines without a key"
            ),
            Err(what) => bail!("not a JSON object: {what}"),
        }
    }
    let mut record = ProducerRecord::new(&args.topic, line);
    record.key = key;
    Ok(record)
}

fn progress() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} {human_pos} records sent, {per_sec}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// Waits until record `number` is due: late records never delay those after them.
async fn pace(started: clock::Instant, number: u64, rate: f64) {
    #[expect(clippy::cast_precision_loss, reason = "2^53 records are enough")]
    let due = started + Duration::from_secs_f64(number as f64 / rate);
    if due > clock::now() {
        clock::sleep_until(due).await;
    }
}
