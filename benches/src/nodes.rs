//! A cluster of `seriatim start` processes on this machine, for the time of a run.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use seriatim_runtime::clock;
use tempfile::TempDir;
use tokio::process::{Child, Command};

const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Lines of its log that are shown when a node ends by itself.
const LOG_LINES: usize = 5;

/// The processes and their data. Dropping it ends the processes and removes the data.
#[derive(Debug)]
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    _folder: TempDir,
}

#[derive(Debug)]
struct Node {
    grpc: String,
    log: PathBuf,
    child: Child,
}

struct Addresses {
    grpc: String,
    replication: String,
    http: String,
}

impl Nodes {
    /// Starts `count` nodes with their data in a new folder within `dir`.
    pub(crate) fn start(binary: &Path, count: u32, dir: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("seriatim-bench-")
            .tempdir_in(dir)
            .with_context(|| format!("make a folder for data in {}", dir.display()))?;
        let addresses = free_addresses(count)?;
        let seeds: Vec<&str> = addresses.iter().map(|a| a.replication.as_str()).collect();
        let mut nodes = Vec::new();
        for (id, own) in (1_u32..).zip(&addresses) {
            let config = folder.path().join(format!("node{id}.toml"));
            let log = folder.path().join(format!("node{id}.log"));
            let data = folder.path().join(format!("node{id}"));
            fs::write(&config, configuration(id, own, &seeds, &data))?;
            nodes.push(Node {
                grpc: own.grpc.clone(),
                child: spawn(binary, &config, &log)?,
                log,
            });
        }
        Ok(Self {
            nodes,
            _folder: folder,
        })
    }

    pub(crate) fn servers(&self) -> String {
        let servers: Vec<&str> = self.nodes.iter().map(|node| node.grpc.as_str()).collect();
        servers.join(",")
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        self.nodes
            .iter()
            .filter_map(|node| node.child.id())
            .collect()
    }

    /// Fails if a node has ended by itself.
    pub(crate) fn check_running(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            if let Some(status) = node.child.try_wait()? {
                let log = fs::read_to_string(&node.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let end = lines.len().saturating_sub(LOG_LINES);
                let end = lines.get(end..).unwrap_or_default().join("\n");
                bail!("a node ended ({status}); its log ends with:\n{end}");
            }
        }
        Ok(())
    }

    /// SIGTERM to all, and waits for them.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.check_running()?;
        for pid in self.processes() {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            let pid = pid.context("a process without an id")?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        for node in &mut self.nodes {
            let ended = clock::timeout(STOP_TIMEOUT, node.child.wait()).await;
            let Ok(status) = ended else {
                bail!("a node did not stop within {STOP_TIMEOUT:?} of SIGTERM");
            };
            let status = status?;
            ensure!(status.success(), "a node ended with {status}");
        }
        Ok(())
    }
}

/// The named binary, or `seriatim` beside this program.
pub(crate) fn find_binary(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let (binary, hint) = match named {
        Some(named) => (named.to_owned(), "name another one"),
        None => {
            let own = std::env::current_exe().context("find this program")?;
            let hint = "build it with `cargo build --release -p seriatim -p seriatim-benches`, \
                        or name one with --seriatim-bin";
            (own.with_file_name("seriatim"), hint)
        }
    };
    let found = binary.try_exists().unwrap_or(false);
    ensure!(found, "there is no binary {}; {hint}", binary.display());
    Ok(binary)
}

fn configuration(id: u32, own: &Addresses, seeds: &[&str], data: &Path) -> String {
    let Addresses {
        grpc,
        replication,
        http,
    } = own;
    let data = data.display().to_string();
    // Debug form is a valid basic string of TOML for any path of printable characters.
    format!(
        "node_id = {id}\ndata_dir = {data:?}\nseeds = {seeds:?}\n\n\
         [listen]\ngrpc = {grpc:?}\nreplication = {replication:?}\nhttp = {http:?}\n"
    )
}

fn spawn(binary: &Path, config: &Path, log: &Path) -> anyhow::Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    Command::new(binary)
        .arg("start")
        .arg("--config")
        .arg(config)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", binary.display()))
}

/// Addresses on loopback that nobody uses at the moment.
fn free_addresses(nodes: u32) -> anyhow::Result<Vec<Addresses>> {
    let bind = || TcpListener::bind("127.0.0.1:0").context("find free ports");
    let address = |listener: TcpListener| anyhow::Ok(listener.local_addr()?.to_string());
    // All are bound before any is let go, so that they differ.
    let bound = (0..nodes).map(|_| anyhow::Ok([bind()?, bind()?, bind()?]));
    let bound: Vec<_> = bound.collect::<Result<_, _>>()?;
    let addresses = bound.into_iter().map(|[grpc, replication, http]| {
        Ok(Addresses {
            grpc: address(grpc)?,
            replication: address(replication)?,
            http: address(http)?,
        })
    });
    addresses.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_is_named_with_what_to_do() {
        let error = find_binary(None).unwrap_err().to_string();
        assert!(
            error.contains("cargo build") && error.contains("--seriatim-bin"),
            "{error}"
        );
        let error = find_binary(Some(Path::new("/no/such/binary"))).unwrap_err();
        assert!(error.to_string().contains("/no/such/binary"), "{error}");
    }

    #[test]
    fn addresses_differ() {
        let addresses = free_addresses(3).unwrap();
        let mut all: Vec<_> = addresses
            .iter()
            .flat_map(|a| [&a.grpc, &a.replication, &a.http])
            .collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 9);
    }
}
