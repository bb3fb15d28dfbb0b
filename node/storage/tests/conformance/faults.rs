//! Disks that refuse, fill up, or rot.

use std::{io::ErrorKind, path::Path};

use seriatim_storage::{LogId, StorageError, StorageOptions, Vote, disk::Disk as _};

use crate::common::{faulty::Op, *};

fn is_segment_of(path: &Path, group: u64) -> bool {
    let folder = key(group).to_string();
    path.extension().is_some_and(|e| e == "seg")
        && path.parent().is_some_and(|dir| dir.ends_with(folder))
}

pub(crate) async fn a_failed_write_stops_the_log_and_no_other(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    let other = storage.open_log(key(2), options(1 << 20)).await.unwrap();
    let mut maker = Maker::new();
    let first = maker.batch(1, 100);
    append(&log, vec![first.clone()]).await.unwrap();
    on.disk()
        .refuse(|op, path| (op == Op::Write && is_segment_of(path, 1)).then_some(ErrorKind::Other));
    let waits: Vec<_> = (0..3)
        .map(|_| start_append(&log, vec![maker.batch(1, 100)]))
        .collect();
    for wait in waits.into_iter().flatten() {
        let error = wait.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("write"), "{error}");
    }
    on.disk().heal();
    let error = append(&log, vec![maker.batch(1, 100)]).await.unwrap_err();
    assert!(matches!(error, StorageError::Poisoned { .. }), "{error}");
    assert!(matches!(&*log.poisoned().unwrap(), StorageError::Io { .. }));
    for result in [
        log.sync().await,
        log.truncate_from(0).await,
        log.purge(LogId { term: 1, index: 0 }).await,
    ] {
        assert!(matches!(result, Err(StorageError::Poisoned { .. })));
    }
    assert_eq!(storage.stats().poisoned, [key(1)]);
    assert_eq!(log.read(0..1, 100).await.unwrap(), [first]);
    // Not to be opened again by this process; others go on.
    drop(log);
    let refused = storage
        .open_log(key(1), options(1 << 20))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, StorageError::Poisoned { .. }),
        "{refused}"
    );
    append(&other, vec![Maker::new().batch(1, 100)])
        .await
        .unwrap();
    eventually("nothing is pending", || storage.stats().pending_bytes == 0).await;
    storage.shutdown().await;
    drop((other, storage));
    // The next process finds what was acknowledged.
    let storage = on.storage();
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    assert!(log.last_log_id() >= Some(LogId { term: 1, index: 0 }));
}

pub(crate) async fn a_failed_sync_is_never_tried_again(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    let mut maker = Maker::new();
    append(&log, vec![maker.batch(1, 100)]).await.unwrap();
    on.disk().refuse(|op, path| {
        // Even if the reason is one that a write could be tried again after.
        (op == Op::Sync && is_segment_of(path, 1)).then_some(ErrorKind::StorageFull)
    });
    let error = append(&log, vec![maker.batch(1, 100)]).await.unwrap_err();
    assert!(error.to_string().contains("sync"), "{error}");
    on.disk().heal();
    let syncs = || on.disk().tried(Op::Sync, |path| is_segment_of(path, 1));
    let before = syncs();
    assert!(append(&log, vec![maker.batch(1, 100)]).await.is_err());
    assert!(log.sync().await.is_err());
    storage.shutdown().await;
    drop(log);
    assert_eq!(syncs(), before);

    // The votes likewise: the node can promise nothing any more.
    drop(storage);
    let storage = on.storage();
    let vote = |term| Vote {
        term,
        voted_for: None,
        committed: false,
    };
    storage.votes().save_vote(key(1), vote(1)).await.unwrap();
    on.disk()
        .refuse(|op, path| (op == Op::Sync && path.ends_with("votes")).then_some(ErrorKind::Other));
    assert!(storage.votes().save_vote(key(1), vote(2)).await.is_err());
    on.disk().heal();
    assert!(storage.votes().save_vote(key(1), vote(3)).await.is_err());
    assert_eq!(storage.votes().vote(key(1)), Some(vote(1)));
}

pub(crate) async fn a_full_disk_delays_and_loses_nothing(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(3000)).await.unwrap();
    let mut maker = Maker::new();
    let mut written = Vec::new();
    for _ in 0..10 {
        let frame = maker.batch(1, 700);
        written.push(frame.clone());
        append(&log, vec![frame]).await.unwrap();
    }
    for _ in 0..3 {
        on.disk().fill_up();
        let mut waits = Vec::new();
        for _ in 0..7 {
            let frame = maker.batch(1, 700);
            written.push(frame.clone());
            waits.push(start_append(&log, vec![frame]).unwrap());
        }
        eventually("the disk is known to be full", || storage.is_disk_full()).await;
        // Reads go on, of what waits too.
        assert_eq!(all(&log).await, written);
        assert!(waits.last_mut().unwrap().try_recv().is_err());
        on.disk().heal();
        for wait in waits {
            wait.await.unwrap().unwrap();
        }
        assert!(!storage.is_disk_full());
    }
    storage.shutdown().await;
    drop((log, storage));
    let storage = on.storage();
    let log = storage.open_log(key(1), options(3000)).await.unwrap();
    assert_eq!(all(&log).await, written);
}

pub(crate) async fn a_damaged_frame_stops_the_log(on: impl Harness) {
    let storage = on.storage_with(StorageOptions {
        cache_bytes: 0,
        ..quiet()
    });
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    let mut maker = Maker::new();
    for _ in 0..10 {
        append(&log, vec![maker.batch(1, 700)]).await.unwrap();
    }
    let path = segments(&on.disk(), &on.dir(), key(1)).remove(0);
    let bytes = read_file(&on.disk(), &path);
    overwrite(&on.disk(), &path, 4000, &[bytes[4000] ^ 16]);
    let good = log.read(0..2, 1 << 20).await.unwrap();
    assert_eq!(good.len(), 2);
    let error = log.read(0..10, 1 << 20).await.unwrap_err();
    let StorageError::Damaged { file, position, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*file, path);
    assert!((3000..=4000).contains(position), "{position}");
    assert!(append(&log, vec![maker.batch(1, 10)]).await.is_err());
    drop(log);
    let refused = storage
        .open_log(key(1), options(1 << 20))
        .await
        .unwrap_err();
    assert!(refused.is_damage(), "{refused}");
}

pub(crate) async fn a_log_that_lost_its_last_files_is_damaged(on: impl Harness) {
    for lost in [1, 2, usize::MAX] {
        let group = key(u64::try_from(lost.min(9)).unwrap());
        let storage = on.storage();
        let log = storage.open_log(group, options(3000)).await.unwrap();
        let mut maker = Maker::new();
        for _ in 0..20 {
            append(&log, vec![maker.batch(1, 700)]).await.unwrap();
        }
        storage.shutdown().await;
        drop((log, storage));
        let files = segments(&on.disk(), &on.dir(), group);
        assert!(files.len() > 3, "{files:?}");
        for file in files.iter().rev().take(lost) {
            on.disk().remove_file(file).unwrap();
        }
        // Whole frames up to some place look like a log that ends there: what was synced tells.
        let storage = on.storage();
        let refused = storage.open_log(group, options(3000)).await.unwrap_err();
        assert!(refused.is_damage(), "{refused}");
        assert!(refused.to_string().contains("were durable"), "{refused}");
        storage.shutdown().await;
    }
}
