//! Administration of topics.

use std::collections::{BTreeMap, HashMap};

use seriatim_cluster::CreateTopic;
use seriatim_proto::{error::ErrorCode, v1};

use crate::{Broker, broker};

const DEFAULT_TIMEOUT_MS: u32 = 30_000;

impl Broker {
    /// Creates a topic and, if asked, waits until every partition has a leader.
    pub async fn create_topic(
        &self,
        request: v1::CreateTopicRequest,
    ) -> Result<v1::CreateTopicResponse, v1::Error> {
        let deadline = broker::deadline(request.timeout_ms, DEFAULT_TIMEOUT_MS);
        let partitions = u32::try_from(request.partitions).map_err(|_negative| {
            v1::Error::new(
                ErrorCode::InvalidRequest,
                format!("{} is no number of partitions", request.partitions),
            )
        })?;
        let create = CreateTopic {
            name: request.name.clone(),
            partitions,
            replication_factor: request.replication_factor,
            settings: sorted(request.settings),
            validate_only: request.validate_only,
        };
        let topic = self.cluster.create_topic(create, deadline).await;
        let topic = topic.map_err(|error| error.to_error())?;
        if request.wait_for_leaders
            && !request.validate_only
            && !self.cluster.wait_for_leaders(&request.name, deadline).await
        {
            let late = v1::Error::new(
                ErrorCode::Timeout,
                format!(
                    "topic '{}' is created, but not every partition has a leader yet",
                    request.name
                ),
            );
            return Err(late.maybe_applied());
        }
        Ok(v1::CreateTopicResponse {
            topic_id: topic.id.clone(),
            partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            replication_factor: topic.replication_factor,
            log_id: topic.partitions.first().map_or(0, |first| first.group.0),
        })
    }

    /// Deletes a topic and its records.
    pub async fn delete_topic(&self, name: &str) -> Result<(), v1::Error> {
        let deadline = broker::deadline(0, DEFAULT_TIMEOUT_MS);
        let deleted = self.cluster.delete_topic(name, deadline).await;
        deleted.map_err(|error| error.to_error())
    }

    /// Changes settings; answers with all of them.
    pub async fn alter_topic(
        &self,
        request: v1::AlterTopicRequest,
    ) -> Result<v1::AlterTopicResponse, v1::Error> {
        let deadline = broker::deadline(0, DEFAULT_TIMEOUT_MS);
        let settings = sorted(request.settings);
        let altered = self
            .cluster
            .alter_topic(&request.name, settings, deadline)
            .await;
        let settings = altered.map_err(|error| error.to_error())?;
        Ok(v1::AlterTopicResponse {
            settings: settings.to_map().into_iter().collect(),
        })
    }
}

fn sorted(settings: HashMap<String, String>) -> BTreeMap<String, String> {
    settings.into_iter().collect()
}
