//! `seriatim group describe`.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::{Value, json};
use seriatim_client::{
    Admin, CommittedOffset, ErrorCode, GroupDescription, GroupMember, Offset, Position, Strategy,
    TopicPartition,
};

use super::{
    super::common::{Output, print, print_json, print_table},
    state,
};

/// What there is to say about a partition of a group.
struct Row {
    partition: TopicPartition,
    committed: Option<CommittedOffset>,
    /// Nothing where the topic or partition is gone.
    end: Option<Offset>,
    member: Option<String>,
    state: &'static str,
}

impl Row {
    fn offset(&self) -> Option<i64> {
        self.committed.as_ref().and_then(|c| c.offset).map(|o| o.0)
    }

    /// Records after the committed offset.
    fn lag(&self) -> Option<i64> {
        Some((self.end?.0 - self.offset()?).max(0))
    }
}

pub(super) async fn run(admin: &Admin, group: &str, output: Output) -> anyhow::Result<()> {
    let group = admin.describe_group(group).await?;
    let rows = rows(admin, &group).await?;
    match output {
        Output::Table => table(&group, &rows),
        Output::Json => print_json(&to_json(&group, &rows)),
    }
}

async fn rows(admin: &Admin, group: &GroupDescription) -> anyhow::Result<Vec<Row>> {
    let mut places: BTreeMap<TopicPartition, (Option<&GroupMember>, &'static str)> =
        BTreeMap::new();
    for offset in &group.offsets {
        let _new = places.insert(offset.partition.clone(), (None, "unassigned"));
    }
    for member in &group.members {
        for (partitions, state) in [
            (&member.assigned, "assigned"),
            (&member.revoking, "revoking"),
        ] {
            for tp in partitions {
                let _known = places.insert(tp.clone(), (Some(member), state));
            }
        }
    }
    for member in &group.members {
        for tp in &member.pending {
            let place = places.entry(tp.clone()).or_insert((None, "unassigned"));
            if place.0.is_none() {
                *place = (Some(member), "pending");
            }
        }
    }
    let ends = ends(admin, places.keys()).await?;
    let mut offsets: BTreeMap<_, _> = group.offsets.iter().map(|o| (&o.partition, o)).collect();
    let row = |(partition, (member, state)): (TopicPartition, (Option<&GroupMember>, _))| Row {
        committed: offsets.remove(&partition).cloned(),
        end: ends.get(&partition).copied(),
        member: member.map(|m| m.member_id.clone()),
        state,
        partition,
    };
    Ok(places.into_iter().map(row).collect())
}

/// The ends of those partitions that still exist.
async fn ends(
    admin: &Admin,
    partitions: impl Iterator<Item = &TopicPartition>,
) -> anyhow::Result<BTreeMap<TopicPartition, Offset>> {
    let mut topics: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for tp in partitions {
        let at_end = (tp.clone(), Position::End);
        topics.entry(&tp.topic).or_default().push(at_end);
    }
    let ask = |asked: Vec<(TopicPartition, Position)>| async move {
        match admin.list_offsets(&asked).await {
            Ok(ends) => {
                let partitions = asked.into_iter().map(|(tp, _)| tp);
                Ok(partitions.zip(ends).collect::<Vec<_>>())
            }
            Err(error) => match error.code() {
                Some(ErrorCode::UnknownTopic | ErrorCode::UnknownPartition) => Ok(Vec::new()),
                _ => Err(error),
            },
        }
    };
    let mut ends = BTreeMap::new();
    for of_topic in join_all(topics.into_values().map(ask)).await {
        ends.extend(of_topic?);
    }
    Ok(ends)
}

fn table(group: &GroupDescription, rows: &[Row]) -> anyhow::Result<()> {
    print(&format!(
        "group {}: {}, {} members, generation {}, {} assignment, coordinated by node {}\n\n",
        group.group,
        state(group.state),
        group.members.len(),
        group.generation,
        strategy(group.strategy),
        group.coordinator
    ))?;
    let shown = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let lines = rows.iter().map(|row| {
        vec![
            row.partition.topic.clone(),
            row.partition.partition.to_string(),
            shown(row.offset()),
            shown(row.end.map(|end| end.0)),
            shown(row.lag()),
            row.member.clone().unwrap_or_else(|| "-".to_owned()),
            row.state.to_owned(),
        ]
    });
    let header = [
        "TOPIC",
        "PARTITION",
        "COMMITTED",
        "END",
        "LAG",
        "MEMBER",
        "STATE",
    ];
    print_table(&header, lines)?;
    if group.members.is_empty() {
        return Ok(());
    }
    let lines = group.members.iter().map(|member| {
        vec![
            member.member_id.clone(),
            member.instance_id.clone().unwrap_or_else(|| "-".to_owned()),
            member.client_id.clone(),
            member.client_host.clone(),
            member.assigned.len().to_string(),
            format!("{:.1}s", member.silent_for.as_secs_f64()),
        ]
    });
    print("\n")?;
    let header = [
        "MEMBER",
        "INSTANCE",
        "CLIENT",
        "HOST",
        "PARTITIONS",
        "SILENT",
    ];
    print_table(&header, lines)
}

fn to_json(group: &GroupDescription, rows: &[Row]) -> Value {
    let names = |all: &[TopicPartition]| -> Vec<Value> {
        let one = |tp: &TopicPartition| json!({ "topic": tp.topic, "partition": tp.partition.0 });
        all.iter().map(one).collect()
    };
    let member = |m: &GroupMember| {
        json!({
            "member": m.member_id,
            "instance": m.instance_id,
            "client": m.client_id,
            "host": m.client_host,
            "topics": m.topics,
            "assigned": names(&m.assigned),
            "revoking": names(&m.revoking),
            "pending": names(&m.pending),
            "session_timeout_ms": u64::try_from(m.session_timeout.as_millis()).ok(),
            "silent_ms": u64::try_from(m.silent_for.as_millis()).ok(),
        })
    };
    let partition = |row: &Row| {
        json!({
            "topic": row.partition.topic,
            "partition": row.partition.partition.0,
            "committed": row.offset(),
            "metadata": row.committed.as_ref().map(|c| c.metadata.clone()),
            "committed_at": row.committed.as_ref().map(|c| c.committed_at_ms),
            "end": row.end.map(|end| end.0),
            "lag": row.lag(),
            "member": row.member,
            "state": row.state,
        })
    };
    json!({
        "group": group.group,
        "state": state(group.state),
        "generation": group.generation,
        "strategy": strategy(group.strategy),
        "coordinator": group.coordinator,
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
        "partitions": rows.iter().map(partition).collect::<Vec<_>>(),
    })
}

const fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Sticky => "sticky",
        Strategy::Range => "range",
        Strategy::RoundRobin => "round-robin",
    }
}
