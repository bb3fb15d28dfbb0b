//! The stream of a member's records.

use std::{
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{
    batch::{GroupBatch, Ticket},
    handle::GroupHandle,
    shared::Command,
    state::Handed,
};
use crate::{consumer::Delivery, error::ClientError, rt};

/// How long a close may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(30);

/// A member of a group: a [`Stream`] of batches of all partitions that it owns at a time, in order
/// within a partition.
///
/// # What is committed
///
/// A batch is *processed* when it was dropped and the application has come back to this consumer
/// after that: by asking for the next batch (also while it waits for one), by
/// [committing](GroupHandle::commit), or by [closing](Self::close). So
///
/// - a loop that handles one batch at a time commits a batch once it asks for the next; one that
///   ends early by `?`, `return` or a panic does not commit the batch that it was at;
/// - batches may go to other tasks and be dropped there, in any order: of each partition the
///   contiguous part is committed, never anything behind a batch that is still held;
/// - a batch that was dropped by a panic or [abandoned](GroupBatch::abandon) is never committed, and
///   nothing behind it in its partition is.
///
/// By default that is stored every second, when partitions are let go of, and by `close`. Dropping the
/// consumer commits nothing. What was processed and not committed comes again, at the next owner of
/// the partition: every record is processed at least once.
///
/// # Liveness
///
/// Heartbeats go out from a task of their own: a handler may take as long as it likes. It only has to
/// leave the runtime's threads to others, so long computations belong in `spawn_blocking`.
///
/// A member that the coordinator did not hear for the session timeout loses its partitions. This one
/// knows when that may have happened, also after its process was stopped: it hands on nothing more
/// until the coordinator has confirmed what it owns. If the group knows it no more, it joins again and
/// goes on from the committed offsets.
///
/// # Failures
///
/// An error of one partition comes as an item; the other partitions go on, and the
/// failed one does after a [seek](GroupHandle::seek). An error after which `None` follows ended the
/// member: above all `MEMBER_FENCED`, when another process joined under its instance id.
#[derive(Debug)]
pub struct GroupConsumer {
    pub(super) handle: GroupHandle,
    pub(super) deliveries: mpsc::Receiver<Delivery>,
    /// Taken by `close`.
    pub(super) task: Option<rt::Task>,
}

impl GroupConsumer {
    /// Commits, seeks, pauses and asks from other tasks.
    pub fn handle(&self) -> GroupHandle {
        self.handle.clone()
    }

    /// The next batch; `None` after the failure that ended this member.
    pub async fn next_batch(&mut self) -> Option<Result<GroupBatch, ClientError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Leaves the group: commits what is processed (with automatic commit), tells the
    /// [callback](super::GroupBuilder::on_rebalance), and gives the partitions back at once. A member
    /// with an instance id keeps them for its session timeout, so that it can come back.
    ///
    /// Batches that the application still holds are not committed and come again elsewhere: drop
    /// them before.
    ///
    /// # Errors
    /// If the commit does not succeed within 30 s. The partitions go to others all the same, when
    /// the session runs out.
    pub async fn close(mut self) -> Result<(), ClientError> {
        let (reply, answer) = oneshot::channel();
        let shared = &self.handle.shared;
        let closed = async {
            // Where nobody takes it, the member has ended before: the command comes back, and with it
            // the reply, which must not be kept.
            drop(shared.commands.send(Command::Close(reply)).await);
            answer.await.unwrap_or_else(|_gone| {
                let untold = shared.state.lock().errors.pop_front();
                untold.map_or(Ok(()), Err)
            })
        };
        let late = |_elapsed| ClientError::Timeout {
            what: "close the consumer",
            after: CLOSE_DEADLINE,
            maybe_applied: true,
            last: None,
        };
        let closed = timeout(CLOSE_DEADLINE, closed).await.map_err(late);
        drop(self.task.take());
        closed.flatten()
    }
}

impl Deref for GroupConsumer {
    type Target = GroupHandle;

    fn deref(&self) -> &GroupHandle {
        &self.handle
    }
}

impl Stream for GroupConsumer {
    type Item = Result<GroupBatch, ClientError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let shared = &this.handle.shared;
        shared.consumer.register(cx.waker());
        let mut state = shared.state.lock();
        if state.note_returned() {
            shared.member.notify_one();
        }
        if let Some(error) = state.errors.pop_front() {
            return Poll::Ready(Some(Err(error)));
        }
        if state.ended || state.closing {
            return Poll::Ready(None);
        }
        if !state.lease.holds(Instant::now()) {
            return Poll::Pending;
        }
        let mut found = state.unpark().map(Ok);
        while found.is_none() {
            match this.deliveries.poll_recv(cx) {
                Poll::Ready(Some((key, delivery))) => found = state.deliver(&key, delivery),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
        drop(state);
        let handed = found.map(|found| found.map(|handed| ticketed(&this.handle, handed)));
        Poll::Ready(handed)
    }
}

fn ticketed(handle: &GroupHandle, handed: Handed) -> GroupBatch {
    let Handed {
        batch,
        round,
        granted,
    } = handed;
    let ticket = Ticket {
        shared: Arc::clone(&handle.shared),
        partition: batch.key(),
        round,
        from: batch.first_offset().0,
        until: batch.next_offset().0,
    };
    GroupBatch {
        batch,
        ticket,
        granted,
    }
}

impl Drop for GroupConsumer {
    /// Leaves in the background, without a commit.
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        self.handle.shared.state.lock().abandoned = true;
        self.handle.shared.member.notify_one();
        task.detach();
    }
}
