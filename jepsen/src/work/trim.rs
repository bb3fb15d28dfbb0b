//! Removal of old records under load.

use std::time::Duration;

use seriatim_client::{Offset, Position, TopicPartition};
use seriatim_runtime::rng;

use super::{
    Work,
    actor::{Actor, told},
    one_in,
};
use crate::history::{Action, Trim};

/// Removes old records of a partition now and then, up to anywhere.
pub(super) async fn run(work: Work, topic: String, partition: i32, pause: Duration) {
    let mut actor = Actor::new(work.recorder());
    let tp = TopicPartition::new(topic.as_str(), partition);
    let key = work.keys().of(&topic, partition);
    while let Some(client) = work.client().await {
        while !work.stopping() && !one_in(10) {
            work.pause(pause).await;
            let ends = [(tp.clone(), Position::Start), (tp.clone(), Position::End)];
            let Ok(found) = client.admin().list_offsets(&ends).await else {
                continue;
            };
            let (Some(start), Some(end)) = (found.first(), found.get(1)) else {
                continue;
            };
            // Most of what was there then stays.
            let room = u64::try_from((end.0 - start.0) / 2).unwrap_or_default();
            let before = start.0 + i64::try_from(rng::below(room + 1)).unwrap_or_default();
            let mut trim = Trim {
                key,
                before,
                log_start: None,
            };
            let pending = actor.invoke(Action::Trim(trim.clone()));
            match client.admin().trim(&tp, Offset(before)).await {
                Ok(log_start) => {
                    trim.log_start = Some(log_start.0);
                    actor.ok(pending, Action::Trim(trim));
                }
                Err(error) => {
                    actor.failed(pending, Action::Trim(trim), &error);
                    if !error.is_retryable() && error.has_no_side_effects() {
                        let what = format!("{tp} cannot be trimmed: {}", told(&error));
                        work.recorder().impossible(what);
                    }
                }
            }
        }
    }
}
