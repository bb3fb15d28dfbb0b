//! Comparing the three replicas of every partition, offline.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use seriatim_proto::ids::GroupId;
use seriatim_storage::{Log, LogKey, LogOptions, Storage, StorageOptions, disk::PosixDisk};

const CHUNK: usize = 4 << 20;

/// Compares the logs of every partition byte by byte; returns the number of frames compared.
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
    let end = first.last_log_id();
    for other in others {
        ensure!(
            other.last_log_id() == end,
            "group {group}: one replica ends at {end:?}, another at {:?}",
            other.last_log_id()
        );
    }
    let Some(end) = end else { return Ok(0) };
    let mut at = first.first_index();
    let mut compared = 0;
    while at <= end.index {
        let frames = first.read(at..end.index + 1, CHUNK).await?;
        let Some(last) = frames.last() else {
            bail!("group {group}: entry {at} cannot be read");
        };
        let next = last.log_id().index + 1;
        for other in others {
            // Another replica may answer in other portions.
            let mut theirs = Vec::new();
            while let from = theirs
                .last()
                .map_or(at, |f: &seriatim_storage::Frame| f.log_id().index + 1)
                && from < next
            {
                let some = other.read(from..next, CHUNK).await?;
                ensure!(
                    !some.is_empty(),
                    "group {group}: entry {from} cannot be read"
                );
                theirs.extend(some);
            }
            let same = |(a, b): (&seriatim_storage::Frame, &seriatim_storage::Frame)| {
                a.slices().concat() == b.slices().concat()
            };
            let equal = frames.len() == theirs.len() && frames.iter().zip(&theirs).all(same);
            ensure!(
                equal,
                "group {group}: replicas differ between entries {at} and {next}"
            );
        }
        compared += next - at;
        at = next;
    }
    Ok(compared)
}
