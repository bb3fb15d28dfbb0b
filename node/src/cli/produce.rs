//! `seriatim produce`: the lines of a file or of standard input, one record each.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::json;
use seriatim_client::{ClientError, Compression, Delivered, Delivery, Producer, ProducerRecord};
use seriatim_runtime::{clock, task};
use tokio::sync::mpsc;

use super::common::{Output, Servers, print, print_json, print_table};

const EXAMPLES: &str = "Examples:
  seriatim produce flights --file flights.ndjson.gz --key-field tailnum
  echo hello | seriatim produce greetings
  seriatim produce flights --file f.ndjson --rate 500 --acknowledged acked.csv --output json";

/// Lines that are read ahead.
const CHUNK_LINES: usize = 512;
const CHUNKS: usize = 8;
/// Records that wait for their acknowledgement. The producer's buffer bounds their bytes.
const OUTSTANDING: usize = 100_000;

/// Append each line of a file or of standard input as a record
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The topic
    topic: String,
    /// Read from this file (one that ends in .gz is unpacked) instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Lines are JSON objects; use this field as the key
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// At most this many records per second
    #[arg(long, value_name = "EVENTS_PER_S")]
    rate: Option<f64>,
    /// Write "partition,offset,line" to this file as each acknowledgement arrives; lines count from 0
    #[arg(long, value_name = "FILE")]
    acknowledged: Option<PathBuf>,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none")]
    compression: Compression,
    /// How long a record may take until it is acknowledged, in seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    delivery_timeout: u64,
    #[command(flatten)]
    servers: Servers,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the verb.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if args
        .rate
        .is_some_and(|rate| !(rate > 0.0 && rate.is_finite()))
    {
        bail!("--rate is a number above 0");
    }
    let input = open_input(args.file.as_deref())?;
    let acknowledged = match &args.acknowledged {
        Some(path) => Some(create(path)?),
        None => None,
    };
    let client = args.servers.connect().await?;
    let timeout = Duration::from_secs(args.delivery_timeout);
    let producer = client
        .producer()
        .compression(args.compression)
        .delivery_timeout(timeout);
    let producer = producer.build().await?;
    let started = clock::now();
    let (deliveries, acks) = mpsc::channel(OUTSTANDING);
    let acks = task::spawn("acknowledgements", collect(acks, acknowledged));
    let sent = send_lines(&args, &producer, input, &deliveries).await;
    drop(deliveries);
    let tally = acks.await.context("collect acknowledgements")?;
    // Every delivery is known, so nothing is outstanding.
    let closed = producer.close().await;
    let tally = tally?;
    tally.print(&args, started.elapsed().as_secs_f64())?;
    sent?;
    if let Some((line, error)) = tally.failed.1 {
        let count = tally.failed.0;
        return Err(anyhow::Error::new(error).context(format!(
            "{count} records were not acknowledged, the first is line {line}"
        )));
    }
    closed.map_err(Into::into)
}

fn open_input(path: Option<&Path>) -> anyhow::Result<Box<dyn BufRead + Send>> {
    let Some(path) = path else {
        return Ok(Box::new(BufReader::with_capacity(1 << 16, io::stdin())));
    };
    let file = OpenOptions::new().read(true).open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    Ok(if path.extension().is_some_and(|e| e == "gz") {
        Box::new(BufReader::with_capacity(
            1 << 18,
            flate2::read::MultiGzDecoder::new(file),
        ))
    } else {
        Box::new(BufReader::with_capacity(1 << 18, file))
    })
}

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path);
    Ok(BufWriter::new(
        file.with_context(|| format!("create {}", path.display()))?,
    ))
}

/// Reads lines in a thread, because standard input blocks.
fn read_lines(mut input: Box<dyn BufRead + Send>, chunks: &mpsc::Sender<io::Result<Vec<Bytes>>>) {
    let mut chunk = Vec::with_capacity(CHUNK_LINES);
    loop {
        let mut line = Vec::new();
        let read = input.read_until(b'\n', &mut line);
        let end = match read {
            Ok(0) => true,
            Ok(_) => {
                while line
                    .last()
                    .is_some_and(|&byte| byte == b'\n' || byte == b'\r')
                {
                    let _end_of_line = line.pop();
                }
                chunk.push(Bytes::from(line));
                false
            }
            Err(error) => {
                // The receiver may have given up already.
                let _gone = chunks.blocking_send(Err(error));
                return;
            }
        };
        // What a person types goes out line by line.
        let buffered = chunks.capacity() < CHUNKS;
        if end || chunk.len() == CHUNK_LINES || !buffered {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK_LINES));
            if chunks.blocking_send(Ok(full)).is_err() || end {
                return;
            }
        }
    }
}

async fn send_lines(
    args: &Args,
    producer: &Producer,
    input: Box<dyn BufRead + Send>,
    deliveries: &mpsc::Sender<(u64, Delivery)>,
) -> anyhow::Result<()> {
    let (chunks, mut lines) = mpsc::channel(CHUNKS);
    // Not waited for: it may be blocked in standard input.
    let _reader = task::spawn(
        "lines",
        task::blocking("lines", move || read_lines(input, &chunks)),
    );
    let bar = progress();
    let started = clock::now();
    let mut number = 0_u64;
    while let Some(chunk) = lines.recv().await {
        for line in chunk.context("read the input")? {
            if let Some(rate) = args.rate {
                pace(started, number, rate).await;
            }
            let mut record = ProducerRecord::new(&args.topic, line);
            if let Some(field) = &args.key_field {
                let value = record.value.as_deref().unwrap_or_default();
                let key = key_of(value, field);
                record.key = key.with_context(|| format!("line {number} is not a JSON object"))?;
            }
            let delivery = producer.send(record).await?;
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

fn progress() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} {human_pos} records sent, {per_sec}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// Waits until record `number` is due: late records never delay those after them.
async fn pace(started: tokio::time::Instant, number: u64, rate: f64) {
    #[expect(clippy::cast_precision_loss, reason = "2^53 records are enough")]
    let due = started + Duration::from_secs_f64(number as f64 / rate);
    if due > clock::now() {
        clock::sleep_until(due).await;
    }
}

/// The text of one field of a JSON object: a string's content, anything else as it is written.
fn key_of(line: &[u8], field: &str) -> serde_json::Result<Option<Bytes>> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let key = json.deserialize_map(FieldOf(field))?;
    json.end()?;
    Ok(key.and_then(|value| match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(Bytes::from(text)),
        other => Some(Bytes::from(other.to_string())),
    }))
}

struct FieldOf<'a>(&'a str);

impl<'de> Visitor<'de> for FieldOf<'_> {
    type Value = Option<serde_json::Value>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                let _other = map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// What was acknowledged.
#[derive(Debug, Default)]
struct Tally {
    /// Records, first and last offset by partition.
    partitions: BTreeMap<i32, (u64, i64, i64)>,
    /// How many failed, and the first.
    failed: (u64, Option<(u64, ClientError)>),
}

async fn numbered(line: u64, delivery: Delivery) -> (u64, Result<Delivered, ClientError>) {
    (line, delivery.await)
}

async fn collect(
    mut deliveries: mpsc::Receiver<(u64, Delivery)>,
    mut file: Option<BufWriter<File>>,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        if let Some(file) = file.as_mut() {
            file.flush()?;
        }
        tokio::select! {
            biased;
            Some((line, outcome)) = waiting.next() => tally.add(line, outcome, file.as_mut())?,
            delivery = deliveries.recv(), if open && waiting.len() < OUTSTANDING => match delivery {
                Some((line, delivery)) => waiting.push(numbered(line, delivery)),
                None => open = false,
            },
        }
        // Whatever is there at once shares a write.
        while let Some(Some((line, outcome))) = waiting.next().now_or_never() {
            tally.add(line, outcome, file.as_mut())?;
        }
        while waiting.len() < OUTSTANDING
            && let Ok((line, delivery)) = deliveries.try_recv()
        {
            waiting.push(numbered(line, delivery));
        }
    }
    if let Some(file) = file.as_mut() {
        file.flush()?;
    }
    Ok(tally)
}

impl Tally {
    fn add(
        &mut self,
        line: u64,
        outcome: Result<Delivered, ClientError>,
        file: Option<&mut BufWriter<File>>,
    ) -> io::Result<()> {
        match outcome {
            Ok(stored) => {
                let offset = stored.offset.0;
                let row = self
                    .partitions
                    .entry(stored.partition)
                    .or_insert((0, offset, offset));
                *row = (row.0 + 1, row.1.min(offset), row.2.max(offset));
                if let Some(file) = file {
                    writeln!(file, "{},{offset},{line}", stored.partition)?;
                }
            }
            Err(error) => {
                self.failed.0 += 1;
                if self
                    .failed
                    .1
                    .as_ref()
                    .is_none_or(|(first, _)| line < *first)
                {
                    self.failed.1 = Some((line, error));
                }
            }
        }
        Ok(())
    }

    fn print(&self, args: &Args, seconds: f64) -> anyhow::Result<()> {
        let acknowledged: u64 = self.partitions.values().map(|row| row.0).sum();
        #[expect(clippy::cast_precision_loss, reason = "a rate for reading")]
        let per_s = acknowledged as f64 / seconds.max(1e-9);
        if args.output == Output::Json {
            let partition = |(partition, row): (&i32, &(u64, i64, i64))| {
                json!({
                    "partition": partition,
                    "records": row.0,
                    "first_offset": row.1,
                    "last_offset": row.2,
                })
            };
            return print_json(&json!({
                "topic": args.topic,
                "acknowledged": acknowledged,
                "failed": self.failed.0,
                "seconds": seconds,
                "records_per_s": per_s,
                "partitions": self.partitions.iter().map(partition).collect::<Vec<_>>(),
            }));
        }
        let rows = self.partitions.iter().map(|(partition, row)| {
            let cells = [partition.to_string(), row.0.to_string()];
            let offsets = [row.1.to_string(), row.2.to_string()];
            cells.into_iter().chain(offsets).collect()
        });
        print_table(
            &["PARTITION", "ACKNOWLEDGED", "FIRST OFFSET", "LAST OFFSET"],
            rows,
        )?;
        print(&format!(
            "{acknowledged} records acknowledged in {seconds:.2} s ({per_s:.0}/s), {} failed\n",
            self.failed.0
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_json_lines() {
        let key = |line: &str| key_of(line.as_bytes(), "k").map_err(drop);
        let some = |text: &'static str| Ok(Some(Bytes::from_static(text.as_bytes())));
        assert_eq!(key(r#"{"a":[1,{"k":2}],"k":"N1\u0032"}"#), some("N12"));
        assert_eq!(key(r#"{"k":7}"#), some("7"));
        assert_eq!(key(r#"{"k":null}"#), Ok(None));
        assert_eq!(key(r#"{"\u006b":"x"}"#), some("x"));
        assert_eq!(key("{}"), Ok(None));
        for bad in ["", "text", "[1]", r#"{"k":"x""#, r#"{"k":1} x"#] {
            assert_eq!(key(bad), Err(()), "{bad}");
        }
    }
}
