//! Administration: listing, describing and deleting groups.

use std::time::Duration;

use seriatim_cluster::GROUPS_TOPIC;
use seriatim_proto::{error::ErrorCode, internal::v1 as wire, v1};
use seriatim_runtime::clock::{self, Instant};
use tokio::sync::oneshot;
use wire::group_command::Command;

use crate::{
    Groups,
    command::{GroupCommand, Refusal},
    commit::{all_offsets, barrier},
    coordinator::{Event, session::topic_partitions},
    errors,
    propose::propose,
    state::{Group, Member},
};

impl Groups {
    /// The groups that this node coordinates.
    pub fn list(&self) -> Result<v1::ListGroupsResponse, v1::Error> {
        let cluster = self.0.cluster_now().ok_or_else(errors::starting)?;
        let mut groups = Vec::new();
        for shard in self.served() {
            shard.machine.for_each(|id, group| {
                groups.push(v1::GroupSummary {
                    group: id.to_owned(),
                    state: state(group).into(),
                    members: u32::try_from(group.members.len()).unwrap_or(u32::MAX),
                    generation: group.generation,
                });
            });
        }
        let shards = cluster.image().topics.get(GROUPS_TOPIC).map_or(0, |topic| {
            u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX)
        });
        let led = |shard: &u32| cluster.leader(&errors::partition(*shard)).is_some();
        let unavailable = (0..shards).filter(|shard| !led(shard)).count();
        Ok(v1::ListGroupsResponse {
            groups,
            unavailable_shards: u32::try_from(unavailable).unwrap_or(u32::MAX),
        })
    }

    /// A group with its members and offsets.
    pub async fn describe(
        &self,
        id: &str,
        deadline: Instant,
    ) -> Result<v1::DescribeGroupResponse, v1::Error> {
        let (shard, _term, cluster) = self.coordinated(id)?;
        barrier((shard.number, &shard.group), &cluster, deadline).await?;
        let (reply, silences) = oneshot::channel();
        let ask = Event::Silences {
            group: id.to_owned(),
            reply,
        };
        let asked = clock::timeout_at(deadline, shard.events.send(ask)).await;
        let no_leader = || errors::no_leader(&cluster, shard.number);
        if !matches!(asked, Ok(Ok(()))) {
            return Err(no_leader());
        }
        let answered = clock::timeout_at(deadline, silences).await;
        let Ok(Ok(silences)) = answered else {
            return Err(no_leader());
        };
        let Some(group) = shard.machine.group(id) else {
            return Err(Refusal::UnknownGroup.to_error(id));
        };
        let topics = self.0.topics(&cluster.image());
        let members = group.members.iter().map(|(id, member)| {
            let silent_for = silences.get(id).copied().unwrap_or_default();
            describe(member, silent_for)
        });
        Ok(v1::DescribeGroupResponse {
            error: None,
            group: id.to_owned(),
            state: state(&group).into(),
            generation: group.generation,
            strategy: group.strategy.into(),
            coordinator: cluster.node_id().0,
            members: members.collect(),
            offsets: all_offsets(&group, &topics),
        })
    }

    /// Deletes a group with its offsets.
    pub async fn delete(&self, id: &str, deadline: Instant) -> Result<(), v1::Error> {
        let (shard, term, cluster) = self.coordinated(id)?;
        let command = GroupCommand {
            group: id.to_owned(),
            now_ms: clock::wall_ms(),
            command: Command::DropGroup(wire::DropGroup {}),
        };
        let proposed = propose(&shard.group, term, command.encode());
        match clock::timeout_at(deadline, proposed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(errors::failed(&cluster, shard.number, id, &failure)),
            Err(_late) => Err(v1::Error::new(
                ErrorCode::Timeout,
                "no majority of the group's replicas has answered in time; the group may be \
                 deleted later",
            )
            .maybe_applied()),
        }
    }
}

fn state(group: &Group) -> v1::GroupState {
    if group.members.is_empty() {
        v1::GroupState::Empty
    } else if group.is_settled() {
        v1::GroupState::Stable
    } else {
        v1::GroupState::Rebalancing
    }
}

fn describe(member: &Member, silent_for: Duration) -> v1::GroupMember {
    let spec = member.spec.clone();
    v1::GroupMember {
        member_id: spec.member_id,
        instance_id: spec.instance_id,
        client_id: spec.client_id,
        client_host: spec.client_host,
        topics: spec.topics,
        assigned: topic_partitions(member.owned.keys()),
        revoking: topic_partitions(member.revoking()),
        pending: topic_partitions(member.pending()),
        session_timeout_ms: spec.session_timeout_ms,
        silent_for_ms: u32::try_from(silent_for.as_millis()).unwrap_or(u32::MAX),
    }
}
