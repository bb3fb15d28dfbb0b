//! Appends on condition that the log ends where it was last seen to end.

use std::time::Duration;

use seriatim_client::{Client, ClientError, Offset, Position, Producer, TopicPartition};
use seriatim_runtime::rng;

use super::{Work, actor::Actor, one_in, produce::DELIVERY, record};
use crate::history::{Action, Send};

/// Most records of one append.
const RECORDS: u64 = 3;

/// Appends to one partition until the jobs are to end.
pub(super) async fn run(work: Work, topic: String, partition: i32, pause: Duration) {
    let mut actor = Actor::new(work.recorder());
    while let Some(client) = work.client().await {
        let builder = client.producer().delivery_timeout(DELIVERY);
        let Ok(producer) = builder.build().await else {
            work.pause(pause).await;
            continue;
        };
        let Some(mut end) = end_of(&work, &client, &topic, partition).await else {
            return;
        };
        while !work.stopping() && !one_in(100) {
            append(&work, &mut actor, &producer, (&topic, partition), &mut end).await;
            work.pause(pause).await;
        }
    }
}

/// Where a partition ends; `None` if the jobs are to end first.
async fn end_of(work: &Work, client: &Client, topic: &str, partition: i32) -> Option<i64> {
    let place = [(TopicPartition::new(topic, partition), Position::End)];
    while !work.stopping() {
        if let Ok(ends) = client.admin().list_offsets(&place).await {
            return ends.first().map(|end| end.0);
        }
    }
    None
}

async fn append(
    work: &Work,
    actor: &mut Actor,
    producer: &Producer,
    (topic, partition): (&str, i32),
    end: &mut i64,
) {
    let values: Vec<_> = (0..=rng::below(RECORDS)).map(|_| work.value()).collect();
    let records = values.iter().map(|&value| record::record(topic, value));
    let mut send = Send {
        key: work.keys().of(topic, partition),
        values: values.clone(),
        expected_end: Some(*end),
        ..Send::default()
    };
    let pending = actor.invoke(Action::Send(send.clone()));
    let appended = producer.append_if(topic, partition, Offset(*end), records.collect());
    match appended.await {
        Ok(delivered) => {
            send.offset = Some(delivered.offset.0);
            *end = delivered.offset.0 + i64::try_from(values.len()).unwrap_or(i64::MAX);
            actor.ok(pending, Action::Send(send));
        }
        Err(error) => {
            send.found_end = error.actual_end_offset().map(|found| found.0);
            *end = send.found_end.unwrap_or(*end);
            actor.failed(pending, Action::Send(send), &error);
            expect_known(work, &error);
        }
    }
}

/// Of an append that a client made as it should, no other failure than these can come.
pub(super) fn expect_known(work: &Work, error: &ClientError) {
    let wrong_end = error.actual_end_offset().is_some();
    if !wrong_end && !error.is_retryable() {
        let told = super::actor::told(error);
        work.recorder()
            .impossible(format!("an append on condition failed: {told}"));
    }
}
