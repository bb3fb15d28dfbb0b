//! Opening logs: how much is read, and what is read later.

use seriatim_storage::{Log, LogOptions, StorageOptions};

use crate::common::*;

/// Appends so many MiB in batches of 64 KiB.
async fn fill(log: &Log, mib: u32) {
    let mut maker = Maker::after(log, 1);
    for _ in 0..mib * 2 {
        let frames = (0..8).map(|_| maker.batch(1, 64 << 10)).collect();
        append(log, frames).await.unwrap();
    }
}

pub(crate) async fn a_long_active_segment_is_not_read_from_its_beginning(on: impl Harness) {
    let storage = on.storage();
    let log = storage
        .open_log(key(1), LogOptions::default())
        .await
        .unwrap();
    fill(&log, 24).await;
    let last = log.last_log_id();
    storage.shutdown().await;
    drop((log, storage));
    let storage = on.storage();
    let before = on.disk().bytes_read();
    let log = storage
        .open_log(key(1), LogOptions::default())
        .await
        .unwrap();
    let read = on.disk().bytes_read() - before;
    assert!(read < 5 << 20, "{read} bytes were read of 24 MiB");
    assert_eq!(log.last_log_id(), last);
    // Everything is there, and can be cut below the place where the scan began.
    assert_eq!(all(&log).await.len(), 384);
    log.truncate_from(100).await.unwrap();
    fill(&log, 2).await;
    let written = all(&log).await;
    storage.shutdown().await;
    drop((log, storage));
    let storage = on.storage();
    let log = storage
        .open_log(key(1), LogOptions::default())
        .await
        .unwrap();
    assert_eq!(all(&log).await, written);
}

pub(crate) async fn what_recovery_did_not_read_is_verified_behind_it(on: impl Harness) {
    let storage = on.storage();
    let log = storage
        .open_log(key(1), LogOptions::default())
        .await
        .unwrap();
    fill(&log, 4).await;
    storage.shutdown().await;
    drop((log, storage));
    let path = segments(&on.disk(), &on.dir(), key(1)).remove(0);
    let bytes = read_file(&on.disk(), &path);
    overwrite(&on.disk(), &path, 300_000, &[bytes[300_000] ^ 1]);
    let storage = on.storage_with(StorageOptions {
        scrub: true,
        ..quiet()
    });
    let log = storage
        .open_log(key(1), LogOptions::default())
        .await
        .unwrap();
    eventually("the damage is found", || log.poisoned().is_some()).await;
    assert!(log.poisoned().unwrap().is_damage());
    assert_eq!(storage.stats().poisoned, [key(1)]);
}
