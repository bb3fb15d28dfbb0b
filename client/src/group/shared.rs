//! What the member's task, the consumer and its handles have in common.

use std::{collections::BTreeMap, sync::Arc};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use seriatim_proto::ids::{Offset, TopicPartition};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    options::Options,
    part::{Part, Phase, Reading},
    state::State,
};
use crate::{
    client::Client,
    consumer::{Credit, Delivery, Reader, TopicKey, Watermark},
    error::ClientError,
    rt,
};

/// Least bytes that are read ahead of one partition.
const WINDOW_MIN: usize = 256 << 10;

/// An offset to store, and a text to keep with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffset {
    /// The next record to process.
    pub offset: Offset,
    /// Free text, at most 4 KiB.
    pub metadata: String,
}

impl From<Offset> for CommitOffset {
    fn from(offset: Offset) -> Self {
        Self {
            offset,
            metadata: String::new(),
        }
    }
}

/// What the application asks of the member.
#[derive(Debug)]
pub(super) enum Command {
    /// Store everything that came back, or certain offsets.
    Commit {
        offsets: BTreeMap<TopicPartition, CommitOffset>,
        reply: oneshot::Sender<Result<(), ClientError>>,
    },
    Close(oneshot::Sender<Result<(), ClientError>>),
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) group: String,
    pub(super) options: Options,
    pub(super) state: Mutex<State>,
    /// Wakes the application's task, where it waits for a batch.
    pub(super) consumer: AtomicWaker,
    /// Wakes the member's task.
    pub(super) member: Notify,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) deliveries: mpsc::Sender<Delivery>,
}

impl Shared {
    /// A batch was dropped by the application.
    pub(super) fn came_back(&self, tp: &TopicPartition, round: u64, range: (i64, i64)) {
        self.state.lock().keep_returned(tp, round, range);
        // Who waits for the next batch has come back to the consumer.
        self.consumer.wake();
    }

    /// Reads a partition from where its tracker is.
    pub(super) fn read(&self, state: &mut State, tp: &TopicPartition) {
        let number = state.number();
        let running = state.parts.len();
        let Some(part) = state.parts.get_mut(tp) else {
            return;
        };
        let Some(tracker) = &part.tracker else { return };
        let window = self.options.prefetch_bytes / running.max(1);
        let credit = Credit::new(window.max(WINDOW_MIN));
        let watermark = Watermark::default();
        let key = TopicKey {
            tp: Arc::new(tp.clone()),
            generation: number,
        };
        let reader = Reader::new(
            Arc::clone(self.client.metadata()),
            key,
            Offset(tracker.position()),
            credit.clone(),
            self.deliveries.clone(),
        );
        let reader = reader
            .resetting(self.options.reset)
            .reporting(watermark.clone());
        part.stop();
        part.reader = number;
        part.phase = Phase::Running;
        part.reading = Some(Reading {
            credit,
            watermark,
            _task: rt::Task::spawn(reader.run()),
        });
    }

    /// Goes on elsewhere in a partition. What is with the application of it counts no more.
    pub(super) fn seek(&self, tp: &TopicPartition, to: Offset) -> Result<(), ClientError> {
        let mut state = self.state.lock();
        let round = state.number();
        let part = owned(&mut state, tp)?;
        part.begin(round, to.0, true);
        if part.phase == Phase::Running {
            self.read(&mut state, tp);
        }
        Ok(())
    }
}

/// A partition that is this member's and not on its way to another.
pub(super) fn owned<'a>(
    state: &'a mut State,
    tp: &TopicPartition,
) -> Result<&'a mut Part, ClientError> {
    let part = state.parts.get_mut(tp).filter(|part| {
        matches!(
            part.phase,
            Phase::Assigned | Phase::Announcing | Phase::Locating | Phase::Running
        )
    });
    part.ok_or_else(|| ClientError::NotAssigned(tp.clone()))
}
