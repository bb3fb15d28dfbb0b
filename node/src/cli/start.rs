//! `seriatim start` and `seriatim dev`.

use std::path::PathBuf;

use crate::{config, logging, node};

const START_EXAMPLES: &str = "Examples:
  seriatim start --config node1.toml
  seriatim start --config node1.toml --log-level warn,seriatim_cluster=debug
  SERIATIM_NODE_ID=2 SERIATIM_DATA_DIR=/var/lib/seriatim seriatim start --config common.toml

A complete node1.toml:
  node_id = 1
  data_dir = \"/var/lib/seriatim\"
  seeds = [\"10.0.0.1:7402\", \"10.0.0.2:7402\", \"10.0.0.3:7402\"]

  [listen]
  grpc = \"10.0.0.1:7401\"
  replication = \"10.0.0.1:7402\"
  http = \"10.0.0.1:7403\"";

const DEV_EXAMPLES: &str = "Examples:
  seriatim dev
  seriatim dev --data-dir /tmp/events --log-level warn

Then, in another terminal:
  seriatim topic create greetings
  echo hello | seriatim produce greetings
  seriatim consume greetings --from start --until end";

/// Options of `start`.
#[derive(Debug, clap::Args)]
#[command(after_help = START_EXAMPLES)]
pub(super) struct StartArgs {
    /// The configuration file (TOML); environment variables are above it, flags above both
    #[arg(
        long,
        env = "SERIATIM_CONFIG",
        value_name = "FILE",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: config::Settings,
}

/// Options of `dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = DEV_EXAMPLES)]
pub(super) struct DevArgs {
    #[command(flatten)]
    settings: config::Settings,
}

pub(super) async fn start(args: StartArgs) -> anyhow::Result<()> {
    run(config::load(args.config.as_deref(), args.settings)?).await
}

pub(super) async fn dev(args: DevArgs) -> anyhow::Result<()> {
    let settings = args.settings.or(config::Settings::dev());
    run(config::load(None, settings)?).await
}

async fn run(config: config::Config) -> anyhow::Result<()> {
    logging::init(&config.log_level, config.log_format)?;
    let variables = std::env::vars_os().map(|(name, _value)| name);
    for (variable, meant) in config::unknown_variables(variables) {
        tracing::warn!(%variable, %meant, "ignoring an unknown environment variable");
    }
    Box::pin(node::run(config)).await
}
