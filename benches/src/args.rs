//! The command line.

use std::{num::NonZeroU64, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use seriatim_client::Compression;

/// Most clients of one process.
pub(crate) const CLIENTS_MAX: u16 = 1024;

const EXAMPLES: &str = "Examples:
  seriatim-bench produce --nodes 3
  seriatim-bench produce --rate 200 --seconds 30 --json
  seriatim-bench consume --fill-mb 2000 --clients 2
  seriatim-bench end-to-end --rate 1000 --servers 127.0.0.1:7401,127.0.0.1:7411
  seriatim-bench produce --compare-bin /tmp/before/seriatim --runs 5";

/// Open-loop load generator for Seriatim.
///
/// Latency is counted from the time at which a record should have been sent.
#[derive(Debug, Parser)]
#[command(name = "seriatim-bench", version, about, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Append records: from the intended send time to the acknowledgement.
    Produce(Options),
    /// Fill a topic, then read all of it from the start with cold consumers.
    Consume {
        /// Megabytes (10^6 bytes) of values to read.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
        fill_mb: u64,
        /// The other options.
        #[command(flatten)]
        options: Options,
    },
    /// Append and read at the same time: from the intended send time until a consumer has it.
    EndToEnd(Options),
    /// Append and read at the same time: both are reported.
    Mixed(Options),
}

/// Options of every mode.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Records per second over all clients; as many as the cluster takes if there is none.
    #[arg(long)]
    pub rate: Option<NonZeroU64>,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1024)]
    pub record_size: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Replicas of each partition.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: u32,
    /// Clients, each with connections of its own; those that read share the partitions.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(CLIENTS_MAX)))]
    pub clients: u16,
    /// none, gzip, snappy, lz4 or zstd; with one of these the values are text.
    #[arg(long, default_value = "none")]
    pub compression: Compression,
    /// When an append counts as done.
    #[arg(long, value_enum, default_value_t)]
    pub durability: Durability,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Seconds of load before that, which are not measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub warmup_seconds: u64,
    /// Size at which a producer's batch is full.
    #[arg(long, default_value_t = 1 << 20)]
    pub batch_bytes: usize,
    /// How long a producer's batch waits for more records.
    #[arg(long, default_value_t = 0)]
    pub linger_ms: u64,
    /// Bytes of records that one producer may have unacknowledged.
    #[arg(long, default_value_t = 32 << 20)]
    pub buffer_bytes: usize,
    /// gRPC addresses of a running cluster.
    #[arg(long, value_name = "HOST:PORT,...", conflicts_with_all = ["nodes", "data_dir", "seriatim_bin", "compare_bin"])]
    pub servers: Option<String>,
    /// Start a cluster of so many nodes and stop it at the end (the default, with 3 nodes).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub nodes: Option<u32>,
    /// Where that cluster keeps its data for the time of the run; the system's temporary folder
    /// unless said otherwise.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// The binary of its nodes; `seriatim` beside this program unless said otherwise.
    #[arg(long)]
    pub seriatim_bin: Option<PathBuf>,
    /// Another binary: both are measured in turn, and the ratios are printed.
    #[arg(long, value_name = "OTHER_SERIATIM")]
    pub compare_bin: Option<PathBuf>,
    /// Runs of each binary.
    #[arg(long, default_value_t = 3, requires = "compare_bin", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Do not measure the disk and the loopback device.
    #[arg(long)]
    pub no_baseline: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// When an append counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Durability {
    /// Fsynced on a majority of the replicas.
    #[default]
    Fsync,
    /// In the page cache of a majority.
    Os,
}

impl Durability {
    /// The topic setting's value.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
        }
    }
}
