//! The log on a real file system.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod common;

use common::*;
use seriatim_proto::ids::{Offset, ReplicaId};
use seriatim_storage::{LogId, StorageError, StorageOptions, Vote};

#[tokio::test]
async fn append_read_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    {
        let storage = open(dir.path());
        let log = storage.open_log(key(1), options(64 << 10)).await.unwrap();
        let mut maker = Maker::new();
        for round in 0..200u32 {
            let mut frames = vec![maker.batch(3, 1000)];
            if round % 10 == 0 {
                frames.push(maker.blank());
                maker.term += 1;
            }
            written.extend(frames.clone());
            append(&log, frames).await.unwrap();
        }
        assert_eq!(all(&log).await, written);
        storage.shutdown().await;
    }
    // A small cache, so that reads go to the files.
    let storage = open_with(
        dir.path(),
        StorageOptions {
            cache_bytes: 0,
            ..quiet()
        },
    );
    assert_eq!(storage.logs(), vec![key(1)]);
    let log = storage.open_log(key(1), options(64 << 10)).await.unwrap();
    assert_eq!(log.last_log_id(), written.last().map(|f| f.log_id()));
    assert_eq!(log.next_offset(), Offset(600));
    assert_eq!(all(&log).await, written);
    let expected: Vec<u8> = written
        .iter()
        .filter_map(|f| f.batch_parts())
        .flat_map(|p| p.concat())
        .collect();
    assert_eq!(batches(&log, 0).await, expected);
    for frame in &written {
        let id = frame.log_id();
        assert_eq!(log.term_at(id.index), Some(id.term), "{id}");
        assert_eq!(log.offset_at(id.index).await.unwrap(), frame.base_offset());
        if frame.records() > 0 {
            let found = log
                .index_at(Offset(frame.base_offset().0 + 2))
                .await
                .unwrap();
            assert_eq!(found, Some(id.index));
            let time = frame.max_timestamp();
            let found = log
                .offset_for_time(time - 1, log.next_offset())
                .await
                .unwrap();
            assert_eq!(found, Some((frame.base_offset(), time)));
        }
    }
    assert_eq!(log.term_at(written.len() as u64), None);
    assert_eq!(log.epochs().len(), 21);
    let mut maker = Maker::after(&log, 99);
    append(&log, vec![maker.batch(1, 10)]).await.unwrap();
    assert_eq!(log.next_offset(), Offset(601));
    log.verify_sealed().await.unwrap();
}

#[tokio::test]
async fn frames_are_readable_before_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    let mut maker = Maker::new();
    let mut waits = Vec::new();
    for _ in 0..100 {
        let frame = maker.batch(1, 100);
        let (tell, done) = tokio::sync::oneshot::channel();
        log.append(
            vec![frame.clone()],
            Box::new(move |result| drop(tell.send(result))),
        )
        .unwrap();
        waits.push(done);
        let id = frame.log_id();
        assert_eq!(
            log.read(id.index..id.index + 1, 1).await.unwrap(),
            vec![frame.clone()]
        );
        let read = log
            .read_batches(frame.base_offset(), frame.next_offset(), 1)
            .await
            .unwrap();
        assert_eq!(read.concat(), frame.batch_parts().unwrap().concat());
    }
    for done in waits {
        done.await.unwrap().unwrap();
    }
    assert_eq!(log.flushed_index(), Some(99));
}

#[tokio::test]
async fn what_does_not_continue_the_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    let mut maker = Maker {
        term: 5,
        index: 0,
        offset: 0,
    };
    append(&log, vec![maker.batch(4, 10)]).await.unwrap();
    for (term, index, offset) in [(5, 2, 4), (5, 0, 4), (5, 1, 3), (5, 1, 5), (4, 1, 4)] {
        let frame = Maker {
            term,
            index,
            offset,
        }
        .batch(1, 10);
        let error = append(&log, vec![frame]).await.unwrap_err();
        assert!(
            matches!(error, StorageError::NotContiguous { .. }),
            "{error}"
        );
    }
    assert_eq!(log.last_log_id(), Some(LogId { term: 5, index: 0 }));
    append(
        &log,
        vec![
            Maker {
                term: 5,
                index: 1,
                offset: 4,
            }
            .batch(1, 10),
        ],
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let disk = std::sync::Arc::new(seriatim_storage::disk::PosixDisk);
    let error = seriatim_storage::Storage::open(disk, dir.path(), quiet()).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }));
    assert!(
        error
            .to_string()
            .contains(&dir.path().display().to_string()),
        "{error}"
    );
    storage.shutdown().await;
    drop(open(dir.path()));
}

#[tokio::test]
async fn votes_survive() {
    let dir = tempfile::tempdir().unwrap();
    let vote = |term| Vote {
        term,
        voted_for: Some(ReplicaId(2)),
        committed: term % 2 == 0,
    };
    {
        let storage = open(dir.path());
        for term in 1..50 {
            let saves = (0..20).map(|group| {
                let storage = storage.clone();
                tokio::spawn(async move { storage.votes().save_vote(key(group), vote(term)).await })
            });
            for save in saves.collect::<Vec<_>>() {
                save.await.unwrap().unwrap();
            }
        }
        storage.votes().forget(key(3)).await.unwrap();
        storage.shutdown().await;
    }
    let storage = open(dir.path());
    for group in 0..20 {
        let expected = (group != 3).then(|| vote(49));
        assert_eq!(storage.votes().vote(key(group)), expected, "{group}");
    }
}

#[tokio::test]
async fn a_thousand_empty_logs_open_fast_and_take_no_space() {
    let dir = tempfile::tempdir().unwrap();
    {
        let storage = open(dir.path());
        for group in 0..1000 {
            let log = storage
                .open_log(key(group), options(1 << 20))
                .await
                .unwrap();
            log.append(
                vec![Maker::new().blank()],
                Box::new(|result| result.unwrap()),
            )
            .unwrap();
        }
        storage.shutdown().await;
    }
    let before = std::time::Instant::now();
    let storage = open(dir.path());
    for group in storage.logs() {
        let log = storage.open_log(group, options(1 << 20)).await.unwrap();
        assert_eq!(log.last_log_id(), Some(LogId { term: 1, index: 0 }));
    }
    assert!(before.elapsed().as_secs() < 5, "{:?}", before.elapsed());
    let bytes: u64 = storage
        .logs()
        .iter()
        .flat_map(|key| std::fs::read_dir(dir.path().join("logs").join(key.to_string())).unwrap())
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes < 1000 * 4096, "{bytes}");
}
