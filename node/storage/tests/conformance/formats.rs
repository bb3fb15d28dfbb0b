//! Files that a newer program wrote.

use std::sync::Arc;

use bytes::Bytes;
use seriatim_proto::ids::{NodeId, Offset};
use seriatim_storage::{Boundary, Identity, LogId, MetaBatch, Result, Storage, StorageError};

use crate::common::*;

/// Opens everything there is.
async fn open_all(on: &impl Harness) -> Result<()> {
    let storage = Storage::open(Arc::new(on.disk()), &on.dir(), quiet())?;
    let opened = async {
        let _identity = storage.identity().read()?;
        let log = storage.open_log(key(1), options(2000)).await?;
        let _all = log.read(log.first_index()..20, 1 << 20).await?;
        Ok(())
    };
    let result = opened.await;
    storage.shutdown().await;
    result
}

pub(crate) async fn an_unknown_version_is_refused_in_every_file(on: impl Harness) {
    let storage = on.storage();
    let log = storage.open_log(key(1), options(2000)).await.unwrap();
    let mut maker = Maker::new();
    for _ in 0..20 {
        append(&log, vec![maker.batch(1, 300)]).await.unwrap();
    }
    let at = |index| LogId { term: 1, index };
    log.save_checkpoint(at(10), Bytes::new()).await.unwrap();
    let boundary = Boundary {
        log_id: at(2),
        next_offset: Offset(3),
        membership: Bytes::new(),
        state: Bytes::new(),
    };
    log.save_boundary(boundary).await.unwrap();
    log.purge(at(2)).await.unwrap();
    let identity = Identity {
        node_id: NodeId(1),
        cluster_id: None,
    };
    storage.identity().write(&identity).unwrap();
    let mut batch = MetaBatch::default();
    batch.put("k", "v");
    storage.meta().transact(batch).unwrap();
    storage.shutdown().await;
    drop((log, storage));
    open_all(&on).await.unwrap();

    let disk = on.disk();
    let log_dir = on.dir().join("logs").join(key(1).to_string());
    let mut files: Vec<_> = ["format", "identity", "votes", "progress"]
        .into_iter()
        .map(|name| on.dir().join(name))
        .collect();
    files.extend(["start", "checkpoint", "boundary"].map(|name| log_dir.join(name)));
    let all_segments = segments(&disk, &on.dir(), key(1));
    // A sealed one and the active one.
    files.extend([
        all_segments[0].clone(),
        all_segments.last().unwrap().clone(),
    ]);
    for path in files {
        let good = read_file(&disk, &path);
        assert_eq!(good[8..10], [0, 1], "{}", path.display());
        // A header of a newer version has another checksum.
        let (version, checksum) = ([0, 2], [12, 13, 14, 15].map(|at: usize| !good[at]));
        overwrite(&disk, &path, 8, &version);
        overwrite(&disk, &path, 12, &checksum);
        let error = open_all(&on).await.unwrap_err();
        match &error {
            StorageError::Version { file, found: 2, .. } => assert_eq!(*file, path),
            _ => panic!("{}: {error}", path.display()),
        }
        assert!(error.to_string().contains("version 2"), "{error}");
        assert!(!error.is_damage(), "{error}");
        // Refused, and left as it is.
        let mut newer = good.clone();
        newer[8..10].copy_from_slice(&version);
        newer[12..16].copy_from_slice(&checksum);
        assert_eq!(read_file(&disk, &path), newer, "{}", path.display());
        overwrite(&disk, &path, 8, &good[8..16]);
        open_all(&on).await.unwrap();
    }
}
