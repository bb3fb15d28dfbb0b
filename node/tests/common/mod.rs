//! The `seriatim` command as a person or a script runs it.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use seriatim_runtime::clock;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
};

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The command without the environment of this process.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seriatim"));
    let _command = command
        .env_clear()
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        let lines = self.text().lines();
        lines.map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// Panics unless the command succeeded.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Panics unless the command failed with a message that has these parts.
    pub(crate) fn failed(self, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "'{part}' is not in {self:?}");
        }
        self
    }
}

pub(crate) async fn ended(child: Child) -> Ended {
    let output = clock::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.expect("the command does not end").unwrap();
    Ended {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Polls until `done` gives something.
pub(crate) async fn eventually<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = clock::now() + PATIENCE;
    loop {
        if let Some(value) = done().await {
            return value;
        }
        assert!(clock::now() < deadline, "{what}: not within {PATIENCE:?}");
        clock::sleep(Duration::from_millis(20)).await;
    }
}

/// Addresses that nobody listens at.
pub(crate) fn free_addresses<const N: usize>() -> [String; N] {
    let bound: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    bound.map(|listener| listener.local_addr().unwrap().to_string())
}

/// `GET`: the status and the body.
pub(crate) async fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    let _bytes = stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_head, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

/// The lines of a file of `--acknowledged`: partition and offset by input line.
pub(crate) fn acknowledged(text: &str) -> BTreeMap<u64, (i64, i64)> {
    let line = |line: &str| {
        let numbers: Vec<i64> = line.split(',').map(|n| n.parse().unwrap()).collect();
        let [partition, offset, line] = numbers[..] else {
            panic!("{line}")
        };
        (u64::try_from(line).unwrap(), (partition, offset))
    };
    text.lines().map(line).collect()
}

/// Waits until the node with this HTTP address is ready.
pub(crate) async fn ready(http: &str) {
    eventually("the node is ready", async || {
        let (status, _body) = get(http, "/readyz").await?;
        (status == 200).then_some(())
    })
    .await;
}

/// Processes that were started with a file of this folder.
pub(crate) fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|p| fs::read_to_string(p.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(folder)).collect()
}

/// `seriatim dev` with data in a temporary folder.
pub(crate) struct Dev {
    child: Child,
    pub(crate) folder: TempDir,
    pub(crate) grpc: String,
    pub(crate) http: String,
}

impl Dev {
    /// Starts a node and waits until it is ready.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [grpc, replication, http] = free_addresses();
        let child = command(&["dev", "--log-format", "json"])
            .env("SERIATIM_DATA_DIR", folder.path().join("data"))
            .env("SERIATIM_LISTEN_GRPC", &grpc)
            .env("SERIATIM_LISTEN_REPLICATION", &replication)
            .env("SERIATIM_LISTEN_HTTP", &http)
            .spawn()
            .unwrap();
        ready(&http).await;
        Self {
            child,
            folder,
            grpc,
            http,
        }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A command against this node.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command(args);
        let _command = command.env("SERIATIM_SERVERS", &self.grpc);
        command
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        ended(self.command(args).spawn().unwrap()).await
    }

    /// A command that reads `input`.
    pub(crate) async fn feed(&self, args: &[&str], input: &[u8]) -> Ended {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feeding = async {
            // A command that refuses a line reads no further.
            let _refused = stdin.write_all(input).await;
            drop(stdin);
        };
        let ((), ended) = tokio::join!(feeding, ended(child));
        ended
    }

    /// SIGTERM; the node ends by itself.
    pub(crate) async fn stop(self) -> (TempDir, Ended) {
        signal(&self.child, Signal::TERM);
        (self.folder, ended(self.child).await)
    }
}
