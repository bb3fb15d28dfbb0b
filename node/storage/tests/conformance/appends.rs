//! Appending, and what is acknowledged when.

use bytes::Bytes;
use seriatim_proto::{ids::Offset, limits, settings::Durability};
use seriatim_storage::{Frame, FrameKind, LogId, LogOptions, StorageError, StorageOptions};

use crate::common::{faulty::Op, *};

pub(crate) async fn append_read_reopen(on: impl Harness) {
    let mut written = Vec::new();
    {
        let storage = on.storage();
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
    // Without a cache, so that reads go to the files.
    let storage = on.storage_with(StorageOptions {
        cache_bytes: 0,
        ..quiet()
    });
    assert_eq!(storage.logs(), vec![key(1)]);
    let log = storage.open_log(key(1), options(64 << 10)).await.unwrap();
    assert_eq!(log.last_log_id(), written.last().map(|f| f.log_id()));
    assert_eq!(log.flushed_index(), log.last_log_id().map(|id| id.index));
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
    }
    assert_eq!(log.term_at(written.len() as u64), None);
    assert_eq!(log.epochs().len(), 21);
    let mut maker = Maker::after(&log, 99);
    append(&log, vec![maker.batch(1, 10)]).await.unwrap();
    assert_eq!(log.next_offset(), Offset(601));
    log.verify().await.unwrap();
    storage.shutdown().await;
}

pub(crate) async fn frames_are_readable_before_they_are_written(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    let mut maker = Maker::new();
    let mut waits = Vec::new();
    for _ in 0..100 {
        let frame = maker.batch(1, 100);
        waits.push(start_append(&log, vec![frame.clone()]).unwrap());
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

pub(crate) async fn what_does_not_continue_the_log_is_refused(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    let at = |term, index, offset| Maker {
        term,
        index,
        offset,
    };
    append(&log, vec![at(5, 0, 0).batch(4, 10)]).await.unwrap();
    for (term, index, offset) in [(5, 2, 4), (5, 0, 4), (5, 1, 3), (5, 1, 5), (4, 1, 4)] {
        let frame = at(term, index, offset).batch(1, 10);
        let error = append(&log, vec![frame]).await.unwrap_err();
        assert!(
            matches!(error, StorageError::NotContiguous { .. }),
            "{error}"
        );
    }
    // Of a list that goes wrong in the middle nothing is taken.
    let good = at(5, 1, 4).batch(1, 10);
    let bad = at(5, 3, 5).batch(1, 10);
    let _refused = append(&log, vec![good.clone(), bad]).await.unwrap_err();
    assert_eq!(log.last_log_id(), Some(LogId { term: 5, index: 0 }));
    append(&log, vec![good]).await.unwrap();
}

pub(crate) async fn frames_too_large_to_be_read_are_refused(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    let id = LogId { term: 1, index: 0 };
    let of = |bytes: usize| {
        let payload = Bytes::from(vec![7; bytes]);
        Frame::other(FrameKind::Command, id, Offset(0), payload)
    };
    if !cfg!(debug_assertions) {
        let error = append(&log, vec![of(limits::MAX_BATCH_BYTES + 1)])
            .await
            .unwrap_err();
        assert!(matches!(error, StorageError::TooLarge { .. }), "{error}");
    }
    append(&log, vec![of(limits::MAX_BATCH_BYTES)])
        .await
        .unwrap();
    assert_eq!(all(&log).await.len(), 1);
}

pub(crate) async fn durability_decides_about_syncs(on: impl Harness) {
    let storage = on.storage();
    let os = LogOptions {
        durability: Durability::Os,
        ..options(1 << 20)
    };
    let log = storage.open_log(key(1), os).await.unwrap();
    let mut maker = Maker::new();
    let syncs = || on.disk().tried(Op::Sync, |path| path.ends_with_segment());
    for _ in 0..10 {
        append(&log, vec![maker.batch(1, 100)]).await.unwrap();
    }
    assert_eq!(syncs(), 0);
    assert_eq!(log.flushed_index(), Some(9));
    log.sync().await.unwrap();
    assert!(syncs() >= 1);
    log.set_options(options(1 << 20));
    append(&log, vec![maker.batch(1, 100)]).await.unwrap();
    assert!(syncs() >= 2);
}

trait IsSegment {
    fn ends_with_segment(&self) -> bool;
}

impl IsSegment for std::path::Path {
    fn ends_with_segment(&self) -> bool {
        self.extension().is_some_and(|extension| extension == "seg")
    }
}

pub(crate) async fn options_change_with_the_next_round(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    let mut maker = Maker::new();
    for _ in 0..20 {
        append(&log, vec![maker.batch(1, 1000)]).await.unwrap();
    }
    let count = || segments(&on.disk(), &on.dir(), key(1)).len();
    assert_eq!(count(), 1);
    log.set_options(options(1000));
    for _ in 0..5 {
        append(&log, vec![maker.batch(1, 1000)]).await.unwrap();
    }
    assert_eq!(count(), 6);
    // Opening it again gives the same log, with the new options.
    let again = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    append(&again, vec![maker.batch(1, 1000)]).await.unwrap();
    append(&log, vec![maker.batch(1, 1000)]).await.unwrap();
    assert_eq!(count(), 6);
    assert_eq!(all(&log).await.len(), 27);
}

pub(crate) async fn many_appends_share_a_sync(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(64 << 20)).await.unwrap();
    let mut maker = Maker::new();
    append(&log, vec![maker.blank()]).await.unwrap();
    let before = storage.stats().fsyncs;
    let frames: Vec<_> = (0..2000).map(|_| maker.batch(1, 10)).collect();
    let waits: Vec<_> = frames
        .into_iter()
        .map(|frame| start_append(&log, vec![frame]).unwrap())
        .collect();
    assert!(storage.stats().pending_bytes > 0 || log.flushed_index() == Some(2000));
    for done in waits {
        done.await.unwrap().unwrap();
    }
    let fsyncs = storage.stats().fsyncs - before;
    assert!(fsyncs < 1000, "{fsyncs} syncs for 2000 appends");
    eventually("nothing is pending", || storage.stats().pending_bytes == 0).await;
}
