//! `seriatim topic trim`.

use anyhow::bail;
use serde_json::{Value, json};
use seriatim_client::{Admin, ClientError, Offset, PartitionId, Position, TopicPartition};

use super::common::{Output, print_json, print_table, tell};

/// What to trim.
pub(super) struct Trim {
    pub(super) topic: String,
    /// All if none is named.
    pub(super) partition: Option<i32>,
    pub(super) before: Position,
}

/// Trims the partitions, each by itself: one that fails does not keep the others.
pub(super) async fn run(admin: &Admin, trim: &Trim, output: Output) -> anyhow::Result<()> {
    let topic = admin.describe(&trim.topic).await?;
    let all = topic.partitions.iter().map(|p| p.partition);
    let wanted: Vec<i32> = all
        .filter(|number| trim.partition.is_none_or(|only| only == *number))
        .collect();
    if wanted.is_empty() {
        bail!(
            "topic '{}' has partitions 0 to {}; name one of them",
            trim.topic,
            topic.partitions.len().saturating_sub(1)
        );
    }
    let mut done = Vec::new();
    let mut failed = 0_usize;
    for number in &wanted {
        let tp = TopicPartition::new(trim.topic.clone(), PartitionId(*number));
        match trim_one(admin, &tp, trim.before).await {
            Ok(start) => done.push((*number, start)),
            Err(error) if wanted.len() == 1 => return Err(error.into()),
            Err(error) => {
                failed += 1;
                tell(&format!("partition {tp}: {error}"));
            }
        }
    }
    show(&trim.topic, &done, output)?;
    if failed > 0 {
        bail!(
            "{failed} of {} partitions were not trimmed; correct what is said of them and do it again",
            wanted.len()
        );
    }
    Ok(())
}

async fn trim_one(
    admin: &Admin,
    tp: &TopicPartition,
    before: Position,
) -> Result<Offset, ClientError> {
    let found = admin.list_offsets(&[(tp.clone(), before)]).await?;
    let before = found.first().copied().unwrap_or_default();
    admin.trim(tp, before).await
}

fn show(topic: &str, done: &[(i32, Offset)], output: Output) -> anyhow::Result<()> {
    match output {
        Output::Table => print_table(
            &["PARTITION", "BEGINS AT"],
            done.iter()
                .map(|(number, start)| vec![number.to_string(), start.to_string()]),
        ),
        Output::Json => {
            let one = |(number, start): &(i32, Offset)| json!({ "partition": number, "log_start_offset": start.0 });
            let partitions: Vec<Value> = done.iter().map(one).collect();
            print_json(&json!({ "topic": topic, "partitions": partitions }))
        }
    }
}
