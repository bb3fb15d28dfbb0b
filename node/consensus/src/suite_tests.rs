//! openraft's own suite for log stores and state machines, on the simulated disk and on a real one.

use std::{
    fmt::Debug,
    io,
    ops::{RangeBounds, RangeInclusive},
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use openraft::{
    OptionalSend, RaftLogReader,
    entry::RaftEntry as _,
    storage::{IOFlushed, LogState, RaftLogStorage},
    testing::log::{StoreBuilder, Suite},
};
use parking_lot::Mutex;
use seriatim_proto::ids::{GroupId, Offset, ReplicaId};
use seriatim_storage::{
    Boundary, Frame, Log, LogId, LogKey, LogOptions, Storage, StorageOptions, Vote,
    disk::{Disk, PosixDisk, sim::SimDisk},
};

use crate::{
    AppliedEntry, AppliedPayload, AppliedState, Reply, SmError, Snapshot, StateMachine, codec,
    log_store::LogStore,
    machine::Machine,
    raft::{RaftEntry, RaftLogId, RaftVote, Types, from_raft, to_raft, vote_to_raft},
    refusals::Refusals,
};

type StorageError = openraft::StorageError<Types>;

/// A state machine that knows where it is and nothing else.
#[derive(Default)]
struct Position(Mutex<AppliedState>);

#[async_trait]
impl StateMachine for Position {
    fn applied_state(&self) -> Result<AppliedState, SmError> {
        Ok(self.0.lock().clone())
    }

    async fn apply(&self, entries: Vec<AppliedEntry>) -> Result<Vec<Reply>, SmError> {
        let mut state = self.0.lock();
        let replies = entries.iter().map(|entry| {
            state.log_id = Some(entry.log_id);
            if let AppliedPayload::Membership(membership) = &entry.payload {
                state.membership = Some(membership.clone());
            }
            Reply::None
        });
        Ok(replies.collect())
    }

    async fn snapshot(&self) -> Result<Snapshot, SmError> {
        Ok(Snapshot {
            state: self.0.lock().clone(),
            next_offset: Offset(0),
            data: Bytes::new(),
        })
    }

    async fn install(&self, snapshot: Snapshot) -> Result<(), SmError> {
        *self.0.lock() = snapshot.state;
        Ok(())
    }
}

/// The store under test, made to accept what the suite does and Raft never does: entries that leave
/// gaps (filled with blanks here), and a purge beyond the end without a snapshot.
#[derive(Clone)]
struct Lenient(LogStore);

impl RaftLogReader<Types> for Lenient {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.0.entries_stream(range).await
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.0.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        self.0.read_vote().await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        self.0.limited_get_log_entries(start, end).await
    }

    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<RaftLogId>,
    ) -> io::Result<Vec<RaftLogId>> {
        self.0.get_key_log_ids(range).await
    }
}

impl RaftLogStorage<Types> for Lenient {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        self.0.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        self.0.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        self.0.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        self.0.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let last = self.0.log.last_log_id();
        let mut next = last.map_or(0, |last| last.index + 1);
        let mut all = Vec::new();
        for entry in entries {
            let id = from_raft(&entry.log_id);
            for index in next..id.index {
                let id = LogId {
                    term: id.term,
                    index,
                };
                all.push(RaftEntry::new_blank(to_raft(id)));
            }
            next = id.index + 1;
            all.push(entry);
        }
        self.0.append(all, callback).await
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> io::Result<()> {
        self.0.truncate_after(last).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> io::Result<()> {
        let log = &self.0.log;
        if log.last_log_id() < Some(from_raft(&upto)) {
            let boundary = Boundary {
                log_id: from_raft(&upto),
                next_offset: log.next_offset(),
                membership: Bytes::new(),
                state: Bytes::new(),
            };
            log.save_boundary(boundary).await.unwrap();
        }
        self.0.purge(upto).await
    }
}

/// What keeps a store alive.
type Guard = Option<tempfile::TempDir>;

struct Builder {
    simulated: bool,
}

impl StoreBuilder<Types, Lenient, Machine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, Lenient, Machine), StorageError> {
        let guard = (!self.simulated).then(|| tempfile::tempdir().unwrap());
        let disk: Arc<dyn Disk> = match &guard {
            None => Arc::new(SimDisk::new(1)),
            Some(_) => Arc::new(PosixDisk),
        };
        let dir = guard.as_ref().map_or_else(
            || Path::new("/data").to_owned(),
            |dir| dir.path().to_owned(),
        );
        let options = StorageOptions {
            disk_threads: 1,
            ..StorageOptions::default()
        };
        let storage = Storage::open(disk, &dir, options).unwrap();
        let key = LogKey {
            group: GroupId(1),
            replica: ReplicaId(0),
        };
        // So small that the suite meets many segments.
        let options = LogOptions {
            segment_bytes: 300,
            ..LogOptions::default()
        };
        let log = storage.open_log(key, options).await.unwrap();
        let machine = Machine {
            saving: std::sync::Arc::default(),
            machine: Arc::new(Position::default()),
            log: log.clone(),
            applied: Arc::default(),
        };
        let store = LogStore {
            storage,
            log,
            refusals: Refusals::default(),
            max_read_bytes: 100,
        };
        Ok((guard, Lenient(store), machine))
    }
}

async fn whole_suite(simulated: bool) {
    let suite = Suite::test_all(Builder { simulated });
    let limit = Duration::from_secs(60);
    let result = seriatim_runtime::clock::timeout(limit, suite).await;
    result.expect("in time").unwrap();
}

#[tokio::test]
async fn the_suite_of_openraft_on_the_simulated_disk() {
    whole_suite(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_openraft_on_files() {
    whole_suite(false).await;
}

/// openraft takes a vote that is saved for a sign that the entries before it are durable.
#[tokio::test]
async fn a_vote_is_saved_only_once_the_entries_before_it_are_durable() {
    let disk = SimDisk::new(1);
    let key = LogKey {
        group: GroupId(1),
        replica: ReplicaId(0),
    };
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let storage = Storage::open(shared, Path::new("/data"), StorageOptions::default()).unwrap();
    let log = storage.open_log(key, LogOptions::default()).await.unwrap();
    let mut store = LogStore {
        storage: storage.clone(),
        log: log.clone(),
        refusals: Refusals::default(),
        max_read_bytes: 100,
    };
    let vote = |term| {
        vote_to_raft(Vote {
            term,
            voted_for: Some(ReplicaId(2)),
            committed: true,
        })
    };
    // Room for votes is made ahead, so only entries wait for a full disk.
    store.save_vote(&vote(1)).await.unwrap();
    disk.set_full(true);
    let entry = RaftEntry::new_blank(to_raft(LogId { term: 1, index: 0 }));
    let frame = codec::to_frame(entry, Offset(0)).unwrap();
    log.append(vec![frame], Box::new(|result| assert!(result.is_ok())))
        .unwrap();
    let saving = async {
        store.save_vote(&vote(2)).await.unwrap();
        assert_eq!(log.flushed_index(), Some(0), "the entry is not durable");
    };
    let room = async {
        // The disk has its turns: the entry meets no room, and a vote that does not wait is saved.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(log.flushed_index(), None);
        disk.set_full(false);
    };
    let ((), ()) = tokio::join!(saving, room);
    assert_eq!(storage.votes().vote(key).unwrap().term, 2);
}

/// Appends frames; they are durable on return.
async fn append(log: &Log, frames: Vec<Frame>) {
    let (tell, done) = tokio::sync::oneshot::channel();
    log.append(
        frames,
        Box::new(move |result| assert_eq!(tell.send(result.is_ok()), Ok(()))),
    )
    .unwrap();
    assert!(done.await.unwrap());
}

/// The suite reads no payloads; every kind must come back as it was.
#[tokio::test]
async fn payloads_come_back_from_the_log() {
    use openraft::EntryPayload;

    use crate::raft::{Data, Membership, Peer};

    let (_guard, mut store, _machine) = Builder { simulated: true }.build().await.unwrap();
    let nodes = std::collections::BTreeMap::from([(4, Peer::default())]);
    let membership = Membership::new(vec![[4].into()], nodes).unwrap();
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Membership(membership.clone()),
        EntryPayload::Normal(Data::Command(Bytes::from_static(b"do"))),
    ];
    let entries = (0..).zip(payloads).map(|(index, payload)| RaftEntry {
        log_id: to_raft(LogId { term: 1, index }),
        payload,
    });
    let (frames, _offset) = entries.fold((Vec::new(), Offset(0)), |(mut all, next), entry| {
        all.push(codec::to_frame(entry, next).unwrap());
        (all, next)
    });
    append(&store.0.log, frames).await;
    let read = store.try_get_log_entries(0..3).await.unwrap();
    assert!(matches!(read[0].payload, EntryPayload::Blank));
    assert!(matches!(&read[1].payload, EntryPayload::Membership(m) if *m == membership));
    assert!(
        matches!(&read[2].payload, EntryPayload::Normal(Data::Command(bytes)) if bytes == "do")
    );
}

/// A leader reads for a follower what may be purged meanwhile; an error would stop its group.
#[tokio::test]
async fn a_read_of_what_was_purged_finds_nothing_and_fails_only_beyond_the_end() {
    let (_guard, mut store, _machine) = Builder { simulated: true }.build().await.unwrap();
    let log = store.0.log.clone();
    let blank = |index| RaftEntry::new_blank(to_raft(LogId { term: 1, index }));
    let frames = (0..8).map(|index| codec::to_frame(blank(index), Offset(0)).unwrap());
    append(&log, frames.collect()).await;
    log.purge(LogId { term: 1, index: 4 }).await.unwrap();
    let purged = store.0.limited_get_log_entries(0, 8).await.unwrap();
    assert!(purged.is_empty(), "{purged:?}");
    let kept = store.0.limited_get_log_entries(5, 8).await.unwrap();
    assert_eq!(kept[0].log_id, to_raft(LogId { term: 1, index: 5 }));
    let beyond = store.0.limited_get_log_entries(8, 9).await;
    assert!(beyond.is_err(), "{beyond:?}");
}
