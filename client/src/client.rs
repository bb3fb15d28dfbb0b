//! The client: connections and metadata, shared by producers, consumers and administration.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    admin::Admin, channels::Channels, consumer::ConsumerBuilder, dial::Dialer, error::ClientError,
    group::Coordinators, metadata::Metadata, producer::ProducerBuilder, rt,
    unknown::TOPIC_DEADLINE,
};

/// How long [`Client::connect`] tries.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
const DEFAULT_PORT: u16 = 7401;

/// A cluster. Cheap to clone; all clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    metadata: Arc<Metadata>,
    coordinators: Coordinators,
    _refresher: rt::Task,
}

impl Client {
    /// Connects to a cluster, given some of its gRPC addresses: `"seriatim://a:7401,b:7401"` or
    /// `"a:7401,b:7401"`. One that answers is enough; the rest of the cluster is learnt from it.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the list cannot be read, [`ClientError::Unreachable`] if nobody
    /// answers within 10 s.
    pub async fn connect(servers: &str) -> Result<Self, ClientError> {
        Self::start(servers, Channels::new(None)).await
    }

    /// The same through connections that `dialer` opens. For simulations; not part of the stable
    /// interface.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    #[doc(hidden)]
    pub async fn connect_by(servers: &str, dialer: Dialer) -> Result<Self, ClientError> {
        Self::start(servers, Channels::new(Some(dialer))).await
    }

    async fn start(servers: &str, channels: Channels) -> Result<Self, ClientError> {
        let metadata = Arc::new(Metadata::new(parse_servers(servers)?, channels));
        let deadline = Instant::now() + CONNECT_DEADLINE;
        while let Err(error) = metadata.refresh(None).await {
            if !error.is_retryable() || Instant::now() >= deadline {
                return Err(error);
            }
            sleep(Duration::from_millis(100)).await;
        }
        let _refresher = rt::Task::spawn(Arc::clone(&metadata).keep_fresh());
        let shared = Arc::new(Shared {
            metadata,
            coordinators: Coordinators::default(),
            _refresher,
        });
        Ok(Self { shared })
    }

    /// Options of a new producer.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.clone())
    }

    /// Options of a new consumer.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone())
    }

    /// Topics, offsets and the state of the cluster.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> String {
        self.shared.metadata.cluster_id()
    }

    /// Number of partitions of `topic`.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`] if no node has heard of it within 3 s.
    pub async fn partitions(&self, topic: &str) -> Result<i32, ClientError> {
        let deadline = Instant::now() + TOPIC_DEADLINE;
        loop {
            if let Some(count) = self.metadata().partitions(topic) {
                return Ok(i32::try_from(count).unwrap_or(i32::MAX));
            }
            let refreshed = self.metadata().refresh(Some(topic)).await;
            if self.metadata().partitions(topic).is_none() && Instant::now() >= deadline {
                refreshed?;
                return Err(ClientError::UnknownTopic(topic.to_owned()));
            }
            if self.metadata().partitions(topic).is_none() {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// The same where `partition` is one of them. If it is not as far as this client has heard, others
    /// are asked for a while: the topic may have got more, or be another one under the same name.
    pub(crate) async fn partitions_with(
        &self,
        topic: &str,
        partition: i32,
    ) -> Result<i32, ClientError> {
        let deadline = Instant::now() + TOPIC_DEADLINE;
        loop {
            let partitions = self.partitions(topic).await?;
            if (0..partitions).contains(&partition) {
                return Ok(partitions);
            }
            if partition < 0 || Instant::now() >= deadline {
                return Err(ClientError::UnknownPartition {
                    topic: topic.to_owned(),
                    partition,
                    partitions: usize::try_from(partitions).unwrap_or(0),
                });
            }
            let refreshed = self.metadata().refresh(Some(topic)).await;
            if refreshed.is_err() || !self.metadata().has(topic, partition) {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    pub(crate) fn metadata(&self) -> &Arc<Metadata> {
        &self.shared.metadata
    }

    pub(crate) fn coordinators(&self) -> &Coordinators {
        &self.shared.coordinators
    }

    /// Makes a call to any node, to the next one if it cannot be reached, until `limit` has passed.
    /// A call that `writes` is not repeated once it may have taken effect.
    pub(crate) async fn any_node<T, F, Fut>(
        &self,
        what: &'static str,
        (limit, writes): (Duration, bool),
        call: F,
    ) -> Result<T, ClientError>
    where
        F: Fn(String) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let deadline = Instant::now() + limit;
        let mut last = None;
        let mut maybe_applied = false;
        let mut attempt = 0;
        loop {
            for address in self.metadata().addresses() {
                let answer = timeout_at(deadline, call(address)).await;
                let error = match answer {
                    Ok(Ok(value)) => return Ok(value),
                    Ok(Err(error)) => error,
                    Err(_elapsed) => {
                        maybe_applied |= writes;
                        return Err(ClientError::Timeout {
                            what,
                            after: limit,
                            maybe_applied,
                            last,
                        });
                    }
                };
                let unsure = writes && !error.has_no_side_effects();
                if unsure || !error.is_retryable() {
                    return Err(error);
                }
                last = Some(Box::new(error));
            }
            if Instant::now() >= deadline {
                return Err(ClientError::Timeout {
                    what,
                    after: limit,
                    maybe_applied,
                    last,
                });
            }
            sleep(rt::backoff(attempt)).await;
            attempt += 1;
        }
    }
}

fn parse_servers(servers: &str) -> Result<Vec<String>, ClientError> {
    let list = servers.trim();
    let list = list.strip_prefix("seriatim://").unwrap_or(list);
    let mut parsed = Vec::new();
    for server in list.trim_end_matches('/').split(',').map(str::trim) {
        if server.is_empty() {
            continue;
        }
        // "[::1]" has colons, but no port.
        let has_port = server
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        parsed.push(if has_port {
            server.to_owned()
        } else {
            format!("{server}:{DEFAULT_PORT}")
        });
    }
    if parsed.is_empty() {
        return Err(ClientError::invalid(
            "name at least one server, as HOST:PORT[,HOST:PORT...]",
        ));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_lists() {
        let parsed = |text: &str| parse_servers(text).map_err(|e| e.to_string());
        let two = Ok(vec!["a:7401".to_owned(), "b:7411".to_owned()]);
        assert_eq!(parsed("seriatim://a:7401,b:7411"), two);
        assert_eq!(parsed(" a , b:7411,"), two);
        assert!(parsed("seriatim://").is_err());
    }
}
