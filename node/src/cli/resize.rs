//! `seriatim topic reassign`, and the size of a topic in `seriatim topic alter`.

use serde_json::json;
use seriatim_client::{Admin, PlannedMove};
use seriatim_proto::limits::MAX_TOPIC_PARTITIONS;

use super::{
    common::{Output, print, print_json, print_table},
    moving,
};

/// How many partitions and replicas.
#[derive(Debug, clap::Args)]
pub(super) struct Size {
    /// Number of partitions; it can only grow, and keys go to other partitions than before
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(i32).range(1..=i64::from(MAX_TOPIC_PARTITIONS)))]
    partitions: Option<i32>,
    /// Replicas of each partition; waits, with progress, until all have their log
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replication_factor: Option<u32>,
    /// Only begin to change the number of replicas
    #[arg(long, requires = "replication_factor")]
    no_wait: bool,
}

impl Size {
    /// Makes a topic so large.
    pub(super) async fn apply(
        &self,
        admin: &Admin,
        name: &str,
        output: Output,
    ) -> anyhow::Result<()> {
        if let Some(partitions) = self.partitions {
            admin.set_partitions(name, partitions).await?;
            match output {
                Output::Table => print(&format!("topic {name} has {partitions} partitions\n"))?,
                Output::Json => {
                    print_json(&json!({ "topic": name, "partitions": partitions }))?;
                }
            }
        }
        let Some(factor) = self.replication_factor else {
            return Ok(());
        };
        let moves = admin.set_replication_factor(name, factor).await?;
        if !self.no_wait {
            moving::finish(admin, &moves).await?;
        }
        if output == Output::Json {
            let moves: Vec<_> = moves.iter().map(moving::to_json).collect();
            return print_json(&json!({
                "topic": name,
                "replication_factor": factor,
                "moves": moves,
            }));
        }
        let verb = if self.no_wait { "is getting" } else { "has" };
        print(&format!(
            "topic {name} {verb} {factor} replicas of each partition\n"
        ))
    }
}

/// Which partition goes where.
#[derive(Debug, clap::Args)]
pub(super) struct Reassign {
    /// The topic
    #[arg(long, value_name = "NAME")]
    topic: String,
    /// The partition
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// The nodes that shall hold it, the preferred leader first
    #[arg(
        long,
        value_name = "NODE,...",
        value_delimiter = ',',
        required_unless_present = "cancel",
        conflicts_with = "cancel"
    )]
    replicas: Vec<u64>,
    /// Turn a move under way round
    #[arg(long)]
    cancel: bool,
    /// Only begin
    #[arg(long)]
    no_wait: bool,
}

impl Reassign {
    /// Moves the partition.
    pub(super) async fn run(&self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        let planned = if self.cancel {
            admin.cancel_reassign(&self.topic, self.partition).await?
        } else {
            let reassigned = admin.reassign(&self.topic, self.partition, &self.replicas);
            reassigned.await?
        };
        let moves: Vec<PlannedMove> = planned.into_iter().collect();
        if !self.no_wait {
            moving::finish(admin, &moves).await?;
        }
        if output == Output::Json {
            let moves: Vec<_> = moves.iter().map(moving::to_json).collect();
            return print_json(&json!({ "moves": moves }));
        }
        if moves.is_empty() {
            let what = if self.cancel {
                "does not move: there is nothing to cancel"
            } else {
                "is there already, or on its way there"
            };
            let (topic, partition) = (&self.topic, self.partition);
            return print(&format!("partition {partition} of {topic} {what}\n"));
        }
        print_table(&moving::HEADER, moves.iter().map(moving::row))
    }
}
