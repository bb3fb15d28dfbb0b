//! Topics that are created, and those that come and go while they are used.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::{StreamExt as _, future::join3, stream::FuturesUnordered};
use seriatim_client::{
    Client, ClientError, Consumer, Delivery, ErrorCode, NewTopic, Position, Producer,
};
use seriatim_runtime::{clock, rng};

use super::{
    Mix, Work,
    actor::{Actor, told},
    one_in, record,
};
use crate::history::{Action, Pending, Poll, Read, Send, Topic};

/// Pause before a creation is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Most partitions of a topic that comes and goes.
const PARTITIONS: u64 = 3;

/// Mean time between the creation of a topic and its deletion.
const LIFE: Duration = Duration::from_secs(2);

/// How long records and readers of a topic go on after its deletion.
const AFTER: Duration = Duration::from_millis(800);

/// How long a record may take.
const DELIVERY: Duration = Duration::from_secs(4);

/// Mean pause between two records.
const PAUSE: Duration = Duration::from_millis(60);

/// How long a poll waits for records.
const POLL: Duration = Duration::from_millis(300);

/// Creates every topic of the mix.
pub(super) async fn create_all(work: Work, mix: Mix) {
    let Some(client) = work.client().await else {
        return;
    };
    for target in &mix.topics() {
        while !work.stopping() {
            let topic = NewTopic {
                name: target.topic.clone(),
                partitions: target.partitions,
                replication_factor: mix.replicas,
                settings: mix.settings.clone(),
            };
            match client.admin().create_topic(topic).await {
                Ok(_created) => break,
                Err(error) if error.code() == Some(ErrorCode::TopicExists) => break,
                // Some nodes may still have to register: the cluster forms while things break.
                Err(error)
                    if error.is_retryable() || error.code() == Some(ErrorCode::NotEnoughNodes) =>
                {
                    clock::sleep(AGAIN).await;
                }
                Err(error) => {
                    let what = format!("{} cannot be created: {}", target.topic, told(&error));
                    return work.recorder().impossible(what);
                }
            }
        }
    }
}

/// One topic after the other: created, written, read and deleted meanwhile. A name is used again if
/// nothing that was sent to its last topic may still be under way.
pub(super) async fn come_and_go(work: Work, mix: Mix) {
    let mut actor = Actor::new(work.recorder());
    let mut name = new_name(&work);
    let mut client = None;
    while !work.stopping() {
        if client.is_none() || one_in(3) {
            client = work.client().await;
        }
        let Some(client) = &client else { return };
        let partitions = i32::try_from(1 + rng::below(PARTITIONS)).unwrap_or(1);
        let topic = Topic {
            topic: name.clone(),
            partitions: u32::try_from(partitions).unwrap_or(1),
        };
        let life = Life {
            work: &work,
            client,
            topic,
            partitions,
            deleting: AtomicBool::new(false),
        };
        match life.create(&mut actor, mix.replicas).await {
            Created::Yes => {}
            Created::No => {
                work.pause(PAUSE).await;
                continue;
            }
            Created::Perhaps => {
                name = new_name(&work);
                continue;
            }
        }
        let (deleted, settled, ()) =
            join3(life.delete(&mut actor), life.write(), life.read()).await;
        if deleted && settled {
            work.keys().renew(&name);
        } else {
            name = new_name(&work);
        }
    }
}

fn new_name(work: &Work) -> String {
    format!("fleeting-{}", work.label())
}

enum Created {
    Yes,
    No,
    Perhaps,
}

/// The life of one topic.
struct Life<'a> {
    work: &'a Work,
    client: &'a Client,
    topic: Topic,
    partitions: i32,
    /// Its deletion was asked for: from now on it may be gone.
    deleting: AtomicBool,
}

impl Life<'_> {
    fn may_be_gone(&self) -> bool {
        self.deleting.load(Ordering::Relaxed)
    }

    fn impossible(&self, what: &str, error: &ClientError) {
        let text = format!("topic {} {what}: {}", self.topic.topic, told(error));
        self.work.recorder().impossible(text);
    }

    /// Whether a failure is one that the use of a topic may have while it goes.
    fn expect_documented(&self, what: &str, error: &ClientError) {
        let gone = matches!(
            error.code(),
            Some(ErrorCode::UnknownTopic | ErrorCode::UnknownPartition | ErrorCode::TopicDeleted)
        );
        // A node that is behind may still know the last topic of this name, which had fewer partitions.
        let former = self.partitions > 1 && error.code() == Some(ErrorCode::UnknownPartition);
        let abandoned = matches!(error, ClientError::Abandoned { .. });
        if !(error.is_retryable() || abandoned || former || (gone && self.may_be_gone())) {
            self.impossible(what, error);
        }
    }

    async fn create(&self, actor: &mut Actor, replicas: u32) -> Created {
        let action = Action::CreateTopic(self.topic.clone());
        let pending = actor.invoke(action.clone());
        let new = NewTopic {
            name: self.topic.topic.clone(),
            partitions: self.partitions,
            replication_factor: replicas,
            ..NewTopic::default()
        };
        let error = match self.client.admin().create_topic(new).await {
            Ok(_created) => {
                actor.ok(pending, action);
                return Created::Yes;
            }
            Err(error) => error,
        };
        let sure = error.has_no_side_effects();
        actor.failed(pending, action, &error);
        if !error.is_retryable() {
            // Also one that exists: the last topic of this name was deleted for certain.
            self.impossible("cannot be created", &error);
            return Created::Perhaps;
        }
        if sure { Created::No } else { Created::Perhaps }
    }

    /// Deletes it after a while; whether that is certain.
    async fn delete(&self, actor: &mut Actor) -> bool {
        clock::sleep(rng::duration_below(LIFE * 2)).await;
        let action = Action::DeleteTopic(self.topic.clone());
        let pending = actor.invoke(action.clone());
        self.deleting.store(true, Ordering::Relaxed);
        match self.client.admin().delete_topic(&self.topic.topic).await {
            Ok(()) => {
                actor.ok(pending, action);
                true
            }
            Err(error) => {
                actor.failed(pending, action, &error);
                if !error.is_retryable() {
                    self.impossible("cannot be deleted", &error);
                }
                false
            }
        }
    }

    /// Until a while after the deletion was asked for.
    async fn ended(&self) {
        while !self.may_be_gone() {
            clock::sleep(PAUSE).await;
        }
        clock::sleep(AFTER).await;
    }

    /// Writes until the topic is gone; whether the end of everything sent is certain.
    async fn write(&self) -> bool {
        let built = self.client.producer().delivery_timeout(DELIVERY).build();
        let producer = match built.await {
            Ok(producer) => producer,
            Err(error) => {
                self.expect_documented("gets no producer", &error);
                return true;
            }
        };
        let session = self.work.label();
        let mut idle = Vec::new();
        let mut under_way = FuturesUnordered::new();
        let mut settled = true;
        let mut ended = std::pin::pin!(self.ended());
        loop {
            tokio::select! {
                biased;
                Some((actor, certain)) = under_way.next(), if !under_way.is_empty() => {
                    settled &= certain;
                    idle.push(actor);
                }
                () = &mut ended => break,
                () = self.work.pause(PAUSE), if under_way.len() < 8 => {
                    let actor = idle.pop();
                    let actor = actor.unwrap_or_else(|| Actor::new(self.work.recorder()));
                    match self.send(&producer, session, actor).await {
                        Ok(sent) => under_way.push(self.note(sent)),
                        Err((actor, certain)) => {
                            settled &= certain;
                            idle.push(actor);
                        }
                    }
                }
            }
        }
        while let Some((_, certain)) = under_way.next().await {
            settled &= certain;
        }
        settled
    }

    /// Sends one record; if that fails at once, whether it certainly had no effect.
    async fn send(
        &self,
        producer: &Producer,
        session: i64,
        mut actor: Actor,
    ) -> Result<(Actor, Pending, Send, Delivery), (Actor, bool)> {
        let partition = rng::below(u64::from(self.topic.partitions));
        let partition = i32::try_from(partition).unwrap_or_default();
        let value = self.work.value();
        let send = Send {
            key: self.work.keys().of(&self.topic.topic, partition),
            values: vec![value],
            producer: Some(session),
            ..Send::default()
        };
        let record = record::record(&self.topic.topic, value).partition(partition);
        let pending = actor.invoke(Action::Send(send.clone()));
        match producer.send(record).await {
            Ok(delivery) => Ok((actor, pending, send, delivery)),
            Err(error) => {
                self.expect_documented("takes no record", &error);
                actor.failed(pending, Action::Send(send), &error);
                Err((actor, error.has_no_side_effects()))
            }
        }
    }

    async fn note(
        &self,
        (mut actor, pending, mut send, delivery): (Actor, Pending, Send, Delivery),
    ) -> (Actor, bool) {
        match delivery.await {
            Ok(delivered) => {
                send.offset = Some(delivered.offset.0);
                actor.ok(pending, Action::Send(send));
                (actor, true)
            }
            Err(error) => {
                self.expect_documented("takes no record", &error);
                let certain = error.has_no_side_effects();
                actor.failed(pending, Action::Send(send), &error);
                (actor, certain)
            }
        }
    }

    /// Reads every partition from its start until the topic is gone.
    async fn read(&self) {
        let mut builder = self.client.consumer();
        for partition in 0..self.partitions {
            builder = builder.assign(&self.topic.topic, partition, Position::Start);
        }
        let mut ended = std::pin::pin!(self.ended());
        let building = std::pin::pin!(builder.build());
        let mut consumer = tokio::select! {
            biased;
            () = &mut ended => return,
            built = building => match built {
                Ok(consumer) => consumer,
                Err(error) => return self.expect_documented("cannot be read", &error),
            },
        };
        let mut actor = Actor::new(self.work.recorder());
        let mut begun = BTreeSet::new();
        loop {
            let poll = self.poll(&mut actor, &mut consumer, &mut begun);
            tokio::select! {
                biased;
                () = &mut ended => return,
                more = poll => if !more {
                    return;
                },
            }
        }
    }

    /// Whether there may be more.
    async fn poll(
        &self,
        actor: &mut Actor,
        consumer: &mut Consumer,
        begun: &mut BTreeSet<i32>,
    ) -> bool {
        let pending = actor.invoke(Action::Poll(Poll::default()));
        let mut poll = Poll::default();
        let batch = match clock::timeout(POLL, consumer.next_batch()).await {
            Ok(Some(Ok(batch))) => batch,
            Ok(Some(Err(error))) => {
                actor.failed(pending, Action::Poll(poll), &error);
                self.expect_documented("cannot be read", &error);
                return false;
            }
            Ok(None) | Err(_) => {
                actor.ok(pending, Action::Poll(poll));
                return true;
            }
        };
        match record::values_of(&batch) {
            Ok(records) => {
                poll.sought = begun.insert(batch.partition());
                let read = Read {
                    records,
                    high_watermark: Some(batch.high_watermark().0),
                    ..Read::default()
                };
                let key = self.work.keys().of(&self.topic.topic, batch.partition());
                let _none = poll.reads.insert(key, read);
                actor.ok(pending, Action::Poll(poll));
                true
            }
            Err(why) => {
                actor.ok(pending, Action::Poll(poll));
                let what = format!("a batch of {} cannot be read: {why}", self.topic.topic);
                self.work.recorder().impossible(what);
                false
            }
        }
    }
}
