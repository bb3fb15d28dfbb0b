//! A process that works on a data directory until its disk operations are used up.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use seriatim_proto::ids::Offset;
use seriatim_storage::{
    Boundary, Frame, Log, LogId, LogOptions, Result, Storage, StorageOptions,
    disk::{Disk, sim::SimDisk},
};

use crate::{
    common::{faulty::Faulty, *},
    model::{State, Step},
};

pub(crate) const GROUPS: usize = 2;

/// Two replicas and what is known of them.
#[derive(Clone, Default)]
pub(crate) struct Known {
    pub(crate) acked: [State; GROUPS],
    /// With the step under way done.
    pub(crate) next: [State; GROUPS],
}

pub(crate) fn small_segments() -> LogOptions {
    options(3000)
}

pub(crate) fn storage_options() -> StorageOptions {
    StorageOptions {
        cache_bytes: 4000,
        ..quiet()
    }
}

pub(crate) fn key_of(group: usize) -> seriatim_storage::LogKey {
    key(u64::try_from(group).unwrap() + 1)
}

/// Runs a future on an executor of its own, which dies with all tasks it had.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// Opens the directory and does steps until one fails.
pub(crate) async fn work(disk: &Faulty, steps: &[(usize, Step)], known: &mut Known) -> Result<()> {
    let storage = Storage::open(
        Arc::new(disk.clone()),
        Path::new("/data"),
        storage_options(),
    )?;
    let mut logs = Vec::new();
    for group in 0..GROUPS {
        logs.push(storage.open_log(key_of(group), small_segments()).await?);
    }
    for (group, step) in steps {
        let (acked, next) = (&mut known.acked[*group], &mut known.next[*group]);
        take(&storage, &logs[*group], step, acked, next).await?;
    }
    Ok(())
}

async fn take(
    storage: &Storage,
    log: &Log,
    step: &Step,
    acked: &mut State,
    next: &mut State,
) -> Result<()> {
    let term = acked.last().map_or(1, |last| last.term);
    match *step {
        Step::Append(appends, frames, bytes) => {
            return take_appends(log, (appends, frames, bytes), acked, next).await;
        }
        Step::Blank => {
            let frame = acked.maker(term + 1).blank();
            next.frames.push(frame.clone());
            append(log, vec![frame]).await?;
        }
        Step::Truncate(count) => {
            let index = acked.end().saturating_sub(count).max(acked.kept());
            if index < acked.end() {
                next.truncate(index);
                log.truncate_from(index).await?;
            }
        }
        Step::Purge(leave) => {
            let Some(upto) = acked
                .frames
                .iter()
                .rev()
                .nth(usize::try_from(leave).unwrap())
            else {
                return Ok(());
            };
            let upto = upto.log_id();
            next.purge(upto);
            log.purge(upto).await?;
        }
        Step::Checkpoint => {
            if let Some(last) = acked.frames.last().map(Frame::log_id) {
                let data = Bytes::from(vec![3; 700]);
                next.checkpoint = Some((last, data.clone()));
                log.save_checkpoint(last, data).await?;
            }
        }
        Step::Boundary => {
            if let Some(frame) = acked.frames.get(acked.frames.len() / 2) {
                let boundary = boundary(frame.log_id(), frame.next_offset());
                next.boundary = Some(boundary.clone());
                log.save_boundary(boundary).await?;
            }
        }
        Step::Compact(leave) => compact(log, leave, acked, next).await?,
        Step::Roll => log.roll().await?,
        Step::Restart(beyond) => restart(log, acked.end() + beyond, acked, next).await?,
        Step::Conflict(leave) => {
            let index = acked.end().saturating_sub(leave + 1);
            if (acked.kept()..acked.end()).contains(&index) {
                restart(log, index, acked, next).await?;
            }
        }
        Step::Vote => {
            let vote = State::vote(acked.vote.map_or(1, |vote| vote.term + 1));
            next.vote = Some(vote);
            storage.votes().save_vote(log.key(), vote).await?;
        }
        Step::Sync => log.sync().await?,
    }
    acked.clone_from(next);
    Ok(())
}

/// A boundary within the log, and the log cut behind it.
async fn compact(log: &Log, leave: u64, acked: &mut State, next: &mut State) -> Result<()> {
    let leave = usize::try_from(leave).unwrap();
    let Some(frame) = acked.frames.iter().rev().nth(leave).cloned() else {
        return Ok(());
    };
    let boundary = boundary(frame.log_id(), frame.next_offset());
    next.boundary = Some(boundary.clone());
    log.save_boundary(boundary).await?;
    acked.clone_from(next);
    next.purge(frame.log_id());
    log.purge(frame.log_id()).await
}

/// A boundary that the log does not hold, and the log begun anew behind it.
async fn restart(log: &Log, index: u64, acked: &mut State, next: &mut State) -> Result<()> {
    let log_id = LogId {
        term: acked.last().map_or(1, |last| last.term) + 1,
        index,
    };
    let boundary = boundary(log_id, Offset(acked.next_offset() + 7));
    next.boundary = Some(boundary.clone());
    log.save_boundary(boundary.clone()).await?;
    acked.clone_from(next);
    next.frames.clear();
    next.purged = Some(log_id);
    next.start_offset = boundary.next_offset.0;
    log.purge(log_id).await
}

async fn take_appends(
    log: &Log,
    (appends, frames, bytes): (u32, u32, usize),
    acked: &mut State,
    next: &mut State,
) -> Result<()> {
    let mut maker = acked.maker(acked.last().map_or(1, |last| last.term));
    let mut waits = Vec::new();
    let mut refused = None;
    for number in 0..appends {
        let frames: Vec<_> = (0..frames).map(|_| maker.batch(2, bytes)).collect();
        next.frames.extend(frames.clone());
        match start_append(log, frames.clone()) {
            Ok(wait) => waits.push((frames, wait)),
            Err(error) => refused = Some(error),
        }
        // Some share a round, some do not.
        if number % 3 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut failed = None;
    for (frames, wait) in waits {
        match wait.await {
            Ok(Ok(())) => {
                assert!(failed.is_none(), "acknowledged behind a failure");
                acked.frames.extend(frames);
            }
            Ok(Err(error)) => failed = Some((*error).clone()),
            Err(_dropped) => panic!("an append was never answered"),
        }
    }
    failed.or(refused).map_or(Ok(()), Err)
}

fn boundary(log_id: LogId, next_offset: Offset) -> Boundary {
    Boundary {
        log_id,
        next_offset,
        membership: Bytes::from_static(b"members"),
        state: Bytes::from(vec![9; 600]),
    }
}

/// Opens the directory after a failure and checks what is there; returns it.
pub(crate) async fn recovered(disk: &SimDisk, known: &Known) -> Known {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    if disk.list(Path::new("/data/logs")).is_ok() {
        let report =
            seriatim_storage::verify::verify_dir(&shared, Path::new("/data"), &mut |_, _| {});
        let report = report.unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
    let storage = Storage::open(shared, Path::new("/data"), storage_options()).unwrap();
    let mut found = Known::default();
    for group in 0..GROUPS {
        let log = storage
            .open_log(key_of(group), small_segments())
            .await
            .unwrap();
        let state = State::found(&storage, &log).await;
        state.check(&known.acked[group], &known.next[group]);
        found.acked[group] = state.clone();
        found.next[group] = state;
    }
    found
}
