//! What stands only where nothing is broken any more.

use std::time::Duration;

use futures::future::{join, join_all};
use seriatim_client::{Client, ClientError, Position, TopicPartition};
use seriatim_runtime::clock;

use super::{
    Mix, Work,
    actor::{Actor, told},
    members,
    produce::DELIVERY,
    read_to::{Halt, read_to},
    record,
};
use crate::history::{Action, Poll, Read, Send};

/// Pause before something is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// Ends when every partition took an append, and every group a commit of each of its partitions.
pub(super) async fn recover(work: Work, mix: Mix) {
    work.calm_down();
    let actor = Actor::new(work.recorder());
    let pending = actor.invoke(Action::Recover);
    let mut partitions = Vec::new();
    for target in &mix.targets {
        for partition in 0..target.partitions {
            partitions.push(append(&work, &target.topic, partition));
        }
    }
    let groups = async { mix.members == 0 || members::progress(&work, &mix.of_groups()).await };
    let (partitions, advanced) = join(join_all(partitions), groups).await;
    if advanced && partitions.into_iter().all(|took| took) {
        actor.ok(pending, Action::Recover);
    }
}

/// Appends a record, whatever it takes; `false` if the jobs are to end first.
async fn append(work: &Work, topic: &str, partition: i32) -> bool {
    let mut actor = Actor::new(work.recorder());
    while let Some(client) = work.client().await {
        let builder = client.producer().delivery_timeout(DELIVERY);
        let Ok(producer) = builder.build().await else {
            continue;
        };
        let value = work.value();
        let mut send = Send {
            key: work.keys().of(topic, partition),
            values: vec![value],
            producer: Some(work.label()),
            ..Send::default()
        };
        let record = record::record(topic, value).partition(partition);
        let pending = actor.invoke(Action::Send(send.clone()));
        let sent = match producer.send(record).await {
            Ok(delivery) => delivery.await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(delivered) => {
                send.offset = Some(delivered.offset.0);
                actor.ok(pending, Action::Send(send));
                return true;
            }
            Err(error) => actor.failed(pending, Action::Send(send), &error),
        }
        clock::sleep(AGAIN).await;
    }
    false
}

/// Reads a partition from its start to its end. Nothing is written to it meanwhile.
pub(super) async fn read(work: Work, place: TopicPartition) {
    let mut actor = Actor::new(work.recorder());
    let key = work.keys().of(&place.topic, place.partition.0);
    while let Some(client) = work.client().await {
        let mut poll = Poll {
            is_final: true,
            ..Poll::default()
        };
        let pending = actor.invoke(Action::Poll(poll.clone()));
        match whole(&client, &place).await {
            Ok(Ok(read)) => {
                poll.sought = true;
                let _none = poll.reads.insert(key, read);
                actor.ok(pending, Action::Poll(poll));
                return;
            }
            Ok(Err(why)) => {
                actor.ok(pending, Action::Poll(Poll::default()));
                let what = format!("{place} cannot be read: {why}");
                work.recorder().impossible(what);
                return;
            }
            Err(error) => {
                actor.failed(pending, Action::Poll(poll), &error);
                if !error.is_retryable() {
                    let what = format!("{place} cannot be read: {}", told(&error));
                    work.recorder().impossible(what);
                    return;
                }
            }
        }
        clock::sleep(AGAIN).await;
    }
}

/// All that a partition holds; the inner error is for what nobody can read.
async fn whole(
    client: &Client,
    place: &TopicPartition,
) -> Result<Result<Read, String>, ClientError> {
    let (topic, partition) = (place.topic.as_str(), place.partition.0);
    let ends = [Position::Start, Position::End].map(|at| (place.clone(), at));
    let found = client.admin().list_offsets(&ends).await?;
    let (Some(start), Some(end)) = (found.first(), found.get(1)) else {
        return Ok(Err("it has no ends".to_owned()));
    };
    let consumer = client.consumer();
    let consumer = consumer.assign(topic, partition, Position::Offset(*start));
    let mut consumer = consumer.build().await?;
    match read_to(&mut consumer, place, *end).await {
        Ok(records) => Ok(Ok(Read {
            log_start: Some(start.0),
            high_watermark: Some(end.0),
            records,
            ..Read::default()
        })),
        Err(Halt::Failed(error)) => Err(error),
        Err(Halt::Wrong(why)) => Ok(Err(why)),
        Err(Halt::Silent) => {
            let at = consumer.position(topic, partition).unwrap_or_default();
            Ok(Err(format!("nothing comes at {} of {}", at.0, end.0)))
        }
    }
}
