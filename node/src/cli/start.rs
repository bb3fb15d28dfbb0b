//! `seriatim start` and `seriatim dev`.

use std::path::PathBuf;

use crate::{config, logging, node};

/// Options of `start`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seriatim start --config node1.toml\n  \
    SERIATIM_DATA_DIR=/var/lib/seriatim seriatim start --config node1.toml --log-level debug")]
pub(super) struct StartArgs {
    /// The configuration file (TOML). Environment variables are above it, flags above both.
    #[arg(long, env = "SERIATIM_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: config::Settings,
}

/// Options of `dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  seriatim dev\n  seriatim topic create events --partitions 3")]
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
    Box::pin(node::run(config)).await
}
