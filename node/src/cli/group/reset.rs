//! `seriatim group reset`.

use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use seriatim_client::{Client, Offset, OffsetChange, Position, ResetTo, TopicPartition};
use seriatim_runtime::clock;

use super::super::{
    common::{Output, print_json, print_table, tell},
    position,
};

const EXAMPLES: &str = "Examples:
  seriatim group reset billing --topic flights --to-start --dry-run
  seriatim group reset billing --topic flights --partition 2 --to-offset 4711
  seriatim group reset billing --topic flights --to-time 2013-01-15T08:30:00
  seriatim group reset billing --topic flights --by-duration 1h
  seriatim group reset billing --topic flights --shift-by -100";

/// Move the offsets of a group that has no members
///
/// An offset that is not there becomes the nearest one that is. A group that does not exist yet gets
/// its first offsets.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ResetArgs {
    /// Its id
    group: String,
    /// The topic
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Only this partition; may be repeated
    #[arg(long, value_name = "P")]
    partition: Vec<i32>,
    #[command(flatten)]
    to: To,
    /// Check everything and show what would change
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct To {
    /// To the oldest records there are
    #[arg(long)]
    to_start: bool,
    /// To the end, so that only new records are read
    #[arg(long)]
    to_end: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first records at or after a time, such as 2013-01-15, 2013-01-15T08:30:00 (UTC) or
    /// @SECONDS since 1970
    #[arg(long, value_name = "TIME", value_parser = time)]
    to_time: Option<i64>,
    /// To the first records of the time before now, such as 1h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    by_duration: Option<Duration>,
    /// On by so many records from where the group is, back with a minus
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shift_by: Option<i64>,
}

impl To {
    fn target(&self) -> anyhow::Result<ResetTo> {
        let position = match self {
            Self {
                shift_by: Some(by), ..
            } => return Ok(ResetTo::ShiftBy(*by)),
            Self { to_start: true, .. } => Position::Start,
            Self { to_end: true, .. } => Position::End,
            Self {
                to_offset: Some(offset),
                ..
            } => Position::Offset(Offset(*offset)),
            Self {
                to_time: Some(time),
                ..
            } => Position::Time(*time),
            Self {
                by_duration: Some(back),
                ..
            } => {
                let back = i64::try_from(back.as_millis())?;
                Position::Time(clock::wall_ms().saturating_sub(back))
            }
            _ => bail!("name where to, such as --to-start"),
        };
        Ok(ResetTo::Position(position))
    }
}

fn time(text: &str) -> Result<i64, String> {
    let time = position::time(text);
    time.ok_or_else(|| {
        "expected a time such as 2013-01-15, 2013-01-15T08:30:00 or @1358208000".to_owned()
    })
}

pub(super) async fn run(client: &Client, args: &ResetArgs, output: Output) -> anyhow::Result<()> {
    let to = args.to.target()?;
    let mut partitions = args.partition.clone();
    if partitions.is_empty() {
        partitions.extend(0..client.partitions(&args.topic).await?);
    }
    partitions.sort_unstable();
    partitions.dedup();
    let targets: Vec<_> = partitions
        .into_iter()
        .map(|partition| (TopicPartition::new(&args.topic, partition), to))
        .collect();
    let admin = client.admin();
    let changes = admin
        .reset_group(&args.group, &targets, args.dry_run)
        .await?;
    show(args, &changes, output)?;
    if args.dry_run {
        tell("dry run: nothing was changed");
    }
    Ok(())
}

fn show(args: &ResetArgs, changes: &[OffsetChange], output: Output) -> anyhow::Result<()> {
    match output {
        Output::Table => {
            let rows = changes.iter().map(|change| {
                vec![
                    change.partition.topic.clone(),
                    change.partition.partition.to_string(),
                    change.before.map_or("-".to_owned(), |o| o.to_string()),
                    change.after.to_string(),
                    if change.clamped { "nearest" } else { "" }.to_owned(),
                ]
            });
            print_table(&["TOPIC", "PARTITION", "BEFORE", "AFTER", "NOTE"], rows)
        }
        Output::Json => {
            let one = |change: &OffsetChange| {
                json!({
                    "topic": change.partition.topic,
                    "partition": change.partition.partition.0,
                    "before": change.before.map(|o| o.0),
                    "after": change.after.0,
                    "nearest": change.clamped,
                })
            };
            print_json(&json!({
                "group": args.group,
                "dry_run": args.dry_run,
                "changes": changes.iter().map(one).collect::<Vec<_>>(),
            }))
        }
    }
}
