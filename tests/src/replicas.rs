//! Comparing the replicas of every partition, by what `log dump` prints.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::cli::Cli;

/// The group that keeps topics and nodes: its replicas need not end at one entry.
const METADATA: &str = "g0";

/// Marks separate the writes of one replica; they are no entries.
const MARK: &str = "mark";

/// One entry of a log. The checksum covers the entry's header and the checksum of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: String,
    term: u64,
    index: u64,
    offset: i64,
    records: u64,
    crc: u64,
}

/// Fails unless every partition has the same entries in all of the stopped nodes' data folders.
/// Entries of an election, which a node that stops last may have alone, are no difference.
///
/// # Errors
/// What differs.
pub async fn equal(cli: &Cli, folders: &[&Path]) -> anyhow::Result<()> {
    let mut groups: BTreeMap<String, Vec<Vec<Entry>>> = BTreeMap::new();
    for folder in folders {
        for (group, entries) in dump(cli, folder).await? {
            groups.entry(group).or_default().push(entries);
        }
    }
    ensure!(!groups.is_empty(), "there are no partitions");
    for (group, replicas) in &groups {
        ensure!(
            replicas.len() == folders.len(),
            "group {group} has {} replicas of {}",
            replicas.len(),
            folders.len()
        );
        for pair in replicas.windows(2) {
            if let [a, b] = pair {
                same(a, b).with_context(|| format!("replicas of group {group} differ"))?;
            }
        }
    }
    Ok(())
}

fn same(a: &[Entry], b: &[Entry]) -> anyhow::Result<()> {
    // Each replica drops whole files of old entries, and their files end at different ones.
    let first = |entries: &[Entry]| entries.first().map_or(0, |entry| entry.index);
    let start = first(a).max(first(b));
    let from = |entries: &'_ [Entry]| entries.partition_point(|entry| entry.index < start);
    let a = a.get(from(a)..).unwrap_or_default();
    let b = b.get(from(b)..).unwrap_or_default();
    for (one, other) in a.iter().zip(b) {
        ensure!(one == other, "{one:?} and {other:?}");
    }
    let common = a.len().min(b.len());
    let mut surplus = a.iter().skip(common).chain(b.iter().skip(common));
    let more = surplus.find(|entry| entry.records > 0);
    ensure!(more.is_none(), "only one has {more:?}");
    Ok(())
}

/// The entries of each group in a data folder.
async fn dump(cli: &Cli, folder: &Path) -> anyhow::Result<BTreeMap<String, Vec<Entry>>> {
    let folder = folder.to_str().context("the path is not UTF-8")?;
    let text = cli.ok(&["log", "dump", folder, "--output", "json"]).await?;
    let mut groups: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for line in text.lines() {
        let frame: Value = serde_json::from_str(line)?;
        let log = frame.get("log").and_then(Value::as_str).context("no log")?;
        let (group, _replica) = log.split_once('-').context("no replica")?;
        if group != METADATA && frame.get("kind").is_none_or(|kind| kind != MARK) {
            let entry = entry(&frame).with_context(|| line.to_owned())?;
            groups.entry(group.to_owned()).or_default().push(entry);
        }
    }
    Ok(groups)
}

fn entry(frame: &Value) -> Option<Entry> {
    Some(Entry {
        kind: frame.get("kind")?.as_str()?.to_owned(),
        term: frame.get("term")?.as_u64()?,
        index: frame.get("index")?.as_u64()?,
        offset: frame.get("offset")?.as_i64()?,
        records: frame.get("records")?.as_u64()?,
        crc: frame.get("crc")?.as_u64()?,
    })
}
