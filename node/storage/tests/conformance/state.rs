//! What is kept beside the entries: votes, small files, metadata, the lock.

use std::sync::Arc;

use bytes::Bytes;
use seriatim_proto::ids::{NodeId, Offset, ReplicaId};
use seriatim_runtime::task;
use seriatim_storage::{Boundary, Identity, LogId, MetaBatch, Storage, StorageError, Vote};

use crate::common::{faulty::Op, *};

pub(crate) async fn votes_survive(on: impl Harness) {
    let vote = |term| Vote {
        term,
        voted_for: Some(ReplicaId(2)).filter(|_| !term.is_multiple_of(3)),
        committed: term.is_multiple_of(2),
    };
    let storage = on.storage();
    let before = on.disk().tried(Op::Sync, |path| path.ends_with("votes"));
    for term in 1..50 {
        let saves = (0..20).map(|group| {
            let storage = storage.clone();
            task::spawn("vote", async move {
                storage.votes().save_vote(key(group), vote(term)).await
            })
        });
        for save in saves.collect::<Vec<_>>() {
            save.await.unwrap().unwrap();
        }
    }
    let syncs = on.disk().tried(Op::Sync, |path| path.ends_with("votes")) - before;
    assert!(syncs < 49 * 15, "{syncs} syncs of 49 x 20 votes");
    storage.votes().forget(key(3)).await.unwrap();
    storage.votes().forget(key(77)).await.unwrap();
    storage.shutdown().await;
    let closed = storage.votes().save_vote(key(1), vote(99)).await;
    assert!(matches!(closed, Err(StorageError::Closed)), "{closed:?}");
    drop(storage);
    let storage = on.storage();
    for group in 0..20 {
        let expected = (group != 3).then(|| vote(49));
        assert_eq!(storage.votes().vote(key(group)), expected, "{group}");
    }
}

pub(crate) async fn small_files_survive(on: impl Harness) {
    let storage = on.storage();
    assert_eq!(storage.identity().read().unwrap(), None);
    let identity = Identity {
        node_id: NodeId(7),
        cluster_id: Some("blue".to_owned()),
    };
    storage.identity().write(&identity).unwrap();
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    assert_eq!(
        (
            log.checkpoint(),
            log.boundary().await.unwrap(),
            log.committed()
        ),
        (None, None, None)
    );
    let mut maker = Maker::new();
    let frames = (0..10).map(|_| maker.batch(2, 10)).collect();
    append(&log, frames).await.unwrap();
    let at = |index| LogId { term: 1, index };
    for index in [3, 7] {
        let data = Bytes::from(vec![u8::try_from(index).unwrap(); 1000]);
        log.save_checkpoint(at(index), data).await.unwrap();
    }
    let wrong = log
        .save_checkpoint(LogId { term: 2, index: 8 }, Bytes::new())
        .await;
    assert!(matches!(wrong, Err(StorageError::OutOfRange { .. })));
    let boundary = Boundary {
        log_id: at(5),
        next_offset: Offset(12),
        membership: Bytes::new(),
        state: Bytes::from_static(b"s"),
    };
    log.save_boundary(boundary.clone()).await.unwrap();
    log.save_committed(at(9));
    storage.shutdown().await;
    drop((log, storage));
    let storage = on.storage();
    assert_eq!(storage.identity().read().unwrap(), Some(identity));
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    assert_eq!(log.checkpoint(), Some((at(7), Bytes::from(vec![7; 1000]))));
    assert_eq!(log.boundary().await.unwrap(), Some(boundary));
    assert_eq!(log.committed(), Some(at(9)));
}

pub(crate) async fn a_metadata_transaction_is_whole(on: impl Harness) {
    let storage = on.storage();
    let mut batch = MetaBatch::default();
    for number in 0..100u8 {
        batch.put([b'a', number], [number]);
    }
    batch.put("b", "other");
    storage.meta().transact(batch).unwrap();
    let mut batch = MetaBatch::default();
    batch.delete([b'a', 50]);
    batch.put([b'a', 51], "changed");
    storage.meta().transact(batch).unwrap();
    storage.meta().flush().unwrap();
    let check = |storage: &Storage| {
        let found = storage.meta().scan(b"a").unwrap();
        assert_eq!(found.len(), 99);
        assert!(found.is_sorted());
        assert_eq!(storage.meta().get(&[b'a', 50]).unwrap(), None);
        assert_eq!(storage.meta().get(&[b'a', 51]).unwrap().unwrap(), "changed");
        assert_eq!(storage.meta().get(b"b").unwrap().unwrap(), "other");
    };
    check(&storage);
    storage.shutdown().await;
    assert!(matches!(
        storage.meta().get(b"b"),
        Err(StorageError::Closed)
    ));
    drop(storage);
    check(&on.storage());
}

pub(crate) async fn the_data_directory_is_locked(on: impl Harness) {
    let storage = on.storage();
    let second = Storage::open(Arc::new(on.disk()), &on.dir(), quiet());
    let error = second.unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
    let dir = on.dir().display().to_string();
    assert!(error.to_string().contains(&dir), "{error}");
    storage.shutdown().await;
    drop(on.storage());
}

pub(crate) async fn a_removed_log_is_gone_and_one_set_aside_stays_away(on: impl Harness) {
    let storage = on.storage();
    let vote = Vote {
        term: 3,
        voted_for: None,
        committed: false,
    };
    for group in [1, 2] {
        let log = storage
            .open_log(key(group), options(1 << 20))
            .await
            .unwrap();
        append(&log, vec![Maker::new().batch(1, 10)]).await.unwrap();
        storage.votes().save_vote(key(group), vote).await.unwrap();
    }
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    storage.remove_log(key(1)).await.unwrap();
    let mut maker = Maker::after(&log, 1);
    assert!(append(&log, vec![maker.batch(1, 10)]).await.is_err());
    assert_eq!(storage.votes().vote(key(1)), None);
    let place = storage.set_aside_log(key(2), "for a test").await.unwrap();
    assert!(place.starts_with(on.dir()));
    for _ in 0..2 {
        let refused = storage
            .open_log(key(2), options(1 << 20))
            .await
            .unwrap_err();
        assert!(
            matches!(refused, StorageError::SetAside { .. }),
            "{refused}"
        );
        assert!(refused.is_damage());
    }
    assert!(storage.logs().is_empty());
    storage.shutdown().await;
    drop((log, storage));
    let storage = on.storage();
    assert!(storage.logs().is_empty());
    let refused = storage
        .open_log(key(2), options(1 << 20))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, StorageError::SetAside { .. }),
        "{refused}"
    );
    // What it promised is remembered.
    assert_eq!(storage.votes().vote(key(2)), Some(vote));
    let log = storage.open_log(key(1), options(1 << 20)).await.unwrap();
    assert_eq!(log.last_log_id(), None);
}
