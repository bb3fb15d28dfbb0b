//! What the verbs share: the servers, the output, tables.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    pin::pin,
    time::Duration,
};

use comfy_table::{Table, presets};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Serialize;
use seriatim_client::{Client, ClientError};
use seriatim_runtime::{clock, task};
use tokio::sync::oneshot;

use super::fail::NoAnswer;

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

/// After this, a person is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

impl Servers {
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let mut connecting = pin!(Client::connect(&self.servers));
        let connected = match clock::timeout(PATIENCE, connecting.as_mut()).await {
            Ok(connected) => connected,
            Err(_elapsed) => {
                tell(&format!("waiting for a node at {} ...", self.servers));
                connecting.await
            }
        };
        connected.map_err(|error| match &error {
            ClientError::Unreachable { last, .. } => anyhow::Error::new(NoAnswer {
                servers: self.servers.clone(),
                why: last.as_deref().map(reason).unwrap_or_default(),
            }),
            _ => anyhow::Error::new(error).context(format!("servers \"{}\"", self.servers)),
        })
    }
}

/// The innermost cause that the transport names.
fn reason(error: &ClientError) -> String {
    let ClientError::Transport { status, .. } = error else {
        return error.to_string();
    };
    let mut cause: &dyn std::error::Error = status.as_ref();
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A line about progress.
#[expect(clippy::print_stderr, reason = "progress goes to standard error")]
pub(crate) fn tell(line: &str) {
    eprintln!("{line}");
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Output {
    #[default]
    Table,
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

/// Returns once nobody can read what is printed any more: `| head` has seen enough.
pub(crate) async fn reader_gone() {
    const LOOK: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 200_000_000,
    };
    let (sender, gone) = oneshot::channel();
    // A thread, because the end of a pipe is not something that a runtime can wait for on a file
    // or a terminal. It ends with the process.
    let _watching = task::spawn(
        "stdout",
        task::blocking("stdout", move || {
            let out = io::stdout();
            while !sender.is_closed() {
                let mut fds = [PollFd::new(&out, PollFlags::empty())];
                let ended = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
                match rustix::event::poll(&mut fds, Some(&LOOK)) {
                    Ok(_) if fds.iter().any(|fd| fd.revents().intersects(ended)) => break,
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return,
                }
            }
            // Nobody waits any more when the command has ended.
            let _ended = sender.send(());
        }),
    );
    if gone.await.is_err() {
        std::future::pending::<()>().await;
    }
}
