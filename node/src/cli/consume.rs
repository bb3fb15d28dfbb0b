//! `seriatim consume`: the records of a topic, one line each.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
};

use anyhow::{Context as _, bail};
use futures::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use seriatim_client::{
    Client, ConsumedBatch, Consumer, Header, Offset, Position, Record, TopicPartition,
};

use super::common::Servers;

const EXAMPLES: &str = "Examples:
  seriatim consume flights --from start --until end --output json
  seriatim consume flights --from 2013-01-15T00:00:00Z --count 10
  seriatim consume flights --from 500 --partition 2";

/// Print the records of a topic
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The topic
    topic: String,
    /// start, end, an offset, or a time such as 2013-01-15T00:00:00Z
    #[arg(long, default_value = "end", value_name = "start|end|OFFSET|TIME", value_parser = position)]
    from: Position,
    /// Stop at what is the end of the topic now (default: wait for more)
    #[arg(long, value_enum)]
    until: Option<Until>,
    /// Stop after this many records
    #[arg(long)]
    count: Option<u64>,
    /// Only this partition; may be repeated
    #[arg(long)]
    partition: Vec<i32>,
    #[command(flatten)]
    servers: Servers,
    /// How to print a record
    #[arg(long, value_enum, default_value_t)]
    output: RecordOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Until {
    /// The end of each partition at the start of this command.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum RecordOutput {
    /// The value and a line feed.
    #[default]
    #[value(alias = "table")]
    Value,
    /// A JSON object: partition, offset, timestamp, key, value, headers.
    Json,
}

/// Runs the verb.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.servers.connect().await?;
    let partitions = partitions(&client, &args).await?;
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
    let mut out = BufWriter::with_capacity(1 << 18, io::stdout().lock());
    match copy(consumer, &args, ends, &mut out).await {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

/// The reader of the output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
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
            "topic '{}' has no partition {bad}, it has {count}",
            args.topic
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
        // Before it waits, what there is goes out.
        let next = match consumer.next().now_or_never() {
            Some(next) => next,
            None => {
                out.flush()?;
                consumer.next().await
            }
        };
        let batch = next.context("nothing is assigned")??;
        let end = ends.get(&batch.partition()).copied();
        left -= write_batch(
            &batch,
            end.filter(|_| args.until.is_some()),
            left,
            args.output,
            out,
        )?;
        if end.is_some_and(|end| batch.next_offset() >= end) {
            let _done = open.remove(&batch.partition());
            consumer.unassign(&args.topic, batch.partition());
        }
    }
    out.flush()?;
    Ok(())
}

/// Writes the batch's records before `end`, at most `limit`; returns how many.
fn write_batch(
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

/// The fixed form of a record. A field that is not UTF-8 has its `_base64` form instead.
#[derive(Serialize)]
struct JsonRecord<'a> {
    partition: i32,
    offset: i64,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<JsonHeader<'a>>,
}

#[derive(Serialize)]
struct JsonHeader<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

fn write_json(partition: i32, record: &Record, out: &mut impl Write) -> anyhow::Result<()> {
    let (key, key_base64) = text_or_base64(record.key.as_deref());
    let (value, value_base64) = text_or_base64(record.value.as_deref());
    let json = JsonRecord {
        partition,
        offset: record.offset.0,
        timestamp: record.timestamp_ms,
        key,
        key_base64,
        value,
        value_base64,
        headers: record.headers.iter().map(json_header).collect(),
    };
    // A broken pipe must stay an I/O error.
    serde_json::to_writer(&mut *out, &json).map_err(|error| match error.io_error_kind() {
        Some(kind) => anyhow::Error::new(io::Error::from(kind)),
        None => error.into(),
    })
}

fn json_header(header: &Header) -> JsonHeader<'_> {
    let (value, value_base64) = text_or_base64(header.value.as_deref());
    JsonHeader {
        key: &header.key,
        value,
        value_base64,
    }
}

#[expect(clippy::option_option, reason = "absent, null, text")]
fn text_or_base64(bytes: Option<&[u8]>) -> (Option<Option<&str>>, Option<String>) {
    let Some(bytes) = bytes else {
        return (Some(None), None);
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(Some(text)), None),
        Err(_) => (None, Some(base64(bytes))),
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4_usize {
            let index = (bits >> (18 - 6 * digit)) & 63;
            let letter = DIGITS.get(index as usize).copied().unwrap_or(b'=');
            out.push(if digit <= three.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    out
}

fn position(text: &str) -> Result<Position, String> {
    match text {
        "start" => return Ok(Position::Start),
        "end" => return Ok(Position::End),
        _ => {}
    }
    if let Ok(offset) = text.parse::<i64>() {
        let known = Some(offset).filter(|o| *o >= 0).map(Offset);
        return known
            .map(Position::Offset)
            .ok_or_else(|| "an offset is 0 or more".to_owned());
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Position::Time(time.as_millisecond()));
    }
    let civil = text.parse::<jiff::civil::DateTime>();
    match civil.and_then(|at| jiff::tz::TimeZone::UTC.to_timestamp(at)) {
        Ok(at) => Ok(Position::Time(at.as_millisecond())),
        Err(_) => {
            Err("expected start, end, an offset, or a time such as 2013-01-15T00:00:00Z".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        assert_eq!(position("start"), Ok(Position::Start));
        assert_eq!(position("end"), Ok(Position::End));
        assert_eq!(position("42"), Ok(Position::Offset(Offset(42))));
        let day = Ok(Position::Time(1_358_208_000_000));
        assert_eq!(position("2013-01-15T00:00:00Z"), day);
        assert_eq!(position("2013-01-15"), day);
        assert_eq!(position("2013-01-15T01:00:00+01:00"), day);
        for bad in ["-1", "yesterday", ""] {
            assert!(position(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base64_as_in_rfc_4648() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, encoded) in cases {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe]), "//4=");
    }

    #[test]
    fn a_record_as_json() {
        let record = Record {
            offset: Offset(7),
            timestamp_ms: 5,
            key: None,
            value: Some(bytes::Bytes::from_static(&[0xff])),
            headers: vec![Header {
                key: "h".to_owned(),
                value: Some("x".into()),
            }],
        };
        let mut out = Vec::new();
        write_json(2, &record, &mut out).unwrap();
        let expected = r#"{"partition":2,"offset":7,"timestamp":5,"key":null,"value_base64":"/w==","headers":[{"key":"h","value":"x"}]}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
