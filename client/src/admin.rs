//! Topics, offsets and the state of the cluster.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use seriatim_proto::{
    ids::{Offset, TopicPartition},
    v1::{self, list_offsets_partition::At},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    client::Client,
    consumer::Position,
    error::ClientError,
    rt,
    status::{ClusterStatus, merge_status},
};

/// How long a request is repeated where the cluster is not ready for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// How long a node may take to describe itself.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// A topic to create.
#[derive(Debug, Clone, Default)]
pub struct NewTopic {
    /// Its name: 1 to 249 ASCII letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Number of partitions; 0 means 1.
    pub partitions: i32,
    /// Replicas of each partition; 0 means 3, or the number of nodes if that is smaller.
    pub replication_factor: u32,
    /// Settings other than their defaults.
    pub settings: BTreeMap<String, String>,
}

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id, different from that of a deleted topic of the same name.
    pub id: String,
    /// Replicas of each partition.
    pub replication_factor: u32,
    /// All settings with their values.
    pub settings: BTreeMap<String, String>,
    /// Its partitions in order.
    pub partitions: Vec<PartitionDescription>,
}

/// Where a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: i32,
    /// The node that leads it, if one does.
    pub leader: Option<u64>,
    /// The leader's term.
    pub leader_epoch: i32,
    /// The nodes that hold a replica.
    pub replicas: Vec<u64>,
}

/// Administration. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    pub(crate) client: Client,
}

impl Admin {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Id and gRPC address of each node that has joined.
    pub(crate) async fn nodes(&self) -> Result<Vec<(u64, String)>, ClientError> {
        let request = v1::DescribeRequest {
            nodes_only: true,
            ..v1::DescribeRequest::default()
        };
        let nodes = self.describe_raw(request).await?.nodes.into_iter();
        let joined = nodes.filter(|node| !node.grpc_address.is_empty());
        Ok(joined
            .map(|node| (node.node_id, node.grpc_address))
            .collect())
    }

    /// Creates a topic and waits until each partition has a leader. Returns the number of
    /// partitions and of replicas.
    ///
    /// # Errors
    /// The server's, such as `TOPIC_EXISTS` or `NOT_ENOUGH_NODES`.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<(i32, u32), ClientError> {
        let request = v1::CreateTopicRequest {
            name: topic.name,
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            settings: topic.settings.into_iter().collect(),
            wait_for_leaders: true,
            ..v1::CreateTopicRequest::default()
        };
        let created = self
            .client
            .any_node("create topic", (DEADLINE, true), |address| {
                let request = request.clone();
                async move {
                    let mut client = self.client.metadata().channels.admin(&address)?;
                    let answer = client.create_topic(request).await;
                    answer.map_err(|status| ClientError::from_status(&address, status))
                }
            });
        let created = created.await?.into_inner();
        let metadata = self.client.metadata();
        metadata.created(&request.name, created.log_id);
        Ok((created.partitions, created.replication_factor))
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// The server's, such as `UNKNOWN_TOPIC`.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        let request = v1::DeleteTopicRequest {
            name: name.to_owned(),
        };
        let known = self.client.metadata().first_log(name);
        let deleted = self
            .client
            .any_node("delete topic", (DEADLINE, true), |address| {
                let request = request.clone();
                async move {
                    let mut client = self.client.metadata().channels.admin(&address)?;
                    let answer = client.delete_topic(request).await;
                    answer.map_err(|status| ClientError::from_status(&address, status))
                }
            });
        let _deleted = deleted.await?;
        self.client.metadata().deleted(name, known);
        Ok(())
    }

    /// Changes settings of a topic; an empty value returns a setting to its default. Returns all
    /// settings.
    ///
    /// # Errors
    /// The server's, such as `UNKNOWN_TOPIC` or `INVALID_SETTING`.
    pub async fn alter_topic(
        &self,
        name: &str,
        settings: BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, ClientError> {
        let request = v1::AlterTopicRequest {
            name: name.to_owned(),
            settings: settings.into_iter().collect(),
        };
        // Setting a value twice is the same as once.
        let altered = self
            .client
            .any_node("alter topic", (DEADLINE, false), |address| {
                let request = request.clone();
                async move {
                    let mut client = self.client.metadata().channels.admin(&address)?;
                    let answer = client.alter_topic(request).await;
                    answer.map_err(|status| ClientError::from_status(&address, status))
                }
            });
        Ok(altered.await?.into_inner().settings.into_iter().collect())
    }

    /// Every topic, in the order of their names.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] if no node answers.
    pub async fn list_topics(&self) -> Result<Vec<TopicDescription>, ClientError> {
        let answer = self.describe_raw(v1::DescribeRequest::default()).await?;
        Ok(descriptions(answer.topics))
    }

    /// What is known of one topic.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`] if it does not exist.
    pub async fn describe(&self, name: &str) -> Result<TopicDescription, ClientError> {
        let request = v1::DescribeRequest {
            topics: vec![name.to_owned()],
            ..Default::default()
        };
        let answer = self.describe_raw(request).await?;
        let found = descriptions(answer.topics)
            .into_iter()
            .find(|t| t.name == name);
        found.ok_or_else(|| ClientError::UnknownTopic(name.to_owned()))
    }

    async fn describe_raw(
        &self,
        request: v1::DescribeRequest,
    ) -> Result<v1::DescribeResponse, ClientError> {
        let described = self
            .client
            .any_node("describe", (DEADLINE, false), |address| {
                let request = request.clone();
                async move {
                    let mut client = self.client.metadata().channels.metadata(&address)?;
                    let answer = client.describe(request).await;
                    answer.map_err(|status| ClientError::from_status(&address, status))
                }
            });
        Ok(described.await?.into_inner())
    }

    /// The offset of each given position, in the order in which they are given. The time position
    /// gives the first record at or after that time, the end if there is none.
    ///
    /// # Errors
    /// Any that does not go away within 30 s of trying again.
    pub async fn list_offsets(
        &self,
        positions: &[(TopicPartition, Position)],
    ) -> Result<Vec<Offset>, ClientError> {
        let mut found: Vec<Option<Offset>> = vec![None; positions.len()];
        for ((_, position), slot) in positions.iter().zip(&mut found) {
            if let Position::Offset(offset) = position {
                *slot = Some(*offset);
            }
        }
        let deadline = Instant::now() + DEADLINE;
        let mut attempt = 0;
        while let Err(error) = self.list_round(positions, &mut found).await {
            if !error.is_retryable() || Instant::now() >= deadline {
                return Err(error);
            }
            self.client.metadata().want_refresh();
            sleep(rt::backoff(attempt)).await;
            attempt += 1;
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Asks the leader of every position without an answer; the error is the first of theirs.
    async fn list_round(
        &self,
        positions: &[(TopicPartition, Position)],
        found: &mut [Option<Offset>],
    ) -> Result<(), ClientError> {
        let mut by_leader: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut failed = Ok(());
        for (at, (tp, _)) in positions.iter().enumerate() {
            if found.get(at).is_some_and(Option::is_some) {
                continue;
            }
            match self.leader_of(tp).await {
                Ok(address) => by_leader.entry(address).or_default().push(at),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        let ask = |(address, which): (String, Vec<usize>)| async move {
            let partitions = which
                .iter()
                .filter_map(|&at| positions.get(at))
                .filter_map(to_wire);
            let request = v1::ListOffsetsRequest {
                partitions: partitions.collect(),
            };
            let mut client = self.client.metadata().channels.log(&address)?;
            let answer = timeout(STATUS_TIMEOUT * 2, client.list_offsets(request)).await;
            let timed_out = |_elapsed| ClientError::Timeout {
                what: "list offsets",
                after: STATUS_TIMEOUT * 2,
                maybe_applied: false,
                last: None,
            };
            let answer = answer.map_err(timed_out)?;
            let answer = answer.map_err(|status| ClientError::from_status(&address, status))?;
            Ok::<_, ClientError>((which, answer.into_inner()))
        };
        for answer in join_all(by_leader.into_iter().map(ask)).await {
            let (which, answer) = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    failed = failed.and(Err(error));
                    continue;
                }
            };
            for (at, result) in which.into_iter().zip(answer.results) {
                match (result.error, found.get_mut(at)) {
                    (None, Some(slot)) => *slot = Some(Offset(result.offset)),
                    (Some(error), _) => {
                        let error = self.learn(&result.topic, result.partition, error);
                        failed = failed.and(Err(error));
                    }
                    (None, None) => {}
                }
            }
        }
        let missing = found.iter().any(Option::is_none);
        let short = || ClientError::invalid("a node answered with fewer offsets than were asked");
        failed.and(if missing { Err(short()) } else { Ok(()) })
    }

    pub(crate) fn learn(&self, topic: &str, partition: i32, error: v1::Error) -> ClientError {
        if let Some(hint) = &error.leader {
            self.client.metadata().note_leader(topic, partition, hint);
        }
        ClientError::server(error)
    }

    pub(crate) async fn leader_of(&self, tp: &TopicPartition) -> Result<String, ClientError> {
        let _partitions = self
            .client
            .partitions_with(&tp.topic, tp.partition.0)
            .await?;
        let leader = self.client.metadata().leader(&tp.topic, tp.partition.0);
        let none = || {
            let what = format!("{tp} has no leader; wait until a majority of its replicas is up");
            ClientError::server(v1::Error::new(v1::ErrorCode::LeaderNotAvailable, what))
        };
        leader
            .map(|l| l.address.as_ref().to_owned())
            .ok_or_else(none)
    }

    /// Asks every node how it is and merges their answers.
    ///
    /// # Errors
    /// Any of the request for the list of nodes; a node that does not answer is part of the status.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, ClientError> {
        let everything = v1::DescribeRequest {
            include_internal: true,
            ..Default::default()
        };
        let described = self.describe_raw(everything).await?;
        let ask = |node: &v1::Node| {
            let address = node.grpc_address.clone();
            async move {
                if address.is_empty() {
                    return Err(ClientError::invalid("it has not joined the cluster yet"));
                }
                let mut client = self.client.metadata().channels.admin(&address)?;
                let answer =
                    timeout(STATUS_TIMEOUT, client.node_status(v1::NodeStatusRequest {})).await;
                match answer {
                    Ok(Ok(answer)) => Ok(answer.into_inner()),
                    Ok(Err(status)) => Err(ClientError::from_status(&address, status)),
                    Err(_elapsed) => Err(ClientError::Timeout {
                        what: "node status",
                        after: STATUS_TIMEOUT,
                        maybe_applied: false,
                        last: None,
                    }),
                }
            }
        };
        let answers = join_all(described.nodes.iter().map(ask)).await;
        Ok(merge_status(described, answers))
    }
}

fn to_wire((tp, position): &(TopicPartition, Position)) -> Option<v1::ListOffsetsPartition> {
    let at = match position {
        Position::Start => At::Start(true),
        Position::End => At::End(true),
        Position::Time(ms) => At::TimestampMs(*ms),
        Position::Offset(_) => return None,
    };
    Some(v1::ListOffsetsPartition {
        topic: tp.topic.clone(),
        partition: tp.partition.0,
        at: Some(at),
    })
}

fn descriptions(topics: Vec<v1::Topic>) -> Vec<TopicDescription> {
    let partition = |p: v1::Partition| PartitionDescription {
        partition: p.partition,
        leader: (p.leader != 0).then_some(p.leader),
        leader_epoch: p.leader_epoch,
        replicas: p.replicas,
    };
    let topic = |t: v1::Topic| TopicDescription {
        name: t.name,
        id: t.topic_id,
        replication_factor: t.replication_factor,
        settings: t.settings.into_iter().collect(),
        partitions: t.partitions.into_iter().map(partition).collect(),
    };
    let mut all: Vec<_> = topics.into_iter().map(topic).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
