//! The settings of one source: a file, the environment and the flags, or the defaults of `dev`.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, de};

use crate::logging::LogFormat;

/// What one source says; what is absent comes from the source below.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// This node's id: different for every node of the cluster, never changed
    #[arg(long, env = "SERIATIM_NODE_ID", value_name = "ID")]
    pub(super) node_id: Option<u64>,
    /// Folder for the node's data; made if it is not there
    #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Replication addresses of the first nodes, the same list on every node
    #[arg(
        long,
        env = "SERIATIM_SEEDS",
        value_name = "HOST:PORT,...",
        value_delimiter = ','
    )]
    pub(super) seeds: Option<Vec<String>>,
    /// Failure domain of the node; the replicas of a partition are spread over racks
    #[arg(long, env = "SERIATIM_RACK", value_name = "NAME")]
    pub(super) rack: Option<String>,
    #[command(flatten)]
    pub(super) listen: Listen,
    #[command(flatten)]
    pub(super) advertise: Advertise,
    /// Which log lines are written, such as `warn,seriatim_cluster=debug`
    #[arg(long, env = "SERIATIM_LOG_LEVEL", value_name = "FILTER")]
    pub(super) log_level: Option<String>,
    /// Form of log lines: for people, or one JSON object a line
    #[arg(long, env = "SERIATIM_LOG_FORMAT", value_name = "FORMAT", value_enum)]
    pub(super) log_format: Option<LogFormat>,
    /// Most bytes of batches between admission and acknowledgement; producers wait above it
    #[arg(long, env = "SERIATIM_APPEND_BYTES", value_name = "BYTES")]
    pub(super) append_bytes: Option<Size>,
    /// Most bytes of recent records kept in memory for readers
    #[arg(long, env = "SERIATIM_CACHE_BYTES", value_name = "BYTES")]
    pub(super) cache_bytes: Option<Size>,
    /// Free space of the disk below which appends are refused
    #[arg(long, env = "SERIATIM_RESERVE_BYTES", value_name = "BYTES")]
    pub(super) reserve_bytes: Option<Size>,
    /// Threads that write and sync
    #[arg(long, env = "SERIATIM_DISK_THREADS", value_name = "COUNT")]
    pub(super) disk_threads: Option<u64>,
    /// Bytes per second that the verification of sealed segments in the background reads at most
    #[arg(long, env = "SERIATIM_SCRUB_BYTES_PER_S", value_name = "BYTES")]
    pub(super) scrub_bytes_per_s: Option<Size>,
    /// How often the leader of a partition reassures its followers, in milliseconds
    #[arg(long, env = "SERIATIM_HEARTBEAT_INTERVAL_MS", value_name = "MS")]
    pub(super) heartbeat_interval_ms: Option<u64>,
    /// Silence of a leader after which a follower asks for votes, in milliseconds: at least twice
    /// the heartbeat interval; up to half of it is added at random
    #[arg(long, env = "SERIATIM_ELECTION_TIMEOUT_MS", value_name = "MS")]
    pub(super) election_timeout_ms: Option<u64>,
    /// Most bytes of entries in one message to a follower; a larger entry travels alone
    #[arg(long, env = "SERIATIM_REPLICATION_BATCH_BYTES", value_name = "BYTES")]
    pub(super) replication_batch_bytes: Option<Size>,
    /// Bytes per second that this node sends at most to replicas that are behind (restarted, rebuilt
    /// or new ones), besides what is being written. Replicas in step are not slowed down, nor is one
    /// without which its partition has no majority
    #[arg(long, env = "SERIATIM_CATCH_UP_BYTES_PER_S", value_name = "BYTES")]
    pub(super) catch_up_bytes_per_s: Option<Size>,
    /// How often all partitions are looked at for records that are too old or too many, in
    /// milliseconds; besides, a partition is looked at whenever it begins another file
    #[arg(long, env = "SERIATIM_RETENTION_INTERVAL_MS", value_name = "MS")]
    pub(super) retention_interval_ms: Option<u64>,
    /// How often the node looks for partitions that it leads although another replica is preferred,
    /// and hands them over without a pause, in milliseconds
    #[arg(long, env = "SERIATIM_LEADER_BALANCE_INTERVAL_MS", value_name = "MS")]
    pub(super) leader_balance_interval_ms: Option<u64>,
    /// How long a consumer group without members keeps its offsets, in milliseconds; the same on
    /// every node
    #[arg(long, env = "SERIATIM_GROUP_RETENTION_MS", value_name = "MS")]
    pub(super) group_retention_ms: Option<u64>,
}

/// Where the node listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listen {
    /// Address of the native API
    #[arg(
        id = "listen.grpc",
        long = "listen-grpc",
        env = "SERIATIM_LISTEN_GRPC",
        value_name = "HOST:PORT"
    )]
    pub(super) grpc: Option<String>,
    /// Address of the replication between nodes
    #[arg(
        id = "listen.replication",
        long = "listen-replication",
        env = "SERIATIM_LISTEN_REPLICATION",
        value_name = "HOST:PORT"
    )]
    pub(super) replication: Option<String>,
    /// Address of health and metrics
    #[arg(
        id = "listen.http",
        long = "listen-http",
        env = "SERIATIM_LISTEN_HTTP",
        value_name = "HOST:PORT"
    )]
    pub(super) http: Option<String>,
}

/// What others are told, where it differs from where the node listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Advertise {
    /// Address of the native API that clients are told
    #[arg(
        id = "advertise.grpc",
        long = "advertise-grpc",
        env = "SERIATIM_ADVERTISE_GRPC",
        value_name = "HOST:PORT"
    )]
    pub(super) grpc: Option<String>,
    /// Address of the replication that other nodes are told
    #[arg(
        id = "advertise.replication",
        long = "advertise-replication",
        env = "SERIATIM_ADVERTISE_REPLICATION",
        value_name = "HOST:PORT"
    )]
    pub(super) replication: Option<String>,
    /// Address of health and metrics that others are told
    #[arg(
        id = "advertise.http",
        long = "advertise-http",
        env = "SERIATIM_ADVERTISE_HTTP",
        value_name = "HOST:PORT"
    )]
    pub(super) http: Option<String>,
}

impl Settings {
    /// Sets what is not set.
    pub(crate) fn or(self, below: Self) -> Self {
        Self {
            node_id: self.node_id.or(below.node_id),
            data_dir: self.data_dir.or(below.data_dir),
            seeds: self.seeds.or(below.seeds),
            rack: self.rack.or(below.rack),
            listen: Listen {
                grpc: self.listen.grpc.or(below.listen.grpc),
                replication: self.listen.replication.or(below.listen.replication),
                http: self.listen.http.or(below.listen.http),
            },
            advertise: Advertise {
                grpc: self.advertise.grpc.or(below.advertise.grpc),
                replication: self.advertise.replication.or(below.advertise.replication),
                http: self.advertise.http.or(below.advertise.http),
            },
            log_level: self.log_level.or(below.log_level),
            log_format: self.log_format.or(below.log_format),
            append_bytes: self.append_bytes.or(below.append_bytes),
            cache_bytes: self.cache_bytes.or(below.cache_bytes),
            reserve_bytes: self.reserve_bytes.or(below.reserve_bytes),
            disk_threads: self.disk_threads.or(below.disk_threads),
            scrub_bytes_per_s: self.scrub_bytes_per_s.or(below.scrub_bytes_per_s),
            heartbeat_interval_ms: self.heartbeat_interval_ms.or(below.heartbeat_interval_ms),
            election_timeout_ms: self.election_timeout_ms.or(below.election_timeout_ms),
            replication_batch_bytes: self
                .replication_batch_bytes
                .or(below.replication_batch_bytes),
            catch_up_bytes_per_s: self.catch_up_bytes_per_s.or(below.catch_up_bytes_per_s),
            retention_interval_ms: self.retention_interval_ms.or(below.retention_interval_ms),
            leader_balance_interval_ms: self
                .leader_balance_interval_ms
                .or(below.leader_balance_interval_ms),
            group_retention_ms: self.group_retention_ms.or(below.group_retention_ms),
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

/// A number of bytes, written as a number or with a unit: `67108864`, `64MiB`, `64MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) => Ok(Self(size.as_u64())),
            Err(_) => Err("a number of bytes, such as 67108864 or 64MiB".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl de::Visitor<'_> for Either {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                match u64::try_from(number) {
                    Ok(number) => Ok(Size(number)),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Size, E> {
                Ok(Size(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
