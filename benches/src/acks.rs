//! Acknowledgements of one sender's records of one partition.
//!
//! The sender pushes what it sent; one task takes them in that order. A batch wakes the task once
//! and all its records are then there, so a record costs a slot in a queue and no wake-up.

use std::collections::VecDeque;

use indicatif::ProgressBar;
use parking_lot::Mutex;
use seriatim_client::Delivery;
use seriatim_runtime::clock::{self, Instant};
use tokio::sync::Notify;

use crate::{tally::Tally, window::Window};

/// A record on its way.
#[derive(Debug)]
struct Sent {
    intended: Instant,
    delivery: Delivery,
}

/// The records of one sender and partition that nobody has looked at yet. Their number is bounded
/// by the producer's buffer.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    queue: Mutex<Queue>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    sent: VecDeque<Sent>,
    closed: bool,
}

impl Acks {
    pub(crate) fn push(&self, intended: Instant, delivery: Delivery) {
        let was_empty = {
            let mut queue = self.queue.lock();
            queue.sent.push_back(Sent { intended, delivery });
            queue.sent.len() == 1
        };
        if was_empty {
            self.news.notify_one();
        }
    }

    /// Nothing more will be pushed.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.news.notify_one();
    }

    /// Moves everything into the empty `taken`, or waits for something; false at the end.
    async fn take(&self, taken: &mut VecDeque<Sent>) -> bool {
        loop {
            {
                let mut queue = self.queue.lock();
                if !queue.sent.is_empty() {
                    std::mem::swap(&mut queue.sent, taken);
                    return true;
                }
                if queue.closed {
                    return false;
                }
            }
            self.news.notified().await;
        }
    }

    /// Counts every record until the queue is closed and all have ended.
    pub(crate) async fn count(
        &self,
        tally: &Mutex<Tally>,
        (window, bytes): (Window, u64),
        bar: &ProgressBar,
    ) {
        let mut sent = VecDeque::new();
        while self.take(&mut sent).await {
            while let Some(Sent { intended, delivery }) = sent.pop_front() {
                let outcome = delivery.await;
                let at = clock::now();
                let mut ended = 1;
                let mut tally = tally.lock();
                let mut count = |intended, outcome| match outcome {
                    Ok(_stored) => tally.done(&window, intended, at, bytes),
                    Err(error) => tally.failures.add(1, &error),
                };
                count(intended, outcome);
                // The rest of the batch has ended too.
                while let Some(next) = sent.front()
                    && let Some(outcome) = next.delivery.poll_now()
                {
                    count(next.intended, outcome);
                    drop(sent.pop_front());
                    ended += 1;
                }
                bar.inc(ended);
            }
        }
    }
}
