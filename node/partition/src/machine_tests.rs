//! The state that a boundary is made of, while the log that it is made from is cut.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use seriatim_consensus::applied_entries;
use seriatim_proto::{
    batch::RecordBatch,
    compression::Compression,
    ids::{GroupId, Offset, ProducerId, ReplicaId, TopicPartition},
    record::{BatchBuilder, ProducerStamp},
};
use seriatim_runtime::{clock, mark};
use seriatim_storage::{
    Boundary, Frame, Log, LogId, LogKey, LogOptions, Storage, StorageOptions, disk::PosixDisk,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::{machine::Machine, state::State};

/// Entries of the log that a state is made from.
const ENTRIES: u64 = 20;

/// The entry of which the state is made.
const UPTO: u64 = 15;

fn id(index: u64) -> LogId {
    LogId { term: 1, index }
}

/// One record of a producer of its own, so that no two states are alike.
fn batch(index: u64) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    let _size = builder.push(0, None, Some(b"value"), &[]).unwrap();
    let stamp = ProducerStamp {
        id: ProducerId(i64::try_from(index).unwrap()),
        epoch: 0,
        base_sequence: 0,
    };
    RecordBatch::from_producer(builder.finish(Some(stamp)).unwrap()).unwrap()
}

/// On a real disk: calls of a simulated one take no steps.
async fn log_with_entries(dir: &TempDir) -> (Storage, Log) {
    let options = StorageOptions::default();
    let storage = Storage::open(Arc::new(PosixDisk), dir.path(), options).unwrap();
    let key = LogKey {
        group: GroupId(1),
        replica: ReplicaId(1),
    };
    let log = storage.open_log(key, LogOptions::default()).await.unwrap();
    let frames = (0..ENTRIES).zip((0..).map(Offset));
    let frames = frames.map(|(index, offset)| Frame::batch(id(index), offset, &batch(index)));
    let (tell, stored) = oneshot::channel();
    let done = move |result: Result<(), _>| tell.send(result.is_ok()).unwrap();
    log.append(frames.collect(), Box::new(done)).unwrap();
    assert!(stored.await.unwrap());
    (storage, log)
}

/// The state as of each entry.
async fn states(log: &Log) -> Vec<State> {
    let mut state = State::default();
    let entries = applied_entries(log, 0..ENTRIES).await.unwrap();
    let states = entries.into_iter().map(|entry| {
        let _reply = state.apply(entry).unwrap();
        state.clone()
    });
    states.collect()
}

/// Has the log begin behind the entry that this is the state of.
async fn begin_behind(log: &Log, state: &State) {
    let snapshot = state.to_snapshot();
    let log_id = state.applied.unwrap();
    let boundary = Boundary {
        log_id,
        next_offset: snapshot.next_offset,
        membership: snapshot.state.membership.unwrap_or_default(),
        state: snapshot.data,
    };
    log.save_boundary(boundary).await.unwrap();
    log.purge(log_id).await.unwrap();
}

/// Polls the future so many times at most; what it gave, if it has.
async fn polled<F: Future>(mut future: Pin<&mut F>, times: usize) -> Option<F::Output> {
    let mut polls = 0;
    poll_fn(|context| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

fn visits() -> u64 {
    mark::visits_of("partition.boundary.moved")
}

/// The boundary moves to this entry after so many steps of making a state; `false` if that takes fewer.
async fn boundary_moves_after(steps: usize, to: u64) -> bool {
    let dir = TempDir::new().unwrap();
    let (storage, log) = log_with_entries(&dir).await;
    let states = states(&log).await;
    let state_of = |index: u64| states.get(usize::try_from(index).unwrap()).unwrap();
    begin_behind(&log, state_of(1)).await;
    let name = TopicPartition::new("topic", 0);
    let machine = Machine::load(name, log.clone()).await.unwrap();

    let mut making = Box::pin(machine.state_at(id(UPTO)));
    let early = polled(making.as_mut(), steps).await;
    let was_early = early.is_some();
    let made = match early {
        Some(made) => made.unwrap(),
        None => {
            begin_behind(&log, state_of(to)).await;
            making.await.unwrap()
        }
    };
    let right = made == *state_of(UPTO) || !was_early && made == *state_of(UPTO.max(to));
    assert!(right, "after {steps} steps: {made:?}");
    storage.shutdown().await;
    !was_early
}

/// After each step in turn, until it was one after which that matters.
async fn boundary_moves_to(to: u64) {
    let (before, until) = (visits(), clock::now() + Duration::from_secs(60));
    while visits() == before {
        assert!(clock::now() < until, "it mattered after no step");
        let mut steps = 0;
        while boundary_moves_after(steps, to).await {
            steps += 1;
        }
    }
}

#[tokio::test]
async fn a_state_is_made_again_if_the_boundary_moves_meanwhile() {
    boundary_moves_to(UPTO - 5).await;
    // Beyond what was asked for: it is of the boundary then.
    boundary_moves_to(UPTO + 3).await;
}
