//! What the verbs share: the servers, the output, tables.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use anyhow::Context as _;
use comfy_table::{Table, presets};
use serde::Serialize;
use seriatim_client::Client;

/// Where the cluster is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Servers {
    /// gRPC addresses of some nodes
    #[arg(
        long,
        env = "SERIATIM_SERVERS",
        value_name = "HOST:PORT,...",
        default_value = "127.0.0.1:7401",
        global = true
    )]
    servers: String,
}

impl Servers {
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let connected = Client::connect(&self.servers).await;
        connected.with_context(|| format!("connect to {}", self.servers))
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Prints a result; a reader that has gone away is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints a result as one JSON value.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints a table without lines, so that it can be cut into columns.
pub(crate) fn print_table(
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    let _styled = table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        let _added = table.add_row(row);
    }
    print(&format!("{}\n", table.trim_fmt()))
}

/// `name=value`.
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// The settings of repeated `--set`.
pub(crate) fn settings(list: Vec<(String, String)>) -> BTreeMap<String, String> {
    list.into_iter().collect()
}
