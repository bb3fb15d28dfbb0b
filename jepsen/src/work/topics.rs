//! Topics that are created.

use std::time::Duration;

use seriatim_client::{ErrorCode, NewTopic};
use seriatim_runtime::clock;

use super::{Mix, Work, actor::told};

/// Pause before a creation is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Creates every topic of the mix.
pub(super) async fn create_all(work: Work, mix: Mix) {
    let Some(client) = work.client().await else {
        return;
    };
    for target in &mix.targets {
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
                Err(error) if error.is_retryable() => clock::sleep(AGAIN).await,
                Err(error) => {
                    let what = format!("{} cannot be created: {}", target.topic, told(&error));
                    return work.recorder().impossible(what);
                }
            }
        }
    }
}
