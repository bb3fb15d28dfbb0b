//! Truncation, purge, and a log that goes on behind a boundary.

use bytes::Bytes;
use seriatim_proto::ids::Offset;
use seriatim_storage::{Boundary, Frame, LogId, StorageError};

use crate::common::*;

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn boundary(log_id: LogId, next_offset: i64) -> Boundary {
    Boundary {
        log_id,
        next_offset: Offset(next_offset),
        membership: Bytes::from_static(b"members"),
        state: Bytes::from_static(b"state"),
    }
}

pub(crate) async fn a_truncation_takes_indexes_and_offsets(on: impl Harness) {
    // Cuts within a file, at its beginning, across files, and of everything.
    for cut in [99, 95, 50, 17, 1, 0] {
        let log_key = key(1000 + cut);
        let storage = on.storage();
        let log = storage.open_log(log_key, options(8 << 10)).await.unwrap();
        let mut maker = Maker::new();
        let mut written: Vec<Frame> = Vec::new();
        for index in 0..100 {
            maker.term = 1 + index / 30;
            let frame = maker.batch(2, 700);
            written.push(frame.clone());
            append(&log, vec![frame]).await.unwrap();
        }
        log.truncate_from(cut).await.unwrap();
        let kept = usize::try_from(cut).unwrap();
        written.truncate(kept);
        assert_eq!(log.last_log_id(), written.last().map(Frame::log_id));
        assert_eq!(log.next_offset(), Offset(2 * i64::try_from(cut).unwrap()));
        assert_eq!(log.term_at(cut), None);
        assert_eq!(all(&log).await, written);
        let terms: Vec<u64> = log.epochs().iter().map(|epoch| epoch.term).collect();
        let expected: Vec<u64> = (1..=4).filter(|term| (term - 1) * 30 < cut).collect();
        assert_eq!(terms, expected);
        // Cutting what is not there changes nothing.
        log.truncate_from(cut).await.unwrap();
        let mut maker = Maker::after(&log, 9);
        for _ in 0..30 {
            let frame = maker.batch(3, 900);
            written.push(frame.clone());
            append(&log, vec![frame]).await.unwrap();
        }
        assert_eq!(all(&log).await, written);
        storage.shutdown().await;
        drop((log, storage));
        let storage = on.storage();
        let log = storage.open_log(log_key, options(8 << 10)).await.unwrap();
        assert_eq!(all(&log).await, written, "cut at {cut}");
        assert_eq!(log.term_at(cut), Some(9));
        log.verify().await.unwrap();
        storage.shutdown().await;
    }
}

pub(crate) async fn a_truncated_segment_is_written_on(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(4 << 20)).await.unwrap();
    let mut maker = Maker::new();
    let mut written = Vec::new();
    // Far beyond the distance between entries of the sparse index.
    for _ in 0..60 {
        let frame = maker.batch(1, 10_000);
        written.push(frame.clone());
        append(&log, vec![frame]).await.unwrap();
    }
    log.truncate_from(5).await.unwrap();
    written.truncate(5);
    let mut maker = Maker::after(&log, 2);
    for _ in 0..60 {
        let frame = maker.batch(1, 3_000);
        written.push(frame.clone());
        append(&log, vec![frame]).await.unwrap();
    }
    assert_eq!(all(&log).await, written);
    storage.shutdown().await;
    drop((log, storage));
    let storage = on.storage();
    let log = storage.open_log(key(1), options(4 << 20)).await.unwrap();
    assert_eq!(all(&log).await, written);
    for frame in &written {
        let time = frame.max_timestamp();
        let found = log
            .offset_for_time(time, Offset(0)..log.next_offset())
            .await
            .unwrap();
        assert_eq!(found, Some((frame.base_offset(), time)));
    }
}

pub(crate) async fn what_was_purged_or_checkpointed_is_not_truncated(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    let mut maker = Maker::new();
    let frames: Vec<_> = (0..30).map(|_| maker.batch(1, 10)).collect();
    append(&log, frames).await.unwrap();
    log.save_checkpoint(id(1, 19), Bytes::from_static(b"at 19"))
        .await
        .unwrap();
    log.purge(id(1, 9)).await.unwrap();
    for index in [0, 9, 10, 19] {
        let error = log.truncate_from(index).await.unwrap_err();
        assert!(matches!(error, StorageError::OutOfRange { .. }), "{error}");
    }
    log.truncate_from(20).await.unwrap();
    assert_eq!(log.last_log_id(), Some(id(1, 19)));
    let error = log
        .save_checkpoint(id(1, 25), Bytes::new())
        .await
        .unwrap_err();
    assert!(matches!(error, StorageError::OutOfRange { .. }), "{error}");
    assert!(log.poisoned().is_none());
}

pub(crate) async fn a_purge_drops_whole_segments(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(4 << 10)).await.unwrap();
    let mut maker = Maker::new();
    let mut written = Vec::new();
    for index in 0..60 {
        maker.term = 1 + index / 25;
        let frame = maker.batch(2, 700);
        written.push(frame.clone());
        append(&log, vec![frame]).await.unwrap();
    }
    let count = || segments(&on.disk(), &on.dir(), key(1)).len();
    let before = count();
    log.purge(id(2, 30)).await.unwrap();
    eventually("the files go", || count() < before).await;
    assert!(count() > 1, "{before}, {}", count());
    assert_eq!(log.first_index(), 31);
    assert_eq!(log.purged_log_id(), Some(id(2, 30)));
    assert_eq!(log.log_start_offset(), Offset(62));
    assert_eq!(log.term_at(30), Some(2));
    assert_eq!(log.term_at(29), None);
    assert_eq!(log.epochs(), [id(2, 31), id(3, 50)]);
    let error = log.read(30..31, 1).await.unwrap_err();
    assert!(matches!(error, StorageError::OutOfRange { .. }), "{error}");
    assert_eq!(log.index_at(Offset(61)).await.unwrap(), None);
    assert!(
        log.read_batches(Offset(61), Offset(70), 1)
            .await
            .unwrap()
            .is_empty()
    );
    let time = log
        .offset_for_time(0, Offset(0)..log.next_offset())
        .await
        .unwrap();
    assert_eq!(time.map(|found| found.0), Some(Offset(62)));
    // Once more, and of less, changes nothing.
    log.purge(id(2, 30)).await.unwrap();
    log.purge(id(1, 3)).await.unwrap();
    assert_eq!(all(&log).await, written[31..]);
    // Of everything: the log is empty and remembers where it was.
    log.purge(id(3, 59)).await.unwrap();
    assert_eq!(log.last_log_id(), Some(id(3, 59)));
    assert_eq!(log.next_offset(), Offset(120));
    storage.shutdown().await;
    drop((log, storage));
    let storage = on.storage();
    let log = storage.open_log(key(1), options(4 << 10)).await.unwrap();
    assert_eq!(log.last_log_id(), Some(id(3, 59)));
    assert_eq!((log.first_index(), log.next_offset()), (60, Offset(120)));
    assert!(all(&log).await.is_empty());
    let mut maker = Maker::after(&log, 3);
    append(&log, vec![maker.batch(1, 10)]).await.unwrap();
    assert_eq!(all(&log).await.len(), 1);
}

pub(crate) async fn a_log_restarts_behind_a_boundary(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(4 << 10)).await.unwrap();
    let mut maker = Maker::new();
    for _ in 0..20 {
        append(&log, vec![maker.batch(1, 700)]).await.unwrap();
    }
    // Not without a boundary, nor with another one.
    let refused = log.purge(id(4, 100)).await.unwrap_err();
    assert!(matches!(refused, StorageError::OutOfRange { .. }));
    log.save_boundary(boundary(id(3, 100), 500)).await.unwrap();
    let refused = log.purge(id(4, 100)).await.unwrap_err();
    assert!(matches!(refused, StorageError::OutOfRange { .. }));
    assert_eq!(all(&log).await.len(), 20);
    log.save_boundary(boundary(id(4, 100), 555)).await.unwrap();
    log.purge(id(4, 100)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(log.last_log_id(), Some(id(4, 100)));
        assert_eq!((log.first_index(), log.next_offset()), (101, Offset(555)));
        assert!(all(&log).await.is_empty());
    }
    let mut maker = Maker::after(&log, 4);
    let frame = maker.batch(1, 10);
    append(&log, vec![frame.clone()]).await.unwrap();
    storage.shutdown().await;
    drop((log, storage));
    let storage = on.storage();
    let log = storage.open_log(key(1), options(4 << 10)).await.unwrap();
    assert_eq!(all(&log).await, [frame]);
    let kept = log.boundary().await.unwrap();
    assert_eq!(kept, Some(boundary(id(4, 100), 555)));
    assert_eq!(log.log_start_offset(), Offset(555));
    assert_eq!(segments(&on.disk(), &on.dir(), key(1)).len(), 1);
}

pub(crate) async fn a_longer_log_restarts_behind_a_conflicting_boundary(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(4 << 10)).await.unwrap();
    let mut maker = Maker::new();
    for _ in 0..40 {
        append(&log, vec![maker.batch(1, 700)]).await.unwrap();
    }
    log.save_boundary(boundary(id(2, 20), 33)).await.unwrap();
    log.purge(id(2, 20)).await.unwrap();
    assert_eq!(log.last_log_id(), Some(id(2, 20)));
    assert_eq!(log.next_offset(), Offset(33));
    assert_eq!(log.term_at(20), Some(2));
    let mut maker = Maker::after(&log, 2);
    append(&log, vec![maker.batch(1, 10)]).await.unwrap();
    storage.shutdown().await;
    drop((log, storage));
    let storage = on.storage();
    let log = storage.open_log(key(1), options(4 << 10)).await.unwrap();
    assert_eq!(log.last_log_id(), Some(id(2, 21)));
    assert_eq!(log.next_offset(), Offset(34));
}
