//! `seriatim cluster status|decommission|rebalance`.

mod moves;
mod status;

use super::common::{Output, Servers};

const EXAMPLES: &str = "Examples:
  seriatim cluster status
  seriatim cluster status --output json --servers 10.0.0.1:7401
  seriatim cluster decommission 4
  seriatim cluster rebalance --dry-run

A node joins by being started with the cluster's seeds: 'seriatim help start'.";

/// Show the state of the cluster, spread what it holds, take a node out
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
    /// Nodes, leaders, lag of each replica, moves, and what is at risk
    ///
    /// Lag counts the entries of the log that a replica is behind its leader. A partition takes
    /// appends while it has a leader and a majority of its replicas runs. LEADERS counts the
    /// partitions that a node leads, of those that it leads by preference.
    #[command(after_help = "Examples:
  seriatim cluster status
  seriatim cluster status --output json --servers 10.0.0.1:7401")]
    Status,
    /// Move everything away from a node, so that it can be stopped for good
    ///
    /// The node goes on serving meanwhile. The command waits, with progress, until the node holds
    /// nothing any more and says that it is safe to stop; it may be interrupted and repeated. Once
    /// the node is stopped the cluster forgets it; until then '--cancel' keeps it.
    #[command(after_help = "Examples:
  seriatim cluster decommission 4
  seriatim cluster decommission 4 --no-wait
  seriatim cluster decommission 4 --cancel")]
    Decommission {
        /// The node's id
        node: u64,
        /// Let the node stay after all: moves away from it turn round
        #[arg(long, conflicts_with = "no_wait")]
        cancel: bool,
        /// Only begin
        #[arg(long)]
        no_wait: bool,
    },
    /// Spread replicas and leaders evenly over the nodes, with as few moves as that takes
    ///
    /// Racks stay apart. The command waits, with progress, until the moves are done; they go on by
    /// themselves if it is interrupted.
    #[command(after_help = "Examples:
  seriatim cluster rebalance --dry-run
  seriatim cluster rebalance")]
    Rebalance {
        /// Only print the moves
        #[arg(long, conflicts_with = "no_wait")]
        dry_run: bool,
        /// Only begin
        #[arg(long)]
        no_wait: bool,
    },
}

/// Runs the verb.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let admin = args.servers.connect().await?.admin();
    match args.verb {
        Verb::Status => status::show(&admin.cluster_status().await?, args.output),
        Verb::Decommission {
            node, cancel: true, ..
        } => moves::stay(&admin, node, args.output).await,
        Verb::Decommission { node, no_wait, .. } => {
            moves::leave(&admin, node, no_wait, args.output).await
        }
        Verb::Rebalance { dry_run, no_wait } => {
            moves::rebalance(&admin, dry_run, no_wait, args.output).await
        }
    }
}
