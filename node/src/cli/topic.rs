//! `seriatim topic create|list|describe|alter|trim|delete`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use seriatim_client::{Admin, ErrorCode, NewTopic, Position, TopicDescription};
use seriatim_proto::limits::MAX_TOPIC_PARTITIONS;

use super::{
    common::{Output, Servers, print, print_json, print_table, setting, settings},
    position,
    resize::{Reassign, Size},
    trim::{self, Trim},
};

const SETTINGS: &str = "Settings:
  durability=fsync|os          when an append is acknowledged: after fsync on a majority of the
                               replicas (default), or from their page cache, which loses
                               acknowledged records if a majority loses power at once
  max.message.bytes=BYTES      largest batch: 1024 to 16777216 (default)
  retention.bytes=BYTES        records that each partition keeps before old ones go, at least:
                               8388608 or more; -1 for all (default)
  retention.ms=MS              how long records are kept at least; -1 for ever (default 604800000,
                               7 days)
  segment.bytes=BYTES          size of a file of the log, the unit in which records go: 1048576 to
                               1073741824 (default 134217728), at most a sixteenth of retention.bytes
  cleanup.policy=delete        what becomes of old records: they are deleted";

const EXAMPLES: &str = "Examples:
  seriatim topic create flights --partitions 6 --replicas 3
  seriatim topic create metrics --set durability=os --servers 10.0.0.1:7401,10.0.0.2:7401
  seriatim topic describe flights --output json
  seriatim topic alter flights --set retention.ms=86400000
  seriatim topic trim flights --partition 0 --before 12000
  seriatim topic delete flights";

/// Create, list, describe, change, trim and delete topics
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    servers: Servers,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, global = true, value_name = "FORM")]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create a topic and wait until each partition has a leader
    #[command(after_help = format!("{SETTINGS}\n\nExamples:
  seriatim topic create flights --partitions 6 --replicas 3
  seriatim topic create metrics --partitions 12 --set durability=os --if-not-exists"))]
    Create {
        /// Its name: letters, digits, '.', '_' and '-'
        name: String,
        /// Number of partitions
        #[arg(long, default_value_t = 1, value_name = "N",
            value_parser = clap::value_parser!(i32).range(1..=i64::from(MAX_TOPIC_PARTITIONS)))]
        partitions: i32,
        /// Replicas of each partition [default: 3, or the number of nodes if that is less]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        replicas: Option<u32>,
        /// A setting; may be repeated
        #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
        set: Vec<(String, String)>,
        /// Do nothing if there is a topic of that name, whatever its partitions and settings
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List all topics
    #[command(after_help = "Example:\n  seriatim topic list --output json")]
    List,
    /// Show a topic's settings and partitions
    #[command(after_help = "Example:\n  seriatim topic describe flights")]
    Describe {
        /// Its name
        name: String,
    },
    /// Change settings, the number of partitions or of replicas, while the topic is in use
    ///
    /// An empty value returns a setting to its default.
    #[command(after_help = format!("{SETTINGS}\n\nExamples:
  seriatim topic alter flights --set segment.bytes=67108864
  seriatim topic alter flights --set durability=
  seriatim topic alter flights --partitions 12
  seriatim topic alter flights --replication-factor 3"))]
    Alter {
        /// Its name
        name: String,
        /// A setting; may be repeated
        #[arg(long, value_name = "NAME=VALUE", value_parser = setting,
            required_unless_present_any = ["partitions", "replication_factor"])]
        set: Vec<(String, String)>,
        #[command(flatten)]
        size: Size,
    },
    /// Remove old records of a topic
    #[command(after_help = "Examples:
  seriatim topic trim flights --partition 0 --before 12000
  seriatim topic trim flights --before 2013-01-15
  seriatim topic trim flights --before end")]
    Trim {
        /// Its name
        name: String,
        /// The partition; all if none is named
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
        partition: Option<i32>,
        /// The first record to keep: an offset, end (keep none), or a time in any form that `consume
        /// --from` takes
        #[arg(long, value_name = "POSITION", value_parser = position::parse, allow_hyphen_values = true)]
        before: Position,
    },
    /// Move the replicas of one partition to the nodes that are named
    ///
    /// New replicas receive the log before old ones go. The command waits, with progress, until the
    /// move is done; it goes on by itself if the command is interrupted.
    #[command(after_help = "Examples:
  seriatim topic reassign --topic flights --partition 3 --replicas 1,2,4
  seriatim topic reassign --topic flights --partition 3 --cancel")]
    Reassign(Reassign),
    /// Delete a topic with all its records
    #[command(after_help = "Example:\n  seriatim topic delete flights --if-exists")]
    Delete {
        /// Its name
        name: String,
        /// Do nothing if there is no such topic
        #[arg(long)]
        if_exists: bool,
    },
}

/// Runs the verb.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let admin = args.servers.connect().await?.admin();
    match args.verb {
        Verb::Create {
            name,
            partitions,
            replicas,
            set,
            if_not_exists,
        } => {
            let topic = NewTopic {
                name,
                partitions,
                // 0 lets the cluster choose.
                replication_factor: replicas.unwrap_or(0),
                settings: settings(set),
            };
            create(&admin, topic, if_not_exists, args.output).await
        }
        Verb::List => list(&admin.list_topics().await?, args.output),
        Verb::Describe { name } => describe(&admin.describe(&name).await?, args.output),
        Verb::Alter { name, set, size } => {
            if !set.is_empty() {
                let all = admin.alter_topic(&name, settings(set)).await?;
                show_settings(&name, &all, args.output)?;
            }
            size.apply(&admin, &name, args.output).await
        }
        Verb::Trim {
            name,
            partition,
            before,
        } => {
            let trim = Trim {
                topic: name,
                partition,
                before,
            };
            trim::run(&admin, &trim, args.output).await
        }
        Verb::Reassign(reassign) => reassign.run(&admin, args.output).await,
        Verb::Delete { name, if_exists } => delete(&admin, &name, if_exists, args.output).await,
    }
}

async fn create(
    admin: &Admin,
    topic: NewTopic,
    if_not_exists: bool,
    output: Output,
) -> anyhow::Result<()> {
    let name = topic.name.clone();
    let (partitions, replicas, created) = match admin.create_topic(topic).await {
        Ok((partitions, replicas)) => (partitions, replicas, true),
        Err(error) if if_not_exists && error.code() == Some(ErrorCode::TopicExists) => {
            let known = admin.describe(&name).await?;
            let partitions = i32::try_from(known.partitions.len()).unwrap_or(i32::MAX);
            (partitions, known.replication_factor, false)
        }
        Err(error) => return Err(error.into()),
    };
    let verb = if created {
        "created topic"
    } else {
        "there is a topic"
    };
    match output {
        Output::Table => print(&format!(
            "{verb} {name} with {partitions} partitions and {replicas} replicas of each\n"
        )),
        Output::Json => print_json(&json!({
            "topic": name,
            "partitions": partitions,
            "replicas": replicas,
            "created": created,
        })),
    }
}

async fn delete(admin: &Admin, name: &str, if_exists: bool, output: Output) -> anyhow::Result<()> {
    let deleted = match admin.delete_topic(name).await {
        Ok(()) => true,
        Err(error) if if_exists && error.code() == Some(ErrorCode::UnknownTopic) => false,
        Err(error) => return Err(error.into()),
    };
    match output {
        Output::Table if deleted => print(&format!("deleted topic {name}\n")),
        Output::Table => print(&format!("there is no topic {name}\n")),
        Output::Json => print_json(&json!({ "topic": name, "deleted": deleted })),
    }
}

fn list(topics: &[TopicDescription], output: Output) -> anyhow::Result<()> {
    match output {
        Output::Table => print_table(
            &["TOPIC", "PARTITIONS", "REPLICAS", "LEADERLESS"],
            topics.iter().map(|t| {
                let leaderless = t.partitions.iter().filter(|p| p.leader.is_none()).count();
                vec![
                    t.name.clone(),
                    t.partitions.len().to_string(),
                    t.replication_factor.to_string(),
                    leaderless.to_string(),
                ]
            }),
        ),
        Output::Json => print_json(&topics.iter().map(to_json).collect::<Vec<_>>()),
    }
}

fn describe(topic: &TopicDescription, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&to_json(topic));
    }
    print(&format!("topic {} ({})\n", topic.name, topic.id))?;
    for (name, value) in &topic.settings {
        print(&format!("  {name} = {value}\n"))?;
    }
    let rows = topic.partitions.iter().map(|p| {
        let replicas: Vec<_> = p.replicas.iter().map(ToString::to_string).collect();
        vec![
            p.partition.to_string(),
            p.leader.map_or("none".to_owned(), |node| node.to_string()),
            p.leader_epoch.to_string(),
            replicas.join(","),
        ]
    });
    print_table(&["PARTITION", "LEADER", "TERM", "REPLICAS"], rows)
}

fn show_settings(name: &str, all: &BTreeMap<String, String>, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Table => {
            let rows = all
                .iter()
                .map(|(name, value)| vec![name.clone(), value.clone()]);
            print_table(&["SETTING", "VALUE"], rows)
        }
        Output::Json => print_json(&json!({ "topic": name, "settings": all })),
    }
}

fn to_json(topic: &TopicDescription) -> Value {
    let partition = |p: &seriatim_client::PartitionDescription| {
        json!({
            "partition": p.partition,
            "leader": p.leader,
            "term": p.leader_epoch,
            "replicas": p.replicas,
        })
    };
    json!({
        "topic": topic.name,
        "id": topic.id,
        "replication_factor": topic.replication_factor,
        "settings": topic.settings,
        "partitions": topic.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}
