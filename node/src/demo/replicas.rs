//! Comparing the three replicas of every partition, offline.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use seriatim_proto::ids::GroupId;
use seriatim_storage::{Frame, Log, LogKey, LogOptions, Storage, StorageOptions, disk::PosixDisk};

const CHUNK: usize = 4 << 20;

/// Compares the batches of every partition byte by byte; returns the number of entries looked at.
/// Entries of an election are left out: nodes that stop at the same time hand leaderships to each other,
/// and the last one may have such an entry alone.
pub(super) async fn compare(dirs: &[PathBuf]) -> anyhow::Result<u64> {
    let mut opened = Vec::new();
    for dir in dirs {
        let open = Storage::open(Arc::new(PosixDisk), dir, StorageOptions::default());
        opened.push(open.with_context(|| format!("open {}", dir.display()))?);
    }
    let mut groups: BTreeMap<GroupId, Vec<Log>> = BTreeMap::new();
    for storage in &opened {
        let keys: Vec<LogKey> = storage.logs();
        for key in keys
            .into_iter()
            .filter(|key| key.group != GroupId::METADATA)
        {
            let log = storage.open_log(key, LogOptions::default()).await?;
            groups.entry(key.group).or_default().push(log);
        }
    }
    ensure!(!groups.is_empty(), "there are no partitions");
    let mut frames = 0;
    for (group, logs) in &groups {
        ensure!(
            logs.len() == dirs.len(),
            "group {group} has {} replicas",
            logs.len()
        );
        frames += compare_group(*group, logs).await?;
    }
    for storage in &opened {
        storage.shutdown().await;
    }
    Ok(frames)
}

async fn compare_group(group: GroupId, logs: &[Log]) -> anyhow::Result<u64> {
    let Some((first, others)) = logs.split_first() else {
        return Ok(0);
    };
    for other in others {
        ensure!(
            other.next_offset() == first.next_offset(),
            "group {group}: one replica ends at offset {}, another at {}",
            first.next_offset(),
            other.next_offset()
        );
    }
    // All records are up to the end of the shortest.
    let ends = logs.iter().map(|log| log.last_log_id().map(|id| id.index));
    let Some(end) = ends.min().flatten() else {
        return Ok(0);
    };
    let mut at = first.first_index();
    let mut compared = 0;
    while at <= end {
        let frames = first.read(at..end + 1, CHUNK).await?;
        let Some(last) = frames.last() else {
            bail!("group {group}: entry {at} cannot be read");
        };
        let next = last.log_id().index + 1;
        for other in others {
            // Another replica may answer in other portions.
            let mut theirs = Vec::new();
            while let from = theirs.last().map_or(at, |f: &Frame| f.log_id().index + 1)
                && from < next
            {
                let some = other.read(from..next, CHUNK).await?;
                ensure!(
                    !some.is_empty(),
                    "group {group}: entry {from} cannot be read"
                );
                theirs.extend(some);
            }
            ensure!(
                batches(&frames).eq(batches(&theirs)),
                "group {group}: replicas differ between entries {at} and {next}"
            );
        }
        compared += next - at;
        at = next;
    }
    Ok(compared)
}

/// Those frames that hold records, as bytes.
fn batches(frames: &[Frame]) -> impl Iterator<Item = Vec<u8>> {
    let batches = frames.iter().filter(|frame| frame.batch_header().is_some());
    batches.map(|frame| frame.slices().concat())
}
