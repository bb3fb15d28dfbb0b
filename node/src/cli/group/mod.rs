//! `seriatim group list|describe|reset|delete`.

mod describe;
mod reset;

use anyhow::bail;
use serde_json::json;
use seriatim_client::{Admin, ErrorCode, GroupList, GroupState};

use super::common::{Output, Servers, print, print_json, print_table, tell};

const EXAMPLES: &str = "Examples:
  seriatim group list
  seriatim group describe billing
  seriatim group reset billing --topic flights --to-time 2013-01-15 --dry-run
  seriatim group delete billing";

/// List, show, reset and delete consumer groups
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
    /// List all groups
    #[command(after_help = "Example:\n  seriatim group list --output json")]
    List,
    /// Show a group's members, offsets and lags
    #[command(after_help = "Examples:
  seriatim group describe billing
  seriatim group describe billing --output json")]
    Describe {
        /// Its id
        group: String,
    },
    /// Move a group's offsets; it must have no members
    Reset(reset::ResetArgs),
    /// Delete a group with its offsets; it must have no members
    #[command(after_help = "Example:\n  seriatim group delete billing --if-exists")]
    Delete {
        /// Its id
        group: String,
        /// Do nothing if there is no such group
        #[arg(long)]
        if_exists: bool,
    },
}

/// Runs the verb.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.servers.connect().await?;
    let admin = client.admin();
    match args.verb {
        Verb::List => list(&admin.list_groups().await?, args.output),
        Verb::Describe { group } => describe::run(&admin, &group, args.output).await,
        Verb::Reset(what) => reset::run(&client, &what, args.output).await,
        Verb::Delete { group, if_exists } => delete(&admin, &group, if_exists, args.output).await,
    }
}

fn list(list: &GroupList, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Table => {
            let rows = list.groups.iter().map(|group| {
                vec![
                    group.group.clone(),
                    state(group.state).to_owned(),
                    group.members.to_string(),
                    group.generation.to_string(),
                ]
            });
            print_table(&["GROUP", "STATE", "MEMBERS", "GENERATION"], rows)?;
        }
        Output::Json => {
            let one = |group: &seriatim_client::GroupSummary| {
                json!({
                    "group": group.group,
                    "state": state(group.state),
                    "members": group.members,
                    "generation": group.generation,
                })
            };
            print_json(&list.groups.iter().map(one).collect::<Vec<_>>())?;
        }
    }
    for (node, error) in &list.silent {
        tell(&format!(
            "node {node} did not answer, and groups that it coordinates are missing: {error}"
        ));
    }
    if list.unavailable_shards > 0 {
        bail!(
            "{} of the internal partitions of groups have no leader, and their groups are missing \
             here; 'seriatim cluster status' shows which nodes are down",
            list.unavailable_shards
        );
    }
    Ok(())
}

async fn delete(admin: &Admin, group: &str, if_exists: bool, output: Output) -> anyhow::Result<()> {
    let deleted = match admin.delete_group(group).await {
        Ok(()) => true,
        Err(error) if if_exists && error.code() == Some(ErrorCode::UnknownGroup) => false,
        Err(error) => return Err(error.into()),
    };
    match output {
        Output::Table if deleted => print(&format!("group '{group}' is deleted\n")),
        Output::Table => print(&format!("there is no group '{group}'\n")),
        Output::Json => print_json(&json!({ "group": group, "deleted": deleted })),
    }
}

const fn state(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "empty",
        GroupState::Stable => "stable",
        GroupState::Rebalancing => "rebalancing",
    }
}
