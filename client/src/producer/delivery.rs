//! One completion for all records of a batch, and the futures that look at it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use seriatim_proto::ids::Offset;

use crate::error::ClientError;

/// Where a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: i32,
    /// The offset; -1 where no acknowledgement was asked for.
    pub offset: Offset,
}

/// How a batch ended: the place of its first record, or why it was not stored.
pub(super) type Outcome = Result<Delivered, ClientError>;

/// Shared by a batch's records: a record costs an index, not an allocation.
#[derive(Debug, Default)]
pub(super) struct Completion {
    outcome: OnceLock<Outcome>,
    /// Invariant: empty once `outcome` is set and the wakers were woken.
    wakers: Mutex<Vec<Option<Waker>>>,
}

impl Completion {
    /// Ends the batch; only the first outcome counts.
    pub(super) fn complete(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            let wakers = std::mem::take(&mut *self.wakers.lock());
            for waker in wakers.into_iter().flatten() {
                waker.wake();
            }
        }
    }

    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    fn register(&self, slot: &mut Option<usize>, waker: &Waker) {
        let mut wakers = self.wakers.lock();
        if let Some(known) = slot.and_then(|at| wakers.get_mut(at)) {
            *known = Some(waker.clone());
        } else {
            *slot = Some(wakers.len());
            wakers.push(Some(waker.clone()));
        }
    }
}

/// Resolves when the record was acknowledged, or cannot be any more. Dropping it changes nothing
/// for the record.
#[derive(Debug)]
#[must_use = "without it nobody learns whether the record was stored"]
pub struct Delivery {
    completion: Arc<Completion>,
    index: u32,
    slot: Option<usize>,
}

impl Delivery {
    pub(super) const fn new(completion: Arc<Completion>, index: u32) -> Self {
        Self {
            completion,
            index,
            slot: None,
        }
    }

    /// The outcome, if there is one yet.
    pub fn poll_now(&self) -> Option<Result<Delivered, ClientError>> {
        let outcome = self.completion.outcome()?;
        Some(outcome.clone().map(|first| Delivered {
            offset: if first.offset.0 < 0 {
                first.offset
            } else {
                Offset(first.offset.0 + i64::from(self.index))
            },
            ..first
        }))
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.poll_now() {
            return Poll::Ready(outcome);
        }
        let mut slot = self.slot;
        self.completion.register(&mut slot, cx.waker());
        self.slot = slot;
        // It may have ended before the waker was there.
        self.poll_now().map_or(Poll::Pending, Poll::Ready)
    }
}
