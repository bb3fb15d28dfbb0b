//! Consumers by assignment: from the start, from where they were, from anywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use seriatim_client::{
    Client, ClientError, ConsumedBatch, Consumer, Offset, Position, TopicPartition,
};
use seriatim_runtime::{clock, rng};

use super::{
    Target, Work,
    actor::{Actor, told},
    one_in, record,
};
use crate::history::{Action, Key, Poll, Read};

/// How long a poll waits for records.
const POLL: Duration = Duration::from_millis(500);

/// Reads all partitions until the jobs are to end.
pub(super) async fn run(work: Work, targets: Vec<Target>) {
    let mut reader = Reader {
        actor: Actor::new(work.recorder()),
        places: super::places(&targets),
        positions: BTreeMap::new(),
        sought: BTreeSet::new(),
        work: &work,
    };
    while let Some(client) = work.client().await {
        if let Some(consumer) = reader.assign(&client).await {
            reader.read(consumer).await;
        }
        work.pause(Duration::from_millis(100)).await;
    }
}

struct Reader<'a> {
    work: &'a Work,
    actor: Actor,
    places: Vec<TopicPartition>,
    /// Where the next record of each partition is to be.
    positions: BTreeMap<TopicPartition, i64>,
    /// Partitions whose position was set anew and of which nothing came since.
    sought: BTreeSet<TopicPartition>,
}

impl Reader<'_> {
    fn key(&self, tp: &TopicPartition) -> Key {
        self.work.keys().of(&tp.topic, tp.partition.0)
    }

    /// A consumer that goes on where the last one was, or begins at the start.
    async fn assign(&mut self, client: &Client) -> Option<Consumer> {
        let keys: Vec<_> = self.places.iter().map(|tp| self.key(tp)).collect();
        let pending = self.actor.invoke(Action::Assign(keys.clone()));
        let mut builder = client.consumer();
        for tp in &self.places {
            let from = match self.positions.get(tp) {
                Some(&position) => Position::Offset(Offset(position)),
                None => Position::Start,
            };
            if from == Position::Start {
                let _new = self.sought.insert(tp.clone());
            }
            builder = builder.assign(tp.topic.clone(), tp.partition.0, from);
        }
        match builder.build().await {
            Ok(consumer) => {
                self.actor.ok(pending, Action::Assign(keys));
                Some(consumer)
            }
            Err(error) => {
                self.actor.fail(pending, Action::Assign(keys), &error);
                if !error.is_retryable() {
                    self.impossible("cannot begin", &error);
                }
                None
            }
        }
    }

    fn impossible(&self, what: &str, error: &ClientError) {
        let text = format!("a consumer {what}: {}", told(error));
        self.work.recorder().impossible(text);
    }

    /// Until this consumer ends.
    async fn read(&mut self, mut consumer: Consumer) {
        while !self.work.stopping() && !one_in(300) {
            if one_in(60) {
                self.whim(&mut consumer).await;
            }
            let pending = self.actor.invoke(Action::Poll(Poll::default()));
            let next = clock::timeout(POLL, consumer.next_batch()).await;
            let mut poll = Poll::default();
            match next {
                // Nothing new.
                Err(_elapsed) => self.actor.ok(pending, Action::Poll(poll)),
                Ok(Some(Ok(batch))) => {
                    let tp = TopicPartition::new(batch.topic(), batch.partition());
                    poll.sought = self.sought.remove(&tp);
                    match self.took(&tp, &batch) {
                        Ok(read) => {
                            let _none = poll.reads.insert(self.key(&tp), read);
                            self.actor.ok(pending, Action::Poll(poll));
                        }
                        Err(why) => {
                            self.actor.ok(pending, Action::Poll(poll));
                            let what = format!("a batch of {tp} cannot be read: {why}");
                            self.work.recorder().impossible(what);
                            return;
                        }
                    }
                }
                Ok(Some(Err(error))) => {
                    self.actor.fail(pending, Action::Poll(poll), &error);
                    if !self.mend(&mut consumer, &error).await {
                        return;
                    }
                }
                Ok(None) => {
                    self.actor.ok(pending, Action::Poll(poll));
                    let what = "a consumer ended although partitions are assigned to it";
                    self.work.recorder().impossible(what);
                    return;
                }
            }
        }
    }

    fn took(&mut self, tp: &TopicPartition, batch: &ConsumedBatch) -> Result<Read, String> {
        let records = record::values_of(batch)?;
        let _before = self.positions.insert(tp.clone(), batch.next_offset().0);
        Ok(Read {
            records,
            high_watermark: Some(batch.high_watermark().0),
            ..Read::default()
        })
    }

    /// After an error; says whether this consumer can go on.
    async fn mend(&mut self, consumer: &mut Consumer, error: &ClientError) -> bool {
        let Some((start, end)) = error.valid_range() else {
            if !error.is_retryable() {
                self.impossible("failed", error);
            }
            return false;
        };
        // The error does not say which partition it is about: any whose next record is gone.
        let gone = |tp: &&TopicPartition| {
            let position = self.positions.get(*tp).copied().unwrap_or_default();
            position < start.0 || position > end.0
        };
        let gone: Vec<_> = self.places.iter().filter(gone).cloned().collect();
        for tp in gone {
            if !self.seek(consumer, &tp, Position::Start).await {
                return false;
            }
        }
        true
    }

    async fn seek(&mut self, consumer: &mut Consumer, tp: &TopicPartition, to: Position) -> bool {
        match consumer.seek(&tp.topic, tp.partition.0, to).await {
            Ok(offset) => {
                let _before = self.positions.insert(tp.clone(), offset.0);
                let _new = self.sought.insert(tp.clone());
                true
            }
            Err(error) => {
                if !error.is_retryable() {
                    self.impossible("cannot seek", &error);
                }
                false
            }
        }
    }

    /// Reads something again, or skips to the end.
    async fn whim(&mut self, consumer: &mut Consumer) {
        let Some(tp) = super::any(&self.places).cloned() else {
            return;
        };
        let position = self.positions.get(&tp).copied().unwrap_or_default();
        let back = rng::below(u64::try_from(position).unwrap_or_default() + 1);
        let to = match rng::below(4) {
            0 | 1 => Position::Start,
            2 => Position::End,
            _ => Position::Offset(Offset(i64::try_from(back).unwrap_or_default())),
        };
        let _sought = self.seek(consumer, &tp, to).await;
    }
}
