//! Groups as an operator sees them: list, describe, delete.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use seriatim_proto::{
    ids::{Offset, TopicPartition},
    v1::{self, ErrorCode},
};
use tokio::time::timeout;

use super::{builder::check_group_id, options::Strategy, part::flatten};
use crate::{admin::Admin, error::ClientError};

/// How long a request is repeated where the group's coordinator is not ready for it.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// How long a node may take to list its groups.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// What a group is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// It has no members, only offsets.
    Empty,
    /// Every partition is with the member that is to have it.
    Stable,
    /// Partitions are on their way from one member to another.
    Rebalancing,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary {
    /// Its id.
    pub group: String,
    /// What it is doing.
    pub state: GroupState,
    /// Number of members.
    pub members: u32,
    /// Its generation.
    pub generation: u64,
}

/// The groups of a cluster, as far as its nodes answer.
#[derive(Debug, Clone)]
pub struct GroupList {
    /// In the order of their ids.
    pub groups: Vec<GroupSummary>,
    /// Internal partitions without a leader: their groups are missing.
    pub unavailable_shards: u32,
    /// Nodes that did not answer, and why: groups that they coordinate may be missing.
    pub silent: Vec<(u64, ClientError)>,
}

/// Everything about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its id.
    pub group: String,
    /// What it is doing.
    pub state: GroupState,
    /// Its generation.
    pub generation: u64,
    /// How partitions are shared.
    pub strategy: Strategy,
    /// The node that coordinates it.
    pub coordinator: u64,
    /// Its members.
    pub members: Vec<GroupMember>,
    /// Its offsets, by topic and partition.
    pub offsets: Vec<CommittedOffset>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its member id.
    pub member_id: String,
    /// Its instance id, if it has one.
    pub instance_id: Option<String>,
    /// The program.
    pub client_id: String,
    /// Where it runs.
    pub client_host: String,
    /// What it wants to read.
    pub topics: Vec<String>,
    /// What it owns.
    pub assigned: Vec<TopicPartition>,
    /// Of these, what it is to let go of.
    pub revoking: Vec<TopicPartition>,
    /// What it is to get.
    pub pending: Vec<TopicPartition>,
    /// How long it may be silent.
    pub session_timeout: Duration,
    /// Since its last heartbeat.
    pub silent_for: Duration,
}

/// Where a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The next record to process; `None` where it never committed, or the offset has expired.
    pub offset: Option<Offset>,
    /// The text that was committed with it.
    pub metadata: String,
    /// When, in milliseconds since the Unix epoch.
    pub committed_at_ms: i64,
}

impl Admin {
    /// The groups of the cluster: every node is asked for those that it coordinates.
    ///
    /// # Errors
    /// If the nodes of the cluster cannot be found. One that does not answer is part of the list.
    pub async fn list_groups(&self) -> Result<GroupList, ClientError> {
        let nodes = self.nodes().await?;
        let ask = |(id, address): (u64, String)| async move {
            let answer = async {
                let mut client = self.client().metadata().channels.groups(&address)?;
                let answer = client.list_groups(v1::ListGroupsRequest {}).await;
                let answer = answer.map_err(|status| ClientError::from_status(&address, status))?;
                Ok(answer.into_inner())
            };
            let late = |_elapsed| ClientError::Timeout {
                what: "list groups",
                after: LIST_TIMEOUT,
                maybe_applied: false,
                last: None,
            };
            let answer = timeout(LIST_TIMEOUT, answer).await.map_err(late).flatten();
            (id, answer)
        };
        Ok(merge(join_all(nodes.into_iter().map(ask)).await))
    }

    /// A group's members and offsets.
    ///
    /// # Errors
    /// `UNKNOWN_GROUP`; [`ClientError::Timeout`] if its coordinator does not answer within 30 s.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, ClientError> {
        check_group_id(group)?;
        let client = self.client();
        let request = v1::DescribeGroupRequest {
            group: group.to_owned(),
        };
        let described = client.at_coordinator((group, "describe the group"), DEADLINE, |at| {
            let request = request.clone();
            async move {
                let mut groups = client.metadata().channels.groups(&at)?;
                let answer = groups.describe_group(request).await;
                let answer = answer.map_err(|status| ClientError::from_status(&at, status))?;
                let answer = answer.into_inner();
                failed(answer.error.clone(), answer)
            }
        });
        Ok(description(described.await?))
    }

    /// Deletes a group with its offsets.
    ///
    /// # Errors
    /// `UNKNOWN_GROUP`, `GROUP_NOT_EMPTY`; [`ClientError::Timeout`] if its coordinator does not answer
    /// within 30 s.
    pub async fn delete_group(&self, group: &str) -> Result<(), ClientError> {
        check_group_id(group)?;
        let client = self.client();
        let request = v1::DeleteGroupRequest {
            group: group.to_owned(),
        };
        let deleted = client.at_coordinator((group, "delete the group"), DEADLINE, |at| {
            let request = request.clone();
            async move {
                let mut groups = client.metadata().channels.groups(&at)?;
                let answer = groups.delete_group(request).await;
                let answer = answer.map_err(|status| ClientError::from_status(&at, status))?;
                failed(answer.into_inner().error, ())
            }
        });
        match deleted.await {
            // An attempt whose answer was lost has deleted it.
            Err(error)
                if error.code() == Some(ErrorCode::UnknownGroup)
                    && !error.has_no_side_effects() =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Where a group is in certain partitions; in all of which it has an offset if none is named.
    ///
    /// # Errors
    /// The server's; [`ClientError::Timeout`] if the coordinator does not answer within 30 s.
    pub async fn committed_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<CommittedOffset>, ClientError> {
        check_group_id(group)?;
        let client = self.client();
        let request = v1::FetchOffsetsRequest {
            group: group.to_owned(),
            partitions: by_topic(partitions),
        };
        let fetched = client.at_coordinator((group, "fetch offsets"), DEADLINE, |at| {
            let request = request.clone();
            async move {
                let mut groups = client.metadata().channels.groups(&at)?;
                let answer = groups.fetch_offsets(request).await;
                let answer = answer.map_err(|status| ClientError::from_status(&at, status))?;
                let answer = answer.into_inner();
                failed(answer.error, answer.offsets)
            }
        });
        Ok(committed(fetched.await?))
    }
}

pub(super) fn failed<T>(error: Option<v1::Error>, answer: T) -> Result<T, ClientError> {
    error.map_or(Ok(answer), |error| Err(ClientError::server(error)))
}

/// A group that has moved while the nodes were asked may be named by two of them.
fn merge(answers: Vec<(u64, Result<v1::ListGroupsResponse, ClientError>)>) -> GroupList {
    let mut groups: BTreeMap<String, GroupSummary> = BTreeMap::new();
    let mut unavailable_shards = 0;
    let mut silent = Vec::new();
    for (node, answer) in answers {
        match answer {
            Ok(answer) => {
                unavailable_shards = unavailable_shards.max(answer.unavailable_shards);
                for group in answer.groups {
                    let newer = groups
                        .get(&group.group)
                        .is_none_or(|known| known.generation < group.generation);
                    if newer {
                        let summary = summary(&group);
                        let _older = groups.insert(group.group, summary);
                    }
                }
            }
            Err(error) => silent.push((node, error)),
        }
    }
    GroupList {
        groups: groups.into_values().collect(),
        unavailable_shards,
        silent,
    }
}

fn summary(group: &v1::GroupSummary) -> GroupSummary {
    GroupSummary {
        group: group.group.clone(),
        state: state(group.state()),
        members: group.members,
        generation: group.generation,
    }
}

const fn state(state: v1::GroupState) -> GroupState {
    match state {
        v1::GroupState::Stable => GroupState::Stable,
        v1::GroupState::Rebalancing => GroupState::Rebalancing,
        v1::GroupState::Empty | v1::GroupState::Unspecified => GroupState::Empty,
    }
}

fn description(answer: v1::DescribeGroupResponse) -> GroupDescription {
    GroupDescription {
        state: state(answer.state()),
        strategy: Strategy::from_wire(answer.strategy()),
        group: answer.group,
        generation: answer.generation,
        coordinator: answer.coordinator,
        members: answer.members.into_iter().map(member).collect(),
        offsets: committed(answer.offsets),
    }
}

fn member(member: v1::GroupMember) -> GroupMember {
    let sorted = |all: &[v1::TopicPartitions]| {
        let mut partitions: Vec<_> = flatten(all).collect();
        partitions.sort();
        partitions
    };
    GroupMember {
        assigned: sorted(&member.assigned),
        revoking: sorted(&member.revoking),
        pending: sorted(&member.pending),
        member_id: member.member_id,
        instance_id: Some(member.instance_id).filter(|id| !id.is_empty()),
        client_id: member.client_id,
        client_host: member.client_host,
        topics: member.topics,
        session_timeout: Duration::from_millis(member.session_timeout_ms.into()),
        silent_for: Duration::from_millis(member.silent_for_ms.into()),
    }
}

fn committed(offsets: Vec<v1::CommittedOffset>) -> Vec<CommittedOffset> {
    let one = |offset: v1::CommittedOffset| CommittedOffset {
        partition: TopicPartition::new(offset.topic, offset.partition),
        offset: offset.offset.map(Offset),
        metadata: offset.metadata,
        committed_at_ms: offset.committed_at_ms,
    };
    let mut all: Vec<_> = offsets.into_iter().map(one).collect();
    all.sort_by(|a, b| a.partition.cmp(&b.partition));
    all
}

pub(super) fn by_topic(partitions: &[TopicPartition]) -> Vec<v1::TopicPartitions> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for tp in partitions {
        topics.entry(&tp.topic).or_default().push(tp.partition.0);
    }
    let one = |(topic, partitions): (&str, Vec<i32>)| v1::TopicPartitions {
        topic: topic.to_owned(),
        partitions,
    };
    topics.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_merged_and_say_what_may_be_missing() {
        let group = |name: &str, generation| v1::GroupSummary {
            group: name.to_owned(),
            state: v1::GroupState::Stable.into(),
            members: 1,
            generation,
        };
        let answer = |groups, unavailable_shards| {
            Ok(v1::ListGroupsResponse {
                groups,
                unavailable_shards,
            })
        };
        let list = merge(vec![
            (1, answer(vec![group("b", 3), group("a", 1)], 0)),
            (2, answer(vec![group("b", 4)], 2)),
            (3, Err(ClientError::Closed("node"))),
        ]);
        let seen: Vec<_> = list
            .groups
            .iter()
            .map(|g| (g.group.as_str(), g.generation))
            .collect();
        assert_eq!(seen, [("a", 1), ("b", 4)]);
        assert_eq!((list.unavailable_shards, list.silent.len()), (2, 1));
    }
}
