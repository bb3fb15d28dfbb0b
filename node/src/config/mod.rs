//! A node's configuration: defaults, then the TOML file, then the environment, then flags.

mod file;
mod keys;
#[cfg(test)]
mod reference;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use seriatim_consensus::ConsensusOptions;
use seriatim_groups::GroupOptions;
use seriatim_proto::ids::NodeId;
use seriatim_storage::StorageOptions;

pub(crate) use self::settings::Settings;
use self::{keys::in_range, settings::Size};
use crate::logging::{self, LogFormat};

/// A complete, checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) node_id: NodeId,
    pub(crate) data_dir: PathBuf,
    pub(crate) rack: String,
    pub(crate) seeds: Vec<String>,
    pub(crate) listen: Addresses,
    /// What other nodes and clients are told; like `listen` unless set.
    pub(crate) advertise: Addresses,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    pub(crate) append_bytes: usize,
    pub(crate) storage: StorageOptions,
    pub(crate) consensus: ConsensusOptions,
    pub(crate) retention_interval: Duration,
    /// Zero: leaders stay where they are.
    pub(crate) leader_balance_interval: Duration,
    pub(crate) groups: GroupOptions,
}

/// One "host:port" for each listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) grpc: String,
    pub(crate) replication: String,
    pub(crate) http: String,
}

/// Reads the file, if one is named, and puts environment and flags above it.
pub(crate) fn load(file: Option<&Path>, above: Settings) -> anyhow::Result<Config> {
    let below = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read the configuration file {}", path.display()))?;
            file::parse(&text).with_context(|| format!("configuration file {}", path.display()))?
        }
        None => Settings::default(),
    };
    resolve(&above.or(below))
}

fn resolve(settings: &Settings) -> anyhow::Result<Config> {
    let Some(data_dir) = settings.data_dir.clone() else {
        bail!("data_dir is not set; it must be the folder for the node's data");
    };
    let node_id = NodeId(in_range("node_id", settings.node_id)?);
    let (listen, advertise) = addresses(settings)?;
    let seeds = match &settings.seeds {
        Some(seeds) => seeds.clone(),
        None => vec![advertise.replication.clone()],
    };
    if seeds.is_empty() {
        bail!(
            "seeds: [] is not allowed; it must name the replication address of at least one node"
        );
    }
    for seed in &seeds {
        let _host = check_address("seeds", seed)?;
    }
    let log_level = settings
        .log_level
        .clone()
        .unwrap_or_else(|| "info,openraft=error".to_owned());
    let _filter = logging::filter(&log_level)?;
    Ok(Config {
        node_id,
        data_dir,
        rack: settings.rack.clone().unwrap_or_default(),
        seeds,
        listen,
        advertise,
        log_level,
        log_format: settings.log_format.unwrap_or_default(),
        append_bytes: bytes("append_bytes", settings.append_bytes)?,
        storage: storage(settings)?,
        consensus: consensus(node_id, settings)?,
        retention_interval: Duration::from_millis(in_range(
            "retention_interval_ms",
            settings.retention_interval_ms,
        )?),
        leader_balance_interval: Duration::from_millis(in_range(
            "leader_balance_interval_ms",
            settings.leader_balance_interval_ms,
        )?),
        groups: GroupOptions {
            retention: Duration::from_millis(in_range(
                "group_retention_ms",
                settings.group_retention_ms,
            )?),
        },
    })
}

fn storage(settings: &Settings) -> anyhow::Result<StorageOptions> {
    let size = |name, value: Option<Size>| in_range(name, value.map(|size| size.0));
    let scrub_bytes_per_s = size("scrub_bytes_per_s", settings.scrub_bytes_per_s)?;
    let disk_threads = in_range("disk_threads", settings.disk_threads)?;
    Ok(StorageOptions {
        disk_threads: usize::try_from(disk_threads)?,
        cache_bytes: size("cache_bytes", settings.cache_bytes)?,
        reserve_bytes: size("reserve_bytes", settings.reserve_bytes)?,
        scrub: scrub_bytes_per_s > 0,
        scrub_bytes_per_s: scrub_bytes_per_s.max(1),
    })
}

fn consensus(node_id: NodeId, settings: &Settings) -> anyhow::Result<ConsensusOptions> {
    let heartbeat = in_range("heartbeat_interval_ms", settings.heartbeat_interval_ms)?;
    let election = in_range("election_timeout_ms", settings.election_timeout_ms)?;
    if election < 2 * heartbeat {
        bail!(
            "election_timeout_ms: {election} is not allowed; it must be at least twice \
             heartbeat_interval_ms ({heartbeat}), or a leader is deposed for one late heartbeat"
        );
    }
    Ok(ConsensusOptions {
        node_id,
        heartbeat_interval: Duration::from_millis(heartbeat),
        election_timeout: Duration::from_millis(election),
        max_append_bytes: bytes("replication_batch_bytes", settings.replication_batch_bytes)?,
        catch_up_bytes_per_s: in_range(
            "catch_up_bytes_per_s",
            settings.catch_up_bytes_per_s.map(|size| size.0),
        )?,
    })
}

fn bytes(name: &str, value: Option<Size>) -> anyhow::Result<usize> {
    let value = in_range(name, value.map(|size| size.0))?;
    usize::try_from(value).with_context(|| format!("{name}: {value} is too large here"))
}

/// Where to listen, and what others are told.
fn addresses(settings: &Settings) -> anyhow::Result<(Addresses, Addresses)> {
    let (on, told) = (&settings.listen, &settings.advertise);
    let (grpc, told_grpc) = address("grpc", 7401, on.grpc.as_ref(), told.grpc.as_ref())?;
    let (replication, told_replication) = address(
        "replication",
        7402,
        on.replication.as_ref(),
        told.replication.as_ref(),
    )?;
    let (http, told_http) = address("http", 7403, on.http.as_ref(), told.http.as_ref())?;
    let listen = Addresses {
        grpc,
        replication,
        http,
    };
    let advertise = Addresses {
        grpc: told_grpc,
        replication: told_replication,
        http: told_http,
    };
    Ok((listen, advertise))
}

fn address(
    name: &str,
    port: u16,
    listen: Option<&String>,
    advertise: Option<&String>,
) -> anyhow::Result<(String, String)> {
    let listen = match listen {
        Some(address) => address.clone(),
        None => format!("127.0.0.1:{port}"),
    };
    let host = check_address(&format!("listen.{name}"), &listen)?;
    let Some(advertise) = advertise else {
        if ["0.0.0.0", "[::]"].contains(&host) {
            bail!(
                "advertise.{name} is not set; it must be the \"host:port\" at which others reach \
                 this node, because listen.{name} is every address of this machine ({listen})"
            );
        }
        return Ok((listen.clone(), listen));
    };
    let _host = check_address(&format!("advertise.{name}"), advertise)?;
    Ok((listen, advertise.clone()))
}

/// The host of a "host:port".
fn check_address<'a>(name: &str, address: &'a str) -> anyhow::Result<&'a str> {
    let parts = address.rsplit_once(':');
    match parts.map(|(host, port)| (host, port.parse::<u16>())) {
        Some((_host, Ok(0))) => {
            bail!("{name}: \"{address}\" is not allowed; port 0 is none that others could know")
        }
        Some((host, Ok(_port))) if !host.is_empty() => Ok(host),
        _ => bail!("{name}: \"{address}\" is not allowed; it must be \"host:port\""),
    }
}

/// Which of these variables of the environment look like settings and are none, each with the one
/// that was probably meant. They are no errors: Kubernetes makes such names of its own for a service
/// that is called "seriatim".
pub(crate) fn unknown_variables(
    names: impl Iterator<Item = std::ffi::OsString>,
) -> Vec<(String, String)> {
    let variable = |key: &str| format!("SERIATIM_{}", key.replace('.', "_").to_uppercase());
    let known = |name: &String| {
        let keys = keys::KEYS.iter().map(|key| key.name);
        let mut all = keys.chain(["config", "servers"]);
        all.any(|key| variable(key) == *name)
    };
    let names = names.filter_map(|name| name.into_string().ok());
    names
        .filter(|name| name.starts_with("SERIATIM_") && !known(name))
        .map(|name| {
            let key = name.trim_start_matches("SERIATIM_").to_lowercase();
            let meant = variable(keys::nearest(&key));
            (name, meant)
        })
        .collect()
}

/// Adds default and allowed values to the help of the flags.
pub(crate) fn annotate(mut command: clap::Command) -> clap::Command {
    for key in keys::KEYS {
        command = command.mut_arg(key.name, |arg| {
            let meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let default = key.kind.default();
            arg.help(format!("{meaning} [default: {default}]"))
                .hide_env_values(true)
                .hide_possible_values(true)
        });
    }
    command
}
