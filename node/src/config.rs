//! A node's configuration: defaults, then the TOML file, then the environment, then flags.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::logging::LogFormat;

/// Keys of the file, for the error about an unknown one.
const KEYS: &[&str] = &[
    "node_id",
    "data_dir",
    "rack",
    "seeds",
    "listen",
    "advertise",
    "log_level",
    "log_format",
    "append_bytes",
    "cache_bytes",
];
const LISTEN_KEYS: &[&str] = &["grpc", "replication", "http"];

/// A complete, checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) node_id: u64,
    pub(crate) data_dir: PathBuf,
    pub(crate) rack: String,
    pub(crate) seeds: Vec<String>,
    pub(crate) listen: Addresses,
    /// What other nodes and clients are told; like `listen` unless set.
    pub(crate) advertise: Addresses,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    pub(crate) append_bytes: u64,
    pub(crate) cache_bytes: u64,
}

/// One "host:port" for each listener.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Addresses {
    pub(crate) grpc: String,
    pub(crate) replication: String,
    pub(crate) http: String,
}

/// The settings of one source; what is absent comes from the source before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// This node's id: 1 or more, different for every node, never changed.
    #[arg(long, env = "SERIATIM_NODE_ID")]
    node_id: Option<u64>,
    /// Folder for the node's data; made if it is not there.
    #[arg(long, env = "SERIATIM_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Failure domain of the node; replicas of a partition are spread over racks.
    #[arg(long, env = "SERIATIM_RACK")]
    rack: Option<String>,
    /// Replication addresses of the first nodes, the same list on every node.
    #[arg(long, env = "SERIATIM_SEEDS", value_delimiter = ',')]
    seeds: Option<Vec<String>>,
    /// Listening addresses.
    #[command(flatten)]
    listen: Listen,
    /// Addresses told to other nodes and clients, where they differ from the listening ones.
    #[arg(skip)]
    advertise: Listen,
    /// Log filter, such as `info` or `warn,seriatim_cluster=debug`.
    #[arg(long, env = "SERIATIM_LOG_LEVEL")]
    log_level: Option<String>,
    /// Form of log lines.
    #[arg(long, env = "SERIATIM_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// Most bytes of batches between admission and acknowledgement (default 268435456).
    #[arg(long, env = "SERIATIM_APPEND_BYTES")]
    append_bytes: Option<u64>,
    /// Most bytes of recent records kept in memory for readers (default 67108864).
    #[arg(long, env = "SERIATIM_CACHE_BYTES")]
    cache_bytes: Option<u64>,
}

/// The listeners of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listen {
    /// Address of the native API (default 127.0.0.1:7401).
    #[arg(long = "listen-grpc", env = "SERIATIM_LISTEN_GRPC")]
    grpc: Option<String>,
    /// Address of the replication lane (default 127.0.0.1:7402).
    #[arg(long = "listen-replication", env = "SERIATIM_LISTEN_REPLICATION")]
    replication: Option<String>,
    /// Address of health and metrics (default 127.0.0.1:7403).
    #[arg(long = "listen-http", env = "SERIATIM_LISTEN_HTTP")]
    http: Option<String>,
}

/// Reads the file, if one is named, and puts environment and flags above it.
pub(crate) fn load(file: Option<&Path>, above: Settings) -> anyhow::Result<Config> {
    let from_file = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read the configuration file {}", path.display()))?;
            parse(&text).with_context(|| format!("configuration file {}", path.display()))?
        }
        None => Settings::default(),
    };
    check(from_file.under(above))
}

fn parse(text: &str) -> anyhow::Result<Settings> {
    let table: toml::Table = text.parse()?;
    known(table.keys(), KEYS, "")?;
    for section in ["listen", "advertise"] {
        if let Some(toml::Value::Table(listen)) = table.get(section) {
            known(listen.keys(), LISTEN_KEYS, &format!("{section}."))?;
        }
    }
    Ok(toml::from_str(text)?)
}

fn known<'a>(
    keys: impl Iterator<Item = &'a String>,
    names: &[&str],
    section: &str,
) -> anyhow::Result<()> {
    for key in keys {
        if names.contains(&key.as_str()) {
            continue;
        }
        let nearest = names
            .iter()
            .min_by_key(|name| strsim::damerau_levenshtein(name, key))
            .copied()
            .unwrap_or_default();
        bail!("unknown key '{section}{key}'; did you mean '{section}{nearest}'?");
    }
    Ok(())
}

impl Settings {
    /// Sets what is not set.
    pub(crate) fn or(self, below: Self) -> Self {
        below.under(self)
    }

    /// These settings where `above` has none.
    fn under(self, above: Self) -> Self {
        Self {
            node_id: above.node_id.or(self.node_id),
            data_dir: above.data_dir.or(self.data_dir),
            rack: above.rack.or(self.rack),
            seeds: above.seeds.or(self.seeds),
            listen: self.listen.under(above.listen),
            advertise: self.advertise.under(above.advertise),
            log_level: above.log_level.or(self.log_level),
            log_format: above.log_format.or(self.log_format),
            append_bytes: above.append_bytes.or(self.append_bytes),
            cache_bytes: above.cache_bytes.or(self.cache_bytes),
        }
    }

    /// What `seriatim dev` runs with where nothing else is said: one node that is its own seed.
    pub(crate) fn dev() -> Self {
        Self {
            node_id: Some(1),
            data_dir: Some(PathBuf::from("seriatim-data")),
            ..Self::default()
        }
    }
}

impl Listen {
    fn under(self, above: Self) -> Self {
        Self {
            grpc: above.grpc.or(self.grpc),
            replication: above.replication.or(self.replication),
            http: above.http.or(self.http),
        }
    }
}

fn check(settings: Settings) -> anyhow::Result<Config> {
    let Some(node_id) = settings.node_id.filter(|id| *id > 0) else {
        bail!("set node_id: 1 or more, different for every node");
    };
    let Some(data_dir) = settings.data_dir else {
        bail!("set data_dir: the folder for the node's data");
    };
    let listen = Addresses {
        grpc: settings
            .listen
            .grpc
            .unwrap_or_else(|| "127.0.0.1:7401".to_owned()),
        replication: settings
            .listen
            .replication
            .unwrap_or_else(|| "127.0.0.1:7402".to_owned()),
        http: settings
            .listen
            .http
            .unwrap_or_else(|| "127.0.0.1:7403".to_owned()),
    };
    let advertise = Addresses {
        grpc: settings
            .advertise
            .grpc
            .unwrap_or_else(|| listen.grpc.clone()),
        replication: settings
            .advertise
            .replication
            .unwrap_or_else(|| listen.replication.clone()),
        http: settings
            .advertise
            .http
            .unwrap_or_else(|| listen.http.clone()),
    };
    let seeds = settings
        .seeds
        .unwrap_or_else(|| vec![advertise.replication.clone()]);
    check_addresses(&listen, &advertise, &seeds)?;
    let append_bytes = settings.append_bytes.unwrap_or(256 << 20);
    if append_bytes < 1 << 20 {
        bail!("append_bytes: {append_bytes} is too small; 1048576 is the least");
    }
    Ok(Config {
        node_id,
        data_dir,
        rack: settings.rack.unwrap_or_default(),
        seeds,
        listen,
        advertise,
        log_level: settings
            .log_level
            .unwrap_or_else(|| "info,openraft=warn".to_owned()),
        log_format: settings.log_format.unwrap_or_default(),
        append_bytes,
        cache_bytes: settings.cache_bytes.unwrap_or(64 << 20),
    })
}

fn check_addresses(
    listen: &Addresses,
    advertise: &Addresses,
    seeds: &[String],
) -> anyhow::Result<()> {
    let addresses = [
        ("listen.grpc", &listen.grpc),
        ("listen.replication", &listen.replication),
        ("listen.http", &listen.http),
        ("advertise.grpc", &advertise.grpc),
        ("advertise.replication", &advertise.replication),
        ("advertise.http", &advertise.http),
    ];
    for (name, address) in addresses
        .into_iter()
        .chain(seeds.iter().map(|seed| ("seeds", seed)))
    {
        let port = address
            .rsplit_once(':')
            .map(|(host, port)| (host, port.parse::<u16>()));
        if !matches!(port, Some((host, Ok(_))) if !host.is_empty()) {
            bail!("{name}: '{address}' is not \"host:port\"");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: &str = r#"
        node_id = 1
        data_dir = "/tmp/n1"
        seeds = ["127.0.0.1:7402", "127.0.0.1:7412", "127.0.0.1:7422"]
        [listen]
        grpc = "127.0.0.1:7401"
        replication = "127.0.0.1:7402"
        http = "127.0.0.1:7403"
    "#;

    #[test]
    fn a_complete_file_is_read() {
        let config = check(parse(COMPLETE).unwrap()).unwrap();
        assert_eq!(config.node_id, 1);
        assert_eq!(config.seeds.len(), 3);
        assert_eq!(config.advertise, config.listen);
    }

    #[test]
    fn flags_are_above_the_file() {
        let above = Settings {
            node_id: Some(9),
            ..Settings::default()
        };
        let config = check(parse(COMPLETE).unwrap().under(above)).unwrap();
        assert_eq!(config.node_id, 9);
        assert_eq!(config.data_dir, PathBuf::from("/tmp/n1"));
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let error = parse("nodeid = 1").unwrap_err().to_string();
        assert!(
            error.contains("'nodeid'") && error.contains("'node_id'"),
            "{error}"
        );
        let error = parse("[listen]\ngprc = \"x\"").unwrap_err().to_string();
        assert!(
            error.contains("'listen.gprc'") && error.contains("'listen.grpc'"),
            "{error}"
        );
    }

    #[test]
    fn missing_and_wrong_values_are_refused() {
        assert!(check(Settings::default()).is_err());
        let bad = COMPLETE.replace("127.0.0.1:7403", "7403");
        assert!(check(parse(&bad).unwrap()).is_err());
        assert!(parse(&COMPLETE.replace("node_id = 1", "node_id = \"x\"")).is_err());
    }
}
