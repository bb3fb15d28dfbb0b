//! Reading by index, offset and time, with limits, beside writers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use seriatim_proto::ids::Offset;
use seriatim_runtime::task;
use seriatim_storage::{Frame, FrameKind, Log, LogId, StorageError, StorageOptions};

use crate::common::*;

fn uncached() -> StorageOptions {
    StorageOptions {
        cache_bytes: 0,
        ..quiet()
    }
}

/// A log of several segments: batches of three records, and a blank in every seven.
async fn filled(log: &Log, count: u32, bytes: usize) -> Vec<Frame> {
    let mut maker = Maker::after(log, 1);
    let mut written = Vec::new();
    for number in 0..count {
        let frame = if number % 7 == 3 {
            maker.blank()
        } else {
            maker.batch(3, bytes)
        };
        written.push(frame.clone());
        append(log, vec![frame]).await.unwrap();
    }
    written
}

pub(crate) async fn offsets_times_and_indexes_across_segments(on: impl Harness) {
    let storage = on.storage_with(uncached());
    // Segments larger than the distance between entries of the sparse index.
    let log = storage.open_log(key(1), options(200 << 10)).await.unwrap();
    let written = filled(&log, 120, 9_000).await;
    assert!(segments(&on.disk(), &on.dir(), key(1)).len() > 3);
    let end = log.next_offset();
    for frame in &written {
        let id = frame.log_id();
        assert_eq!(log.offset_at(id.index).await.unwrap(), frame.base_offset());
        if frame.kind() != FrameKind::Batch {
            continue;
        }
        for record in 0..3 {
            let offset = Offset(frame.base_offset().0 + record);
            assert_eq!(log.index_at(offset).await.unwrap(), Some(id.index));
            let read = log.read_batches(offset, end, 1).await.unwrap();
            assert_eq!(read.concat(), frame.batch_parts().unwrap().concat());
        }
        let time = frame.max_timestamp();
        for earlier in [0, 1, 5] {
            let found = log
                .offset_for_time(time - earlier, Offset(0)..end)
                .await
                .unwrap();
            assert_eq!(found, Some((frame.base_offset(), time)));
        }
        // Not what is not below the limit.
        let found = log
            .offset_for_time(time, Offset(0)..frame.base_offset())
            .await
            .unwrap();
        assert_eq!(found, None);
    }
    assert_eq!(log.offset_at(120).await.unwrap(), end);
    assert!(log.offset_at(121).await.is_err());
    assert_eq!(log.index_at(end).await.unwrap(), None);
    assert_eq!(log.index_at(Offset(i64::MAX)).await.unwrap(), None);
    assert_eq!(log.index_at(Offset(-1)).await.unwrap(), None);
    let late = log.offset_for_time(i64::MAX, Offset(0)..end).await.unwrap();
    assert_eq!(late, None);
    assert!(log.read_batches(end, end, 1).await.unwrap().is_empty());
    let heads = log.read_heads(0..120).await.unwrap();
    let expected: Vec<_> = written.iter().map(Frame::to_head).collect();
    assert_eq!(heads, expected);
}

pub(crate) async fn a_read_keeps_its_limits(on: impl Harness) {
    for cache_bytes in [0, 64 << 20] {
        let storage = on.storage_with(StorageOptions {
            cache_bytes,
            ..quiet()
        });
        let log = storage.open_log(key(1), options(10_000)).await.unwrap();
        if cache_bytes == 0 {
            let _written = filled(&log, 40, 1000).await;
        }
        for max_bytes in [0, 1, 1500, 5000, 12_000] {
            let mut next = 0;
            while next < 40 {
                let frames = log.read(next..38, max_bytes).await.unwrap();
                if next >= 38 {
                    assert!(frames.is_empty());
                    break;
                }
                let bytes: usize = frames.iter().map(Frame::total_bytes).sum();
                assert!(frames.len() == 1 || bytes <= max_bytes, "{bytes}");
                assert_eq!(frames[0].log_id().index, next);
                next += frames.len() as u64;
            }
        }
        assert!(log.read(5..5, 100).await.unwrap().is_empty());
        for index in [40, 41, u64::MAX - 1] {
            let error = log.read(index..index + 1, 1).await.unwrap_err();
            assert!(matches!(error, StorageError::OutOfRange { .. }));
        }
        assert_eq!(log.read(35..100, 1 << 20).await.unwrap().len(), 5);
        storage.shutdown().await;
    }
}

pub(crate) async fn readers_follow_an_appender(on: impl Harness) {
    const COUNT: u64 = 400;
    let storage = on.storage_with(StorageOptions {
        cache_bytes: 20_000,
        ..quiet()
    });
    let log = storage.open_log(key(1), options(30_000)).await.unwrap();
    let reader = |log: Log, by_offset: bool| async move {
        let mut next = 0;
        let mut offset = Offset(0);
        while next < COUNT {
            let end = log.last_log_id().map_or(0, |last| last.index + 1);
            if by_offset {
                let pieces = log
                    .read_batches(offset, log.next_offset(), 5000)
                    .await
                    .unwrap();
                for pair in pieces.chunks(2) {
                    let bytes = pair.concat();
                    let header = seriatim_proto::batch::BatchHeader::parse(&bytes).unwrap();
                    assert_eq!(header.base_offset, offset);
                    assert_eq!(bytes[61..], body_of(next, 500));
                    offset = header.next_offset();
                    next += 1;
                }
            } else if end > next {
                for frame in log.read(next..end, 5000).await.unwrap() {
                    assert_eq!(frame.log_id().index, next);
                    assert_eq!(frame.body()[..], body_of(next, 500));
                    next += 1;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let readers: Vec<_> = [true, false, true, false]
        .into_iter()
        .map(|by_offset| task::spawn("reader", reader(log.clone(), by_offset)))
        .collect();
    let mut maker = Maker::new();
    for _ in 0..COUNT / 4 {
        let frames = (0..4).map(|_| maker.batch(2, 500)).collect();
        append(&log, frames).await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

/// A reader that meets a truncation gets what was there, or an error of range; never damage.
pub(crate) async fn readers_of_a_log_that_is_cut_see_no_damage(on: impl Harness) {
    let storage = on.storage_with(uncached());
    let log = storage.open_log(key(1), options(40_000)).await.unwrap();
    let mut maker = Maker::new();
    let base = (0..20).map(|_| maker.batch(1, 1000)).collect();
    append(&log, base).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (log, stop) = (log.clone(), stop.clone());
            task::spawn("reader", async move {
                while !stop.load(Ordering::Relaxed) {
                    match log.read(15..60, 1 << 20).await {
                        Ok(frames) => {
                            let mut last = None;
                            for frame in frames {
                                let id = frame.log_id();
                                let follows = last.is_none_or(|last: LogId| {
                                    last.index + 1 == id.index && last.term <= id.term
                                });
                                assert!(follows, "{last:?} before {id}");
                                last = Some(id);
                            }
                        }
                        Err(StorageError::OutOfRange { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 0..150usize {
        let mut maker = Maker::after(&log, 2 + round as u64);
        let frames = (0..30).map(|n| maker.batch(1, 500 + (round * 37 + n * 101) % 1500));
        append(&log, frames.collect()).await.unwrap();
        log.truncate_from(20 + (round as u64 * 7) % 25)
            .await
            .unwrap();
        log.truncate_from(20).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(log.poisoned().is_none());
}

pub(crate) async fn the_tail_cache_keeps_its_limit(on: impl Harness) {
    const LIMIT: u64 = 50_000;
    let storage = on.storage_with(StorageOptions {
        cache_bytes: LIMIT,
        ..quiet()
    });
    let mut logs = Vec::new();
    for group in 0..5 {
        logs.push(storage.open_log(key(group), options(20_000)).await.unwrap());
    }
    for round in 0..60 {
        for log in &logs {
            let mut maker = Maker::after(log, 1);
            append(log, vec![maker.batch(1, 1000)]).await.unwrap();
        }
        eventually("the cache is within its limit", || {
            storage.stats().cached_bytes <= LIMIT
        })
        .await;
        if round % 10 == 9 {
            let log = &logs[round % 5];
            let last = log.last_log_id().unwrap();
            log.truncate_from(last.index - 1).await.unwrap();
            let log = &logs[(round + 1) % 5];
            log.purge(log.last_log_id().unwrap()).await.unwrap();
        }
    }
    for log in &logs {
        let _everything = all(log).await;
    }
    drop(logs);
    eventually("closed logs hold nothing", || {
        storage.stats().cached_bytes == 0
    })
    .await;
}
