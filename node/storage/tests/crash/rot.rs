//! Flipped bits in every file: found and named, or without effect; never served.

use std::{
    collections::BTreeMap,
    io::IoSlice,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use seriatim_proto::ids::{NodeId, Offset};
use seriatim_storage::{
    Boundary, Frame, Identity, LogId, Result, Storage, StorageError, Vote,
    disk::{Disk, OpenMode, sim::SimDisk},
    verify,
};

use crate::{
    common::*,
    life::{key_of, run, storage_options},
    model::State,
};

const SEGMENT_BYTES: u64 = 1400;

/// Every file of a disk.
#[derive(Clone)]
struct Image(BTreeMap<PathBuf, Vec<u8>>);

impl Image {
    fn of(disk: &SimDisk) -> Self {
        let mut files = BTreeMap::new();
        let mut dirs = vec![PathBuf::from("/data")];
        while let Some(dir) = dirs.pop() {
            for entry in disk.list(&dir).unwrap() {
                let path = dir.join(&entry.name);
                if entry.is_dir {
                    dirs.push(path);
                } else {
                    let mut bytes = read_file(disk, &path);
                    // Of the zeros written ahead a few will do.
                    let used = bytes
                        .iter()
                        .rposition(|&byte| byte != 0)
                        .map_or(0, |at| at + 1);
                    bytes.truncate(used + 700);
                    let _ = files.insert(path, bytes);
                }
            }
        }
        Self(files)
    }

    fn disk(&self) -> SimDisk {
        let disk = SimDisk::new(1);
        for (path, bytes) in &self.0 {
            disk.create_dir_all(path.parent().unwrap()).unwrap();
            let file = disk.open(path, OpenMode::CreateNew).unwrap();
            file.write_at(0, &mut [IoSlice::new(bytes)]).unwrap();
        }
        disk
    }

    fn with_flip(&self, path: &Path, position: usize) -> Self {
        let mut flipped = self.clone();
        flipped.0.get_mut(path).unwrap()[position] ^= 1 << (position % 8);
        flipped
    }
}

fn identity() -> Identity {
    Identity {
        node_id: NodeId(3),
        cluster_id: Some("green".to_owned()),
    }
}

/// What a whole directory says.
#[derive(Debug, PartialEq)]
struct Content {
    identity: Option<Identity>,
    votes: Vec<Option<Vote>>,
    log: State,
}

async fn filled(disk: &SimDisk) -> Content {
    let storage = Storage::open(
        Arc::new(disk.clone()),
        Path::new("/data"),
        storage_options(),
    );
    let storage = storage.unwrap();
    storage.identity().write(&identity()).unwrap();
    for term in 1..4 {
        for group in 0..2 {
            let vote = State::vote(term);
            storage
                .votes()
                .save_vote(key_of(group), vote)
                .await
                .unwrap();
        }
    }
    let log = storage
        .open_log(key_of(0), options(SEGMENT_BYTES))
        .await
        .unwrap();
    let mut maker = Maker::new();
    for index in 0..24u64 {
        maker.term = 1 + index / 9;
        let frame = if index % 5 == 4 {
            maker.blank()
        } else {
            maker.batch(2, 230)
        };
        append(&log, vec![frame]).await.unwrap();
    }
    let at = |index| LogId { term: 1, index };
    log.save_checkpoint(at(8), Bytes::from_static(b"checkpoint"))
        .await
        .unwrap();
    let boundary = Boundary {
        log_id: at(6),
        next_offset: Offset(12),
        membership: Bytes::from_static(b"members"),
        state: Bytes::from_static(b"state"),
    };
    log.save_boundary(boundary).await.unwrap();
    log.purge(at(6)).await.unwrap();
    storage.shutdown().await;
    let content = Content {
        identity: Some(identity()),
        votes: vec![Some(State::vote(3)); 2],
        log: State::found(&storage, &log).await,
    };
    assert!(segments(disk, Path::new("/data"), key_of(0)).len() >= 4);
    content
}

/// Reads everything there is.
async fn read_all(disk: &SimDisk) -> Result<Content> {
    let storage = Storage::open(
        Arc::new(disk.clone()),
        Path::new("/data"),
        storage_options(),
    )?;
    let log = storage.open_log(key_of(0), options(SEGMENT_BYTES)).await?;
    let end = log.last_log_id().map_or(0, |last| last.index + 1);
    let mut next = log.first_index();
    let mut frames: Vec<Frame> = Vec::new();
    while next < end {
        let some = log.read(next..end, 1000).await?;
        next = some.last().unwrap().log_id().index + 1;
        frames.extend(some);
    }
    for frame in &frames {
        // By every way of looking things up, so that the index of each segment is used.
        assert_eq!(
            log.offset_at(frame.log_id().index).await?,
            frame.base_offset()
        );
    }
    log.verify().await?;
    Ok(Content {
        identity: storage.identity().read()?,
        votes: (0..2)
            .map(|group| storage.votes().vote(key_of(group)))
            .collect(),
        log: State {
            purged: log.purged_log_id(),
            start_offset: log.log_start_offset().0,
            frames,
            vote: storage.votes().vote(log.key()),
            checkpoint: log.checkpoint(),
            boundary: log.boundary().await?,
        },
    })
}

/// The damage that the offline verification names in a file.
fn verified(disk: &SimDisk, path: &Path) -> Vec<u64> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    match verify::verify_dir(&shared, Path::new("/data"), &mut |_, _| {}) {
        Ok(report) => {
            for damage in &report.damage {
                assert!(damage.file == path, "{damage:?} for {}", path.display());
            }
            report.damage.iter().map(|damage| damage.position).collect()
        }
        Err(error) => panic!("{error}"),
    }
}

/// What a flip there did.
#[derive(Debug, PartialEq, Eq)]
enum Effect {
    /// Everything reads as before.
    None,
    /// Opening or reading says so.
    Found,
}

fn flip(image: &Image, content: &Content, path: &Path, position: usize) -> (Effect, Vec<u64>) {
    let place = format!("{} at {position}", path.display());
    let flipped = image.with_flip(path, position);
    let named = verified(&flipped.disk(), path);
    let effect = match run(read_all(&flipped.disk())) {
        Ok(found) => {
            assert_eq!(found, *content, "{place}: something else was served");
            Effect::None
        }
        Err(StorageError::Damaged {
            file, position: at, ..
        }) => {
            assert_eq!(file, path, "{place}");
            assert!(at <= position as u64, "{place}: named at {at}");
            Effect::Found
        }
        Err(error) => panic!("{place}: {error}"),
    };
    for at in &named {
        assert!(*at <= position as u64, "{place}: named at {at}");
    }
    (effect, named)
}

fn image() -> (Image, Content) {
    let disk = SimDisk::new(7);
    let content = run(filled(&disk));
    disk.kill_process();
    let image = Image::of(&disk);
    assert_eq!(run(read_all(&image.disk())).unwrap(), content);
    assert!(verified(&image.disk(), Path::new("")).is_empty());
    (image, content)
}

#[test]
fn small_files_with_any_flipped_bit_are_refused() {
    let (image, content) = image();
    for (path, bytes) in &image.0 {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !["format", "identity", "start", "checkpoint", "boundary"].contains(&name) {
            continue;
        }
        for position in 0..bytes.len() {
            let (effect, named) = flip(&image, &content, path, position);
            assert_eq!(effect, Effect::Found, "{} {position}", path.display());
            assert_eq!(named.len(), 1, "{} {position}", path.display());
        }
    }
}

#[test]
fn votes_with_a_flipped_bit_keep_the_node_from_starting() {
    let (image, content) = image();
    let path = Path::new("/data/votes");
    // A header, six votes, and zeros of which the first could be a vote.
    for position in (0..64 * 8).step_by(3) {
        let (effect, named) = flip(&image, &content, path, position);
        let padding = (16..64).contains(&position);
        assert_eq!(effect == Effect::None, padding, "{position}");
        assert_eq!(named.is_empty(), padding, "{position}");
    }
}

#[test]
fn progress_with_a_flipped_bit_costs_only_the_hint() {
    let (image, content) = image();
    let path = Path::new("/data/progress");
    for position in 0..image.0[path].len() {
        let (effect, named) = flip(&image, &content, path, position);
        assert_eq!(effect, Effect::None, "{position}");
        let padding = (16..64).contains(&position);
        assert_eq!(named.is_empty(), padding, "{position}");
    }
}

#[test]
fn segments_with_a_flipped_bit_are_found_out() {
    let (image, content) = image();
    let paths = segments(&image.disk(), Path::new("/data"), key_of(0));
    let active = paths.last().unwrap();
    for path in &paths {
        let bytes = &image.0[path];
        // Behind the last frame there may be zeros, or the footer.
        let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        let footer = bytes.windows(4).rposition(|four| four == b"SRIX");
        assert_eq!(footer.is_none(), path == active);
        for position in (0..used).step_by(2) {
            let (effect, named) = flip(&image, &content, path, position);
            assert_eq!(named.len(), 1, "{} at {position}", path.display());
            // A footer only repeats what the frames say.
            let repeated = footer.is_some_and(|footer| position >= footer);
            assert_eq!(
                effect == Effect::None,
                repeated,
                "{} at {position}",
                path.display()
            );
        }
    }
}
