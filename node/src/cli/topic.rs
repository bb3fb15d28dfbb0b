//! `seriatim topic create|list|describe|alter|delete`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use seriatim_client::{Admin, NewTopic, TopicDescription};

use super::common::{Output, Servers, print, print_json, print_table, setting, settings};

const EXAMPLES: &str = "Examples:
  seriatim topic create flights --partitions 6 --replicas 3
  seriatim topic create metrics --set durability=os --servers 10.0.0.1:7401,10.0.0.2:7401
  seriatim topic describe flights --output json
  seriatim topic alter flights --set segment.bytes=67108864
  seriatim topic delete flights";

/// Create, list, describe, change and delete topics
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    servers: Servers,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, global = true)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create a topic and wait until each partition has a leader
    Create {
        /// Its name
        name: String,
        /// Number of partitions
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: i32,
        /// Replicas of each partition (default: 3, or the number of nodes if smaller)
        #[arg(long, default_value_t = 0)]
        replicas: u32,
        /// A setting; may be repeated
        #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
        set: Vec<(String, String)>,
    },
    /// List all topics
    List,
    /// Show a topic's settings and partitions
    Describe {
        /// Its name
        name: String,
    },
    /// Change settings; an empty value returns one to its default
    Alter {
        /// Its name
        name: String,
        /// A setting; may be repeated
        #[arg(long, value_name = "NAME=VALUE", value_parser = setting, required = true)]
        set: Vec<(String, String)>,
    },
    /// Delete a topic with all its records
    Delete {
        /// Its name
        name: String,
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
        } => {
            let settings = settings(set);
            let topic = NewTopic {
                name,
                partitions,
                replication_factor: replicas,
                settings,
            };
            create(&admin, topic, args.output).await
        }
        Verb::List => list(&admin.list_topics().await?, args.output),
        Verb::Describe { name } => describe(&admin.describe(&name).await?, args.output),
        Verb::Alter { name, set } => {
            let all = admin.alter_topic(&name, settings(set)).await?;
            show_settings(&name, &all, args.output)
        }
        Verb::Delete { name } => {
            admin.delete_topic(&name).await?;
            match args.output {
                Output::Table => print(&format!("deleted topic {name}\n")),
                Output::Json => print_json(&json!({ "topic": name, "deleted": true })),
            }
        }
    }
}

async fn create(admin: &Admin, topic: NewTopic, output: Output) -> anyhow::Result<()> {
    let name = topic.name.clone();
    let (partitions, replicas) = admin.create_topic(topic).await?;
    match output {
        Output::Table => print(&format!(
            "created topic {name} with {partitions} partitions and {replicas} replicas of each\n"
        )),
        Output::Json => print_json(&json!({
            "topic": name,
            "partitions": partitions,
            "replicas": replicas,
        })),
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
