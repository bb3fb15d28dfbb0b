//! What only the real file system can show.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod common;

use common::*;
use seriatim_runtime::clock;
use seriatim_storage::LogId;

#[tokio::test]
async fn a_thousand_empty_logs_open_fast_and_take_no_space() {
    let on = Posix::new();
    {
        let storage = on.storage();
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
    let before = clock::now();
    let storage = on.storage();
    for group in storage.logs() {
        let log = storage.open_log(group, options(1 << 20)).await.unwrap();
        assert_eq!(log.last_log_id(), Some(LogId { term: 1, index: 0 }));
    }
    assert!(before.elapsed().as_secs() < 5, "{:?}", before.elapsed());
    let bytes: u64 = storage
        .logs()
        .iter()
        .flat_map(|key| std::fs::read_dir(on.dir().join("logs").join(key.to_string())).unwrap())
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes < 1000 * 4096, "{bytes}");
}
