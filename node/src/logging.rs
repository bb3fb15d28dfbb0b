//! Structured logs on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// A filter of log lines, such as `info` or `warn,seriatim_cluster=debug`.
pub(crate) fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(level).map_err(|_unread| {
        anyhow::anyhow!(
            "log_level: \"{level}\" is not allowed; it must be a level (off, error, warn, info, \
             debug, trace) or a list of them by module, such as \"warn,seriatim_cluster=debug\""
        )
    })
}

/// Begins to log.
pub(crate) fn init(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(std::io::stderr);
    let begun = match format {
        // Colours are for eyes, not for files; NO_COLOR is respected by the subscriber itself.
        LogFormat::Text => {
            let eyes = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(eyes).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    begun.map_err(|error| anyhow::anyhow!("cannot begin to log: {error}"))
}
